//! Notion's API: clients are known by Basic, bodies are JSON, there is no PKCE, and nothing says when a token ends. Beside
//! the tokens it has what its MCP server asks of it: a search, and pages as Markdown.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::server::{Fields, Shared, basic, bearer};

/// The integration that is registered with it.
const CLIENT: (&str, &str) = ("notion-client", "notion-secret-MARKER");

pub(super) async fn authorize(State(shared): State<Arc<Shared>>, Query(fields): Query<Fields>) -> Response {
    shared.note("/v1/oauth/authorize", &fields);
    let is = |name: &str, value: &str| fields.get(name).is_some_and(|given| given == value);
    if !is("client_id", CLIENT.0) || !is("owner", "user") || !is("response_type", "code") {
        return (StatusCode::BAD_REQUEST, "not a good request").into_response();
    }
    shared.send_back(&fields, None)
}

pub(super) async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let fields = fields(&body);
    shared.note("/v1/oauth/token", &fields);
    match basic(&headers) {
        Some((id, secret)) if (id.as_str(), secret.as_str()) == CLIENT => shared.tokens(&id, &fields).await,
        _ => unauthorized(),
    }
}

pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let fields = fields(&body);
    shared.note("/v1/oauth/revoke", &fields);
    if basic(&headers).is_none() {
        return unauthorized();
    }
    shared.revoked(fields.get("token").map(String::as_str).unwrap_or_default());
    Json(json!({"request_id": "r"})).into_response()
}

/// A page as Markdown. Each workspace has the pages whose ids do not begin with a zero.
pub(super) async fn page(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(workspace) = asked(&shared, "/v1/pages/markdown", &id, &headers) else { return unauthorized() };
    if id.starts_with('0') {
        return error(StatusCode::NOT_FOUND, "object_not_found");
    }
    let markdown = format!("# Plan\n\nThe plan of {workspace}: try a restore each month.");
    Json(json!({"object": "page_markdown", "id": id, "markdown": markdown, "truncated": false}))
        .into_response()
}

/// The pages of the workspace that are called like this: one.
pub(super) async fn search(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let query = body["query"].as_str().unwrap_or_default();
    let Some(workspace) = asked(&shared, "/v1/search", query, &headers) else { return unauthorized() };
    let title = json!([{"plain_text": format!("Plan of {workspace}")}]);
    let found = json!({
        "object": "page", "id": "11111111-2222-4333-8444-555555555555",
        "properties": {"title": {"type": "title", "title": title}},
    });
    Json(json!({"object": "list", "results": [found], "has_more": false, "next_cursor": null}))
        .into_response()
}

/// Notes what was asked for, and by which version of the API; the workspace of the token, if it is good.
fn asked(shared: &Shared, path: &str, what: &str, headers: &HeaderMap) -> Option<String> {
    let version = headers.get("notion-version").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fields = [("what".to_owned(), what.to_owned()), ("version".to_owned(), version.to_owned())];
    shared.note(path, &fields.into());
    bearer(headers).and_then(|token| shared.workspace_of(token))
}

fn unauthorized() -> Response {
    error(StatusCode::UNAUTHORIZED, "unauthorized")
}

fn error(status: StatusCode, code: &str) -> Response {
    let body = json!({"object": "error", "status": status.as_u16(), "code": code, "message": "no"});
    (status, Json(body)).into_response()
}

fn fields(body: &Value) -> Fields {
    let members = body.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
