//! Notion's API: clients are known by Basic, bodies are JSON, there is no PKCE, and nothing says when a token ends.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::server::{Fields, Shared, basic};

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

fn unauthorized() -> Response {
    let body = json!({"object": "error", "status": 401, "code": "unauthorized", "message": "no"});
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

fn fields(body: &Value) -> Fields {
    let members = body.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
