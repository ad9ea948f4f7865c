//! What texts mean, as numbers: the `/embeddings` wire of OpenAI, which Ollama, vLLM, LM Studio and others speak as well.
//!
//! Invariant: as many vectors come back as texts went out, in their order, each of length 1 and of one number of
//! dimensions.

use std::{sync::Arc, time::Duration};

use reqwest::header::{AUTHORIZATION, HeaderMap};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    ModelConfigError, ModelError, ModelErrorKind, ModelId, Provider,
    config::bad_key,
    http::{Endpoint, endpoint_url, secret_header},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of an answer that are read.
const LARGEST: usize = 32 << 20;

/// Where embeddings come from.
#[derive(Debug, Clone)]
pub struct EmbeddingConfig {
    /// `EMBEDDING_PROVIDER`
    pub provider: Provider,
    /// `EMBEDDING_BASE_URL`
    pub base_url: Url,
    /// `EMBEDDING_MODEL`
    pub model: String,
    /// `EMBEDDING_DIMENSIONS`: asked of the model; none leaves it to the model.
    pub dimensions: Option<u32>,
    /// `EMBEDDING_API_KEY`
    pub key: Option<SecretString>,
}

/// A model of embeddings.
#[derive(Debug, Clone)]
pub struct Embedder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    dimensions: Option<u32>,
    name: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One for each text.
    pub vectors: Vec<Vec<f32>>,
    /// What the provider counted; 0 when it did not say.
    pub tokens: i64,
}

#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<One>,
    #[serde(default)]
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    prompt_tokens: i64,
}

impl Embedder {
    /// # Errors
    /// A key that no header can carry.
    pub fn new(config: &EmbeddingConfig, http: &reqwest::Client) -> Result<Self, ModelConfigError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.key {
            let value = secret_header("Bearer ", key).ok_or_else(|| bad_key("EMBEDDING_API_KEY"))?;
            headers.insert(AUTHORIZATION, value);
        }
        let id = ModelId { provider: config.provider, name: config.model.clone() };
        let name = match config.dimensions {
            Some(dimensions) => format!("{id}:{dimensions}"),
            None => id.to_string(),
        };
        let url = endpoint_url(&config.base_url, "embeddings");
        let endpoint =
            Endpoint { id, http: http.clone(), url, headers, idle_timeout: PATIENCE, max_event: LARGEST };
        Ok(Self(Arc::new(Inner { endpoint, dimensions: config.dimensions, name })))
    }

    /// Names the model and what was asked of it: vectors under different names are not to be compared.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Embeds texts, none of them empty.
    ///
    /// # Errors
    /// As models fail.
    pub async fn embed(&self, texts: &[String]) -> Result<Embeddings, ModelError> {
        let endpoint = &self.0.endpoint;
        let asked = self.ask(texts).await;
        let outcome = asked.as_ref().map_or_else(|error| error.kind.as_str(), |_| "ok");
        let provider = endpoint.id.provider.as_str();
        metrics::counter!("embedding_requests_total", "provider" => provider, "outcome" => outcome)
            .increment(1);
        if let Ok(embeddings) = &asked {
            metrics::counter!("model_tokens_total", "provider" => provider, "kind" => "embedding")
                .increment(u64::try_from(embeddings.tokens).unwrap_or(0));
        }
        asked
    }

    async fn ask(&self, texts: &[String]) -> Result<Embeddings, ModelError> {
        let endpoint = &self.0.endpoint;
        let body = Asked {
            model: &endpoint.id.name,
            input: texts,
            encoding_format: "float",
            dimensions: self.0.dimensions,
        };
        let wrong = |what: &str| endpoint.error(ModelErrorKind::Truncated, what);
        let body = serde_json::to_string(&body).map_err(|_| wrong("cannot be asked"))?;
        let answer = endpoint.fetch(body, LARGEST).await?;
        let answer: Answered =
            serde_json::from_slice(&answer).map_err(|_| wrong("answered what are no embeddings"))?;
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
        for (place, one) in answer.data.into_iter().enumerate() {
            if let Some(vector) = vectors.get_mut(one.index.unwrap_or(place)) {
                *vector = of_length_1(one.embedding);
            }
        }
        let vectors: Option<Vec<Vec<f32>>> = vectors.into_iter().collect();
        let vectors = vectors.ok_or_else(|| wrong("answered too few embeddings, or an empty one"))?;
        let wanted = self.0.dimensions.and_then(|dimensions| usize::try_from(dimensions).ok());
        let dimensions = wanted.or_else(|| vectors.first().map(Vec::len));
        if vectors.iter().any(|vector| Some(vector.len()) != dimensions) {
            return Err(wrong("answered embeddings of other dimensions"));
        }
        Ok(Embeddings { vectors, tokens: answer.usage.map_or(0, |usage| usage.prompt_tokens.max(0)) })
    }
}

fn of_length_1(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|part| f64::from(*part) * f64::from(*part)).sum::<f64>().sqrt();
    if !length.is_finite() || length <= 0.0 {
        return None;
    }
    for part in &mut vector {
        *part = (f64::from(*part) / length) as f32;
    }
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_made_comparable() {
        assert_eq!(of_length_1(vec![3.0, 4.0]), Some(vec![0.6, 0.8]));
        for wrong in [vec![], vec![0.0, 0.0], vec![f32::NAN], vec![f32::INFINITY]] {
            assert_eq!(of_length_1(wrong), None);
        }
    }
}
