//! The HTTP half that all providers share: one client, one way to send a request, and what a refusal means.
//!
//! Bodies and keys are never logged and never part of an error. Nothing here waits without a bound: five seconds to
//! connect, the idle timeout for the first byte and between two events.

use std::{error::Error as StdError, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{
    Client, ClientBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{ModelError, ModelErrorKind, ModelId, sse::Events};

/// How long a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As much of a refusal's body as is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// A client fit for model streams: bounded connecting, no total timeout, no redirects. `harden` may add to it, for
/// example a resolver that refuses private addresses.
///
/// # Errors
///
/// When the TLS setup of the machine is unusable.
pub fn client(harden: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .pool_idle_timeout(Duration::from_secs(60))
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("alfred/", env!("CARGO_PKG_VERSION")));
    harden(builder).build()
}

/// Where and how one model is reached.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) id: ModelId,
    pub(super) http: Client,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) idle_timeout: Duration,
    /// The largest event that is accepted, in bytes.
    pub(super) max_event: usize,
}

impl Endpoint {
    /// Posts the body and gives the stream of events, or what the refusal means.
    pub(super) async fn open(&self, body: String) -> Result<Events, ModelError> {
        let request = self
            .http
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .body(body)
            .send();
        let response = match tokio::time::timeout(self.idle_timeout, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.not_reached(error)),
            Err(_) => return Err(self.silent()),
        };
        if response.status() != StatusCode::OK {
            return Err(self.refused(response).await);
        }
        Ok(Events::new(response, self))
    }

    /// Posts the body and gives the whole answer, of this size at most, or what the refusal means.
    pub(super) async fn fetch(&self, body: String, largest: usize) -> Result<Vec<u8>, ModelError> {
        let asking = async {
            let request = self.http.post(self.url.clone()).headers(self.headers.clone());
            let request = request.header(CONTENT_TYPE, "application/json").body(body);
            let mut response = request.send().await.map_err(|error| self.not_reached(error))?;
            if response.status() != StatusCode::OK {
                return Err(self.refused(response).await);
            }
            let mut answer = Vec::new();
            while let Some(chunk) =
                response.chunk().await.map_err(|_| self.truncated("broke off its answer"))?
            {
                if answer.len() + chunk.len() > largest {
                    return Err(self.truncated("answered more than can be read"));
                }
                answer.extend_from_slice(&chunk);
            }
            Ok(answer)
        };
        tokio::time::timeout(self.idle_timeout, asking).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn not_reached(&self, error: reqwest::Error) -> ModelError {
        let (kind, what) = if error.is_timeout() {
            (ModelErrorKind::Timeout, "did not accept a connection in time")
        } else {
            (ModelErrorKind::Unavailable, "cannot be reached")
        };
        self.error(kind, what).caused_by(error.without_url())
    }

    /// The stream's or the answer's silence lasted too long.
    pub(super) fn silent(&self) -> ModelError {
        self.error(ModelErrorKind::Timeout, &format!("sent nothing for {:?}", self.idle_timeout))
    }

    /// The stream ended, or made no sense, before its end marker.
    pub(super) fn truncated(&self, what: &str) -> ModelError {
        self.error(ModelErrorKind::Truncated, what)
    }

    /// An error that names the model and the provider.
    pub(super) fn error(&self, kind: ModelErrorKind, what: &str) -> ModelError {
        ModelError::new(kind, format!("{} {what}", self.id))
    }

    async fn refused(&self, mut response: Response) -> ModelError {
        let status = response.status();
        let retry_after = retry_after(response.headers(), Utc::now());
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ERROR_BODY {
                    break;
                }
            }
        };
        // The status says most of it; a refusal whose body stalls is still that refusal.
        let _ = tokio::time::timeout(self.idle_timeout.min(CONNECT_TIMEOUT), read).await;
        let fault = Fault::read(&body);
        let kind = kind_of_status(status);
        let what = if fault.is_context_overflow() {
            format!("refused the request: the conversation is longer than the model can read ({status})")
        } else {
            match fault.label() {
                Some(label) => format!("answered {} ({label})", status.as_u16()),
                None => format!("answered {}", status.as_u16()),
            }
        };
        ModelError { retry_after, ..self.error(kind, &what) }
    }

    /// An error event inside a stream that began well.
    pub(super) fn fault(&self, fault: &Fault) -> ModelError {
        let what = match fault.label() {
            Some(label) => format!("broke off with an error ({label})"),
            None => "broke off with an error".to_owned(),
        };
        self.error(fault.kind(), &what)
    }
}

/// What a status means.
fn kind_of_status(status: StatusCode) -> ModelErrorKind {
    match status.as_u16() {
        429 => ModelErrorKind::RateLimited,
        503 | 529 => ModelErrorKind::Overloaded,
        401 | 403 => ModelErrorKind::Unauthorized,
        408 | 409 | 500.. => ModelErrorKind::Unavailable,
        100..300 => ModelErrorKind::Truncated,
        _ => ModelErrorKind::Rejected,
    }
}

/// The error object of all three wires, in a body or an event.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<String>,
}

impl Fault {
    /// Reads `{"error":{…}}`, a list around it, or nothing.
    fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Wrapped {
            error: Fault,
        }
        let inner = body.trim_ascii_start().strip_prefix(b"[").unwrap_or(body);
        serde_json::Deserializer::from_slice(inner)
            .into_iter::<Wrapped>()
            .next()
            .and_then(Result::ok)
            .map(|wrapped| wrapped.error)
            .unwrap_or_default()
    }

    /// Reads an error event, whose fields stand at the top or in `error`.
    pub(super) fn of_event(data: &str) -> Self {
        let wrapped = Self::read(data.as_bytes());
        if wrapped.kind.is_some() || wrapped.code.is_some() {
            return wrapped;
        }
        let top: Self = serde_json::from_str(data).unwrap_or_default();
        Self { kind: None, ..top }
    }

    /// The provider's short name of the error, if it is one that can be shown.
    fn label(&self) -> Option<&str> {
        let code = self.code.as_ref().and_then(serde_json::Value::as_str);
        code.or(self.kind.as_deref()).filter(|label| {
            label.len() <= 64 && label.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        })
    }

    fn is_context_overflow(&self) -> bool {
        self.label() == Some("context_length_exceeded")
            || self.message.as_deref().is_some_and(|text| text.starts_with("prompt is too long"))
    }

    /// What an error event inside a stream means.
    fn kind(&self) -> ModelErrorKind {
        if let Some(status) = self.code.as_ref().and_then(serde_json::Value::as_u64)
            && let Some(status) = u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok())
        {
            return kind_of_status(status);
        }
        match self.label().unwrap_or_default() {
            "overloaded_error" | "server_is_overloaded" | "slow_down" => ModelErrorKind::Overloaded,
            "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" | "RESOURCE_EXHAUSTED" => {
                ModelErrorKind::RateLimited
            }
            "authentication_error" | "permission_error" | "invalid_api_key" => ModelErrorKind::Unauthorized,
            "invalid_request_error"
            | "invalid_prompt"
            | "not_found_error"
            | "request_too_large"
            | "context_length_exceeded"
            | "model_not_found" => ModelErrorKind::Rejected,
            _ => ModelErrorKind::Unavailable,
        }
    }
}

/// When to come back: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |value: f64| Duration::try_from_secs_f64(value.max(0.0)).ok();
    if let Some(millis) = text("retry-after-ms").and_then(|value| value.parse::<f64>().ok()) {
        return seconds(millis / 1000.0);
    }
    let value = text("retry-after")?;
    if let Ok(value) = value.parse::<f64>() {
        return seconds(value);
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or(Duration::ZERO))
}

/// A header that carries a key and never prints.
pub(super) fn secret_header(prefix: &str, key: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret().trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Joins a base address and a path. A base without a path gets `/v1`, so `http://127.0.0.1:11434` is enough.
pub(super) fn endpoint_url(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let prefix = match base.path().trim_end_matches('/') {
        "" => "/v1",
        prefix => prefix,
    };
    url.set_path(&format!("{prefix}/{path}"));
    url.set_fragment(None);
    url
}

/// The innermost cause, for logs.
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn retry_after_is_read_in_every_form() {
        let now = Utc.with_ymd_and_hms(2026, 11, 6, 12, 0, 0).unwrap();
        for (name, value, expected) in [
            ("retry-after", "7", Some(7000)),
            ("retry-after", "0.5", Some(500)),
            ("retry-after-ms", "250", Some(250)),
            ("retry-after", "Fri, 06 Nov 2026 12:00:30 GMT", Some(30_000)),
            ("retry-after", "Fri, 06 Nov 2026 11:00:00 GMT", Some(0)),
            ("retry-after", "-3", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "inf", None),
            ("x-other", "7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let read = retry_after(&headers, now).map(|wait| wait.as_millis());
            assert_eq!(read, expected, "{name}: {value}");
        }
    }

    #[test]
    fn addresses_are_joined() {
        for (base, expected) in [
            ("http://127.0.0.1:1", "http://127.0.0.1:1/v1/messages"),
            ("http://127.0.0.1:1/v1/", "http://127.0.0.1:1/v1/messages"),
            ("https://host/v1beta/openai/", "https://host/v1beta/openai/messages"),
            ("https://host/p?api-version=2", "https://host/p/messages?api-version=2"),
        ] {
            assert_eq!(endpoint_url(&base.parse().unwrap(), "messages").as_str(), expected);
        }
    }

    #[test]
    fn faults_are_read_and_shown_only_as_labels() {
        let fault =
            Fault::read(br#"{"type":"error","error":{"type":"overloaded_error","message":"secret"}}"#);
        assert_eq!((fault.label(), fault.kind()), (Some("overloaded_error"), ModelErrorKind::Overloaded));
        let fault = Fault::read(br#"[{"error":{"code":503,"message":"x"}}]"#);
        assert_eq!((fault.label(), fault.kind()), (None, ModelErrorKind::Overloaded));
        let fault = Fault::read(br#"{"error":{"type":"a b <script>"}}"#);
        assert_eq!(fault.label(), None);
        assert_eq!(Fault::read(b"<html>").label(), None);
    }
}
