//! Which models a process talks to, from the `MODEL_*` variables to a chain of clients.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{
    Model, ModelId, Provider, anthropic::Anthropic, offline::Offline, openai::OpenAi,
    openai_compatible::OpenAiCompatible,
};

/// The model part of a process's configuration.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `MODEL_PROVIDER`; unset means the first provider with a key, else the offline one.
    pub provider: Option<Provider>,
    /// `MODEL_NAME`; unset means the provider's default.
    pub name: Option<String>,
    /// `MODEL_BASE_URL`: another address of the primary provider; fallbacks of the same provider use it too.
    pub base_url: Option<Url>,
    /// `MODEL_FALLBACKS`: `provider:model,…`, tried in order after the primary.
    pub fallbacks: Vec<ModelId>,
    /// `ANTHROPIC_API_KEY`
    pub anthropic_api_key: Option<SecretString>,
    /// `OPENAI_API_KEY`, also sent to an OpenAI-compatible server.
    pub openai_api_key: Option<SecretString>,
    /// How long a provider may stay silent, between two events or before the first.
    pub idle_timeout: Duration,
    /// The pause before each word of the offline model, for a natural look.
    pub offline_delay: Duration,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            provider: None,
            name: None,
            base_url: None,
            fallbacks: Vec::new(),
            anthropic_api_key: None,
            openai_api_key: None,
            idle_timeout: Duration::from_secs(90),
            offline_delay: Duration::from_millis(15),
        }
    }
}

/// A variable that does not fit the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {message}")]
pub struct ModelConfigError {
    /// The variable to look at.
    pub variable: &'static str,
    /// What is wrong with it and what would be right.
    pub message: String,
}

fn refuse<T>(variable: &'static str, message: impl Into<String>) -> Result<T, ModelConfigError> {
    Err(ModelConfigError { variable, message: message.into() })
}

/// Builds the chain of models: the primary, then the fallbacks in order.
///
/// # Errors
///
/// A provider without its key or address, or a compatible server without a model name.
pub fn by_name(
    config: &ModelConfig,
    http: &reqwest::Client,
) -> Result<Vec<Arc<dyn Model>>, ModelConfigError> {
    let primary = primary_id(config)?;
    let mut chain = vec![build(&primary, "MODEL_PROVIDER", config.base_url.as_ref(), config, http)?];
    for fallback in &config.fallbacks {
        let base_url = config.base_url.as_ref().filter(|_| fallback.provider == primary.provider);
        chain.push(build(fallback, "MODEL_FALLBACKS", base_url, config, http)?);
    }
    Ok(chain)
}

/// Whether [`by_name`] would build a chain.
///
/// # Errors
///
/// As [`by_name`]; the machine's TLS setup is not its business.
pub fn check(config: &ModelConfig) -> Result<(), ModelConfigError> {
    let primary = primary_id(config)?;
    if primary.provider == Provider::Offline && config.fallbacks.is_empty() {
        return Ok(());
    }
    // A client that never connects needs no certificates, which take long to read.
    let builder = reqwest::Client::builder().tls_certs_only([]);
    builder.build().map_or(Ok(()), |http| by_name(config, &http).map(drop))
}

fn primary_id(config: &ModelConfig) -> Result<ModelId, ModelConfigError> {
    let provider = match config.provider {
        Some(provider) => provider,
        None if config.anthropic_api_key.is_some() => Provider::Anthropic,
        None if config.openai_api_key.is_some() => Provider::OpenAi,
        None if config.base_url.is_some() => {
            return refuse(
                "MODEL_PROVIDER",
                "MODEL_BASE_URL is set, so name the provider it serves, for example openai-compatible",
            );
        }
        None => Provider::Offline,
    };
    let name = match (config.name.as_deref().map(str::trim).filter(|name| !name.is_empty()), provider) {
        (Some(name), _) => name,
        (None, Provider::Anthropic) => "claude-sonnet-5-5",
        (None, Provider::OpenAi) => "gpt-6.1-terra",
        (None, Provider::Offline) => "rules-1",
        (None, Provider::OpenAiCompatible) => {
            return refuse("MODEL_NAME", "required for openai-compatible: the model's name on that server");
        }
    };
    Ok(ModelId { provider, name: name.to_owned() })
}

fn build(
    id: &ModelId,
    variable: &'static str,
    base_url: Option<&Url>,
    config: &ModelConfig,
    http: &reqwest::Client,
) -> Result<Arc<dyn Model>, ModelConfigError> {
    if id.name.is_empty() {
        return refuse(variable, format!("{} needs a model name after the colon", id.provider));
    }
    let id = id.clone();
    let idle = config.idle_timeout;
    Ok(match id.provider {
        Provider::Anthropic => {
            let Some(key) = &config.anthropic_api_key else {
                return refuse("ANTHROPIC_API_KEY", format!("required because {variable} names anthropic"));
            };
            Arc::new(Anthropic::new(id, base_url, key, idle, http)?)
        }
        Provider::OpenAi => {
            let Some(key) = &config.openai_api_key else {
                return refuse("OPENAI_API_KEY", format!("required because {variable} names openai"));
            };
            Arc::new(OpenAi::new(id, base_url, key, idle, http)?)
        }
        Provider::OpenAiCompatible => {
            let Some(base_url) = base_url else {
                return refuse(
                    "MODEL_BASE_URL",
                    format!(
                        "required because {variable} names openai-compatible; as a fallback it needs the same primary provider"
                    ),
                );
            };
            Arc::new(OpenAiCompatible::new(id, base_url, config.openai_api_key.as_ref(), idle, http)?)
        }
        Provider::Offline => Arc::new(Offline::new(id, config.offline_delay)),
    })
}

/// A refusal to use a key that no header can carry.
pub(super) fn bad_key(variable: &'static str) -> ModelConfigError {
    ModelConfigError { variable, message: "has characters that no HTTP header can carry".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &ModelConfig) -> Result<Vec<String>, String> {
        let http = crate::model::http::client(|builder| builder).unwrap();
        by_name(config, &http)
            .map(|chain| chain.iter().map(|model| model.id().to_string()).collect())
            .map_err(|error| error.variable.to_owned())
    }

    #[test]
    fn the_first_provider_with_a_key_is_the_default() {
        let none = ModelConfig::default();
        let openai = ModelConfig { openai_api_key: Some("k".into()), ..none.clone() };
        let both = ModelConfig { anthropic_api_key: Some("k".into()), ..openai.clone() };
        assert_eq!(names(&none), Ok(vec!["offline:rules-1".to_owned()]));
        assert_eq!(names(&openai), Ok(vec!["openai:gpt-6.1-terra".to_owned()]));
        assert_eq!(names(&both), Ok(vec!["anthropic:claude-sonnet-5-5".to_owned()]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = ModelConfig::default();
        let url: Url = "http://127.0.0.1:11434".parse().unwrap();
        let provider = |provider| ModelConfig { provider: Some(provider), ..none.clone() };
        for (config, variable) in [
            (provider(Provider::Anthropic), "ANTHROPIC_API_KEY"),
            (provider(Provider::OpenAi), "OPENAI_API_KEY"),
            (provider(Provider::OpenAiCompatible), "MODEL_NAME"),
            (
                ModelConfig { name: Some("llama".into()), ..provider(Provider::OpenAiCompatible) },
                "MODEL_BASE_URL",
            ),
            (ModelConfig { base_url: Some(url.clone()), ..none.clone() }, "MODEL_PROVIDER"),
            (
                ModelConfig { fallbacks: vec!["openai:gpt-5-mini".parse().unwrap()], ..none.clone() },
                "OPENAI_API_KEY",
            ),
            (
                ModelConfig { anthropic_api_key: Some("bad\nkey".into()), ..provider(Provider::Anthropic) },
                "ANTHROPIC_API_KEY",
            ),
        ] {
            assert_eq!(names(&config), Err(variable.to_owned()));
        }
        let chain = ModelConfig {
            name: Some("llama".into()),
            base_url: Some(url),
            fallbacks: vec!["openai-compatible:qwen".parse().unwrap(), "offline:rules-1".parse().unwrap()],
            ..provider(Provider::OpenAiCompatible)
        };
        assert_eq!(names(&chain).unwrap().len(), 3);
    }
}
