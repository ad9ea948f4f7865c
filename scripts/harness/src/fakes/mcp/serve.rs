//! The wire of the fake server: JSON-RPC over HTTP as both eras of the protocol have it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State as Extracted,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::{Behaviour, Era, FakeTool, ReceivedRpc, State, locked};

const SESSION: &str = "mcp-session-id";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/mcp", post(message).get(listen).delete(goodbye))
        .route("/.well-known/oauth-protected-resource/mcp", get(resource_metadata))
        .with_state(state)
}

/// Whose tokens are wanted (RFC 9728).
async fn resource_metadata(Extracted(state): Extracted<Arc<State>>) -> Response {
    let Some(guard) = locked(&state.guard).clone() else { return StatusCode::NOT_FOUND.into_response() };
    let resource = format!("{}/mcp", state.base);
    axum::Json(json!({"resource": resource, "authorization_servers": [guard.issuer]})).into_response()
}

/// A refusal, unless the request carries a good token where one is wanted.
fn unguarded(state: &State, headers: &HeaderMap) -> Option<Response> {
    let guard = locked(&state.guard).clone()?;
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|token| (guard.accepts)(token)) {
        return None;
    }
    let place = format!("{}/.well-known/oauth-protected-resource/mcp", state.base);
    let challenge = format!("Bearer error=\"invalid_token\", resource_metadata=\"{place}\"");
    Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response())
}

async fn message(Extracted(state): Extracted<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let method = body["method"].as_str().unwrap_or("response").to_owned();
    let named = headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    locked(&state.received).push(ReceivedRpc {
        method: method.clone(),
        body: body.clone(),
        headers: named.collect(),
    });
    state.heard.notify_waiters();
    let faults = locked(&state.faults).clone();
    if let Some(status) = faults.everything {
        return refusal(status);
    }
    if let Some(wanted) = &faults.bearer {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if shown != Some(&format!("Bearer {wanted}")) {
            return refusal(401);
        }
    }
    if let Some(refused) = unguarded(&state, &headers) {
        return refused;
    }
    let id = body["id"].clone();
    match (state.era, method.as_str()) {
        (Era::Legacy, "initialize") => {
            let session = uuid::Uuid::new_v4().to_string();
            locked(&state.sessions).push(session.clone());
            let result = json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}},
                "serverInfo": {"name": "fake", "version": "1"},
            });
            ([(SESSION, session)], answer(&id, &result)).into_response()
        }
        (Era::Legacy, "server/discover") => {
            if let Some((status, body)) = faults.discovery {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                let kind = if body.starts_with('{') { "application/json" } else { "text/html" };
                return (status, [(header::CONTENT_TYPE, kind)], body.replace("ID", &id.to_string()))
                    .into_response();
            }
            // As servers made with the TypeScript SDK say it.
            let error = json!({"code": -32000, "message": "Bad Request: Server not initialized"});
            (StatusCode::BAD_REQUEST, axum::Json(json!({"jsonrpc": "2.0", "error": error, "id": null})))
                .into_response()
        }
        (Era::Legacy, _) if !knows(&state, &headers) => {
            let error = json!({"code": -32000, "message": "Bad Request: No valid session ID provided"});
            (StatusCode::BAD_REQUEST, axum::Json(json!({"jsonrpc": "2.0", "error": error, "id": null})))
                .into_response()
        }
        (Era::Modern, "initialize") => failure(&id, -32601, "Method not found"),
        (Era::Modern, "server/discover") => answer(
            &id,
            &json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": {"tools": {"listChanged": true}},
            }),
        ),
        (Era::Modern, "subscriptions/listen") => subscription(&state, &id),
        (_, "tools/list") => answer(&id, &page(&state, &body)),
        (_, "tools/call") => call(&state, &body, id).await,
        (_, "notifications/cancelled") => {
            let wanted = &body["params"]["requestId"];
            let call = locked(&state.received)
                .iter()
                .rev()
                .find(|request| request.method == "tools/call" && request.body["id"] == *wanted)
                .map(|request| request.body["params"]["name"].as_str().unwrap_or_default().to_owned());
            locked(&state.given_up).extend(call);
            state.heard.notify_waiters();
            StatusCode::ACCEPTED.into_response()
        }
        (_, "ping") => answer(&id, &json!({})),
        _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
        _ => failure(&id, -32601, "Method not found"),
    }
}

fn knows(state: &State, headers: &HeaderMap) -> bool {
    let session = headers.get(SESSION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    locked(&state.sessions).iter().any(|known| known == session)
}

fn refusal(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, "no").into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

fn answer(id: &Value, result: &Value) -> Response {
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

fn failure(id: &Value, code: i64, message: &str) -> Response {
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
        .into_response()
}

fn page(state: &State, body: &Value) -> Value {
    let faults = locked(&state.faults).clone();
    let tools: Vec<Value> = locked(&state.tools).iter().map(|tool| tool.definition.clone()).collect();
    let at: usize = body["params"]["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let mut result = json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"});
    if faults.loops {
        result["nextCursor"] = "1".into();
    } else if at < faults.pages {
        for tool in result["tools"].as_array_mut().into_iter().flatten() {
            tool["name"] = format!("{}_{at}", tool["name"].as_str().unwrap_or_default()).into();
        }
        result["nextCursor"] = (at + 1).to_string().into();
    }
    result
}

/// Counts a call that is dropped before it was answered.
struct Pending {
    state: Arc<State>,
    tool: Option<String>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(tool) = self.tool.take() {
            locked(&self.state.given_up).push(tool);
            self.state.heard.notify_waiters();
        }
    }
}

async fn call(state: &Arc<State>, body: &Value, id: Value) -> Response {
    let name = body["params"]["name"].as_str().unwrap_or_default().to_owned();
    let tool = locked(&state.tools).iter().find(|tool| tool.definition["name"] == *name).cloned();
    let Some(FakeTool { behaviour, .. }) = tool else { return failure(&id, -32602, "Unknown tool") };
    let times = {
        let mut calls = locked(&state.calls_by_tool);
        let times = calls.entry(name.clone()).or_default();
        *times += 1;
        *times
    };
    let echo = json!({"resultType": "complete", "content": [{"type": "text", "text": body["params"]["arguments"].to_string()}]});
    match behaviour {
        Behaviour::Echo => answer(&id, &echo),
        Behaviour::Answer(result) => answer(&id, &result),
        Behaviour::Stall => {
            let _pending = Pending { state: Arc::clone(state), tool: Some(name) };
            std::future::pending().await
        }
        Behaviour::StatusOnce(_) if times > 1 => answer(&id, &echo),
        Behaviour::Status(status) | Behaviour::StatusOnce(status) => refusal(status),
        Behaviour::Error(code, message) => failure(&id, code, message),
        Behaviour::Cut => {
            let pieces: [Result<Bytes, std::io::Error>; 2] = [
                Ok(Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":\"2.0\",")),
                Err(std::io::Error::other("cut")),
            ];
            events(stream::iter(pieces))
        }
        Behaviour::Short => {
            let whole = json!({"jsonrpc": "2.0", "id": id, "result": echo}).to_string();
            let pieces: [Result<Bytes, std::io::Error>; 2] =
                [Ok(Bytes::from(whole.clone())), Err(std::io::Error::other("that was all"))];
            let mut response = Body::from_stream(stream::iter(pieces)).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            headers.insert(header::CONTENT_LENGTH, (whole.len() + 1000).into());
            response
        }
        Behaviour::Huge(bytes) => {
            let text = "x".repeat(bytes);
            answer(&id, &json!({"resultType": "complete", "content": [{"type": "text", "text": text}]}))
        }
        Behaviour::Progress(times, pause) => {
            let token = body["params"]["_meta"]["progressToken"].clone();
            let progress = stream::iter(0..times).then(move |at| {
                let params = json!({"progressToken": token, "progress": at, "total": times});
                async move {
                    tokio::time::sleep(pause).await;
                    event(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
                }
            });
            let last = event(&json!({"jsonrpc": "2.0", "id": id, "result": echo}));
            events(progress.chain(stream::once(async { last })))
        }
    }
}

fn event(message: &Value) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(format!("event: message\ndata: {message}\n\n")))
}

fn events<E: Into<axum::BoxError> + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

/// The stream on which a server of the older era speaks by itself.
async fn listen(Extracted(state): Extracted<Arc<State>>, headers: HeaderMap) -> Response {
    if state.era == Era::Modern || !knows(&state, &headers) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    events(changes(&state, json!({})))
}

fn subscription(state: &Arc<State>, id: &Value) -> Response {
    let meta = json!({"_meta": {SUBSCRIPTION: id}});
    let mut params = meta.clone();
    params["notifications"] = json!({"toolsListChanged": true});
    let first = event(&json!({
        "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params
    }));
    events(stream::once(async { first }).chain(changes(state, meta)))
}

/// One event for each change of the tools, and a comment now and then.
fn changes(
    state: &Arc<State>,
    params: Value,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let changed = state.changed.subscribe();
    stream::unfold((changed, params), |(mut changed, params)| async move {
        let said = match tokio::time::timeout(Duration::from_secs(1), changed.changed()).await {
            Ok(Ok(())) => event(
                &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params}),
            ),
            Ok(Err(_)) => return None,
            Err(_) => Ok(Bytes::from_static(b": still here\n\n")),
        };
        Some((said, (changed, params)))
    })
}

async fn goodbye(Extracted(state): Extracted<Arc<State>>, headers: HeaderMap) -> Response {
    let session = headers.get(SESSION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    locked(&state.sessions).retain(|known| *known != session);
    let method = "DELETE".to_owned();
    locked(&state.received).push(ReceivedRpc {
        method,
        body: Value::Null,
        headers: [(SESSION.to_owned(), session)].into(),
    });
    state.heard.notify_waiters();
    StatusCode::NO_CONTENT.into_response()
}
