//! Chat completions at a base URL: the wire that Ollama, vLLM, LM Studio, Gemini and many others speak, each with its
//! own accent. A key is optional.

mod reply;
mod request;

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use secrecy::SecretString;
use url::Url;

use self::reply::Reply;
use super::{
    Model, ModelError, ModelEvent, ModelId, ModelRequest,
    config::{ModelConfigError, bad_key},
    http::{Endpoint, endpoint_url, secret_header},
    stream::stream,
};

const MAX_EVENT: usize = 1024 * 1024;

/// A model behind a chat-completions server.
#[derive(Debug)]
pub(super) struct OpenAiCompatible {
    endpoint: Arc<Endpoint>,
}

impl OpenAiCompatible {
    pub(super) fn new(
        id: ModelId,
        base_url: &Url,
        key: Option<&SecretString>,
        idle_timeout: Duration,
        http: &reqwest::Client,
    ) -> Result<Self, ModelConfigError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let value = secret_header("Bearer ", key).ok_or_else(|| bad_key("OPENAI_API_KEY"))?;
            headers.insert(AUTHORIZATION, value);
        }
        let url = endpoint_url(base_url, "chat/completions");
        let endpoint = Endpoint { id, http: http.clone(), url, headers, idle_timeout, max_event: MAX_EVENT };
        Ok(Self { endpoint: Arc::new(endpoint) })
    }
}

impl Model for OpenAiCompatible {
    fn id(&self) -> &ModelId {
        &self.endpoint.id
    }

    fn stream(&self, request: ModelRequest) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let body = request::body(&self.endpoint.id, &request);
        stream(self.endpoint.clone(), body, Reply::new(self.endpoint.id.clone()))
    }
}
