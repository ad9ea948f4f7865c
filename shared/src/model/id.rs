//! Names of providers and models, as configuration, storage and logs spell them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A wire format with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// The Anthropic Messages API.
    Anthropic,
    /// The OpenAI Responses API.
    #[serde(rename = "openai")]
    OpenAi,
    /// Chat completions at a base URL: Ollama, vLLM, LM Studio, Gemini's endpoint.
    #[serde(rename = "openai-compatible")]
    OpenAiCompatible,
    /// The rule-based stand-in that needs no network.
    Offline,
}

impl Provider {
    /// The name in configuration, storage and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::OpenAiCompatible => "openai-compatible",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown model provider {0:?}, expected anthropic, openai, openai-compatible or offline")]
pub struct UnknownProvider(pub String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        match text.trim().to_ascii_lowercase().as_str() {
            "anthropic" => Ok(Self::Anthropic),
            "openai" => Ok(Self::OpenAi),
            "openai-compatible" => Ok(Self::OpenAiCompatible),
            "offline" => Ok(Self::Offline),
            _ => Err(UnknownProvider(text.to_owned())),
        }
    }
}

/// A model of a provider, written `provider:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelId {
    /// Who serves it.
    pub provider: Provider,
    /// The provider's name of it.
    pub name: String,
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.name)
    }
}

impl FromStr for ModelId {
    type Err = UnknownProvider;

    /// Reads `provider:name`; the name may itself contain colons (`openai-compatible:llama3.2:3b`).
    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        let Some((provider, name)) = text.trim().split_once(':') else {
            return Err(UnknownProvider(text.to_owned()));
        };
        Ok(Self { provider: provider.parse()?, name: name.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_are_written() {
        for provider in [Provider::Anthropic, Provider::OpenAi, Provider::OpenAiCompatible, Provider::Offline]
        {
            assert_eq!(provider.as_str().parse::<Provider>().unwrap(), provider);
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
        }
        assert!("gpt".parse::<Provider>().is_err());
        let id: ModelId = "openai-compatible:llama3.2:3b".parse().unwrap();
        assert_eq!((id.provider, id.name.as_str()), (Provider::OpenAiCompatible, "llama3.2:3b"));
        assert_eq!(id.to_string(), "openai-compatible:llama3.2:3b");
    }
}
