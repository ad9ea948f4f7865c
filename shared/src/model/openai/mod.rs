//! The OpenAI Responses API, used without its storage: every request carries the whole conversation.

mod reply;
mod request;

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use secrecy::SecretString;
use url::Url;

use self::reply::Reply;
pub(super) use self::request::output;
use super::{
    Model, ModelError, ModelEvent, ModelId, ModelRequest,
    config::{ModelConfigError, bad_key},
    http::{Endpoint, endpoint_url, secret_header},
    stream::stream,
};

const BASE_URL: &str = "https://api.openai.com/v1";
/// The last event repeats the whole reply, the tools and the instructions.
const MAX_EVENT: usize = 8 * 1024 * 1024;

/// A model behind the Responses API.
#[derive(Debug)]
pub(super) struct OpenAi {
    endpoint: Arc<Endpoint>,
}

impl OpenAi {
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
        headers
            .insert(AUTHORIZATION, secret_header("Bearer ", key).ok_or_else(|| bad_key("OPENAI_API_KEY"))?);
        let url = endpoint_url(&base, "responses");
        let endpoint = Endpoint { id, http: http.clone(), url, headers, idle_timeout, max_event: MAX_EVENT };
        Ok(Self { endpoint: Arc::new(endpoint) })
    }
}

impl Model for OpenAi {
    fn id(&self) -> &ModelId {
        &self.endpoint.id
    }

    fn stream(&self, request: ModelRequest) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let body = request::body(&self.endpoint.id, &request);
        stream(self.endpoint.clone(), body, Reply::new(self.endpoint.id.clone()))
    }
}
