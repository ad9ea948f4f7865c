//! The HTTP under a session: the SDK's own exchange over the guarded client, with what goes along with one call and with
//! servers that forget sessions in their own words.

use std::{collections::HashMap, sync::Arc};

use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, GetExtensions as _, JsonRpcMessage},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use sha2::{Digest, Sha256};
use sse_stream::Sse;

/// What is sent on with one call; nothing else of a request to us ever is.
#[derive(Debug, Clone)]
pub(super) struct SentOn {
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl SentOn {
    /// All calls made for one request to us have one trace.
    pub(super) fn of(request_id: &str) -> Self {
        let trace: String =
            Sha256::digest(request_id).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let span: u64 = rand::random();
        Self {
            request_id: HeaderValue::from_str(request_id).ok().filter(|value| !value.is_empty()),
            traceparent: HeaderValue::from_str(&format!("00-{trace}-{span:016x}-01")).ok(),
        }
    }
}

/// Two clients with one guard: one for answers, which come soon, and one for streams, which may be silent for hours.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) prompt: reqwest::Client,
    pub(super) patient: reqwest::Client,
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type Refused = StreamableHttpError<reqwest::Error>;

impl StreamableHttpClient for Wire {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Refused> {
        let most = super::MOST_BYTES;
        self.post_message_with_max_sse_event_size(uri, message, session_id, auth_header, headers, most).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        mut headers: Headers,
        most: usize,
    ) -> Result<StreamableHttpPostResponse, Refused> {
        let mut client = &self.prompt;
        if let JsonRpcMessage::Request(request) = &message {
            if let Some(sent_on) = request.request.extensions().get::<SentOn>() {
                let named = [("x-request-id", &sent_on.request_id), ("traceparent", &sent_on.traceparent)];
                for (name, value) in named {
                    if let Some(value) = value {
                        headers.insert(HeaderName::from_static(name), value.clone());
                    }
                }
            }
            if matches!(request.request, ClientRequest::SubscriptionsListenRequest(_)) {
                client = &self.patient;
            }
        }
        let had_session = session_id.is_some();
        let answered = client
            .post_message_with_max_sse_event_size(uri, message, session_id, auth_header, headers, most)
            .await;
        match answered {
            Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _))
                if had_session && error.id.is_none() && is_forgotten(&error.error.message) =>
            {
                Err(StreamableHttpError::SessionExpired)
            }
            Err(StreamableHttpError::UnexpectedServerResponse(text))
                if had_session && text.starts_with("HTTP 400") && is_forgotten(&text) =>
            {
                Err(StreamableHttpError::SessionExpired)
            }
            other => other,
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<(), Refused> {
        self.prompt.delete_session(uri, session_id, auth_header, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<Events, Refused> {
        let most = super::MOST_BYTES;
        self.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, most)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
        most: usize,
    ) -> Result<Events, Refused> {
        self.patient
            .get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, most)
            .await
    }
}

/// The specification says 404; servers made with the TypeScript SDK say 400 and a sentence.
fn is_forgotten(sentence: &str) -> bool {
    sentence.to_ascii_lowercase().contains("session")
}
