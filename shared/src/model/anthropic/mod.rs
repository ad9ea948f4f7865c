//! The Anthropic Messages API.

mod reply;
mod request;

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use url::Url;

use self::reply::Reply;
use super::{
    Model, ModelError, ModelEvent, ModelId, ModelRequest,
    config::{ModelConfigError, bad_key},
    http::{Endpoint, endpoint_url, secret_header},
    stream::stream,
};

const BASE_URL: &str = "https://api.anthropic.com";
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
const MAX_EVENT: usize = 1024 * 1024;

/// A model behind the Messages API.
#[derive(Debug)]
pub(super) struct Anthropic {
    endpoint: Arc<Endpoint>,
}

impl Anthropic {
    pub(super) fn new(
        id: ModelId,
        base_url: Option<&Url>,
        key: &SecretString,
        idle_timeout: Duration,
        http: &reqwest::Client,
    ) -> Result<Self, ModelConfigError> {
        let base = match base_url {
            Some(url) => url.clone(),
            None => Url::parse(BASE_URL).expect("a literal address parses"),
        };
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-version", VERSION);
        headers.insert("x-api-key", secret_header("", key).ok_or_else(|| bad_key("ANTHROPIC_API_KEY"))?);
        let url = endpoint_url(&base, "messages");
        let endpoint = Endpoint { id, http: http.clone(), url, headers, idle_timeout, max_event: MAX_EVENT };
        Ok(Self { endpoint: Arc::new(endpoint) })
    }
}

impl Model for Anthropic {
    fn id(&self) -> &ModelId {
        &self.endpoint.id
    }

    fn stream(&self, request: ModelRequest) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let body = request::body(&self.endpoint.id, &request);
        stream(self.endpoint.clone(), body, Reply::new(self.endpoint.id.clone()))
    }
}
