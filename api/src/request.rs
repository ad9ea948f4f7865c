//! What happens to every request, whatever its route: an id, a span, one line in the log, the common headers.

use std::{
    convert::Infallible,
    fmt,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use tower::Service as _;
use tracing::{Instrument as _, field::Empty};

use crate::{error, extract::RequestId, state::App};

/// Until an answer begins; a body may take half of it to arrive, and a client may wait for its turn as long.
const LONGEST: Duration = Duration::from_secs(75);
/// What a page may load and do, unless its route says otherwise.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Put into a response's extensions by a stream that has nothing to answer: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoAnswer;

/// The service's error: closes the connection without an answer.
#[derive(Debug)]
pub(crate) struct ClosedWithoutAnswer;

impl fmt::Display for ClosedWithoutAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed without an answer")
    }
}

impl std::error::Error for ClosedWithoutAnswer {}

/// Answers one request.
pub(crate) async fn answer(
    app: App,
    router: Router,
    mut request: Request<Body>,
) -> Result<Response, ClosedWithoutAnswer> {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path();
    // A call over MCP is cancelled by going away, and its handler runs in a task of its own that is told.
    let ends_with_its_client = path == "/mcp";
    let quiet = matches!(path, "/healthz" | "/readyz" | "/metrics");
    // An error span, so that its fields are there whatever the level of the log.
    let span = tracing::error_span!(
        "request",
        request_id = id,
        method = method.as_str(),
        route = Empty,
        tenant_id = Empty,
        user_id = Empty,
        agent_name = Empty,
        session_id = Empty,
        turn_id = Empty,
        mcp_method = Empty,
        tool = Empty,
    );
    span.record("route", path.get(..256).unwrap_or(path));
    request.extensions_mut().insert(RequestId(id.clone()));
    let work = routed(router, request).instrument(span.clone());
    let mut response = if ends_with_its_client { work.await } else { to_its_end(work).await };
    let _entered = span.enter();
    // Over MCP an error is JSON-RPC's affair.
    if !ends_with_its_client {
        error::adopt(&mut response);
    }
    let failed = error::complete(&mut response, &id);
    log(&response, started, failed, quiet);
    if response.extensions().get::<NoAnswer>().is_some() {
        return Err(ClosedWithoutAnswer);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(X_REQUEST_ID, id);
    }
    common_headers(headers, &app);
    Ok(response)
}

/// A request goes on when its client goes away: dropped between a commit and its bell, it would leave others waiting for
/// their slow timers; dropped in a BEGIN or a COMMIT, its connection would go back to the pool in an open transaction, or
/// with a ROLLBACK that no transaction is there for.
async fn to_its_end(work: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::time::timeout(LONGEST, tokio::spawn(work)).await {
        Ok(Ok(response)) => response,
        Ok(Err(ended)) => error::Failure(shared::Error::internal(ended)).into_response(),
        Err(_) => {
            let late = format!("a request was not answered within {} s", LONGEST.as_secs());
            error::Failure(shared::Error::internal(late)).into_response()
        }
    }
}

async fn routed(mut router: Router, request: Request<Body>) -> Response {
    let answered: Result<Response, Infallible> = router.call(request).await;
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn log(response: &Response, started: Instant, failed: Option<error::Failed>, quiet: bool) {
    let status = response.status().as_u16();
    let duration_ms = (started.elapsed().as_secs_f64() * 1e5).round() / 1e2;
    match failed {
        Some(failed) => tracing::info!(
            status,
            duration_ms,
            error_code = failed.code.as_str(),
            origin = failed.origin.as_str(),
            "answered"
        ),
        None if response.extensions().get::<NoAnswer>().is_some() => {
            tracing::info!(duration_ms, "closed without an answer");
        }
        None if quiet => tracing::debug!(status, duration_ms, "answered"),
        None => tracing::info!(status, duration_ms, "answered"),
    }
}

fn common_headers(headers: &mut HeaderMap, app: &App) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page && !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    }
    if app.config.public_url.scheme() == "https" {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}

/// The client's id when it is safe to repeat, otherwise one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_safe(id));
    given.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned)
}

fn is_safe(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=128).contains(&id.len()) && id.bytes().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_ids_are_repeated() {
        assert!(is_safe("a-Z_9.:"));
        for unsafe_id in ["", "a b", "a\"b", "ü", &"x".repeat(129)] {
            assert!(!is_safe(unsafe_id), "{unsafe_id:?}");
        }
    }
}
