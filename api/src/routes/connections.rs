//! Connections for programs: listed, begun, chosen, ended.

use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    connections::{Connection, Provider, Status},
    error::Error,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::connect;
use crate::{
    auth::{Caller, CallerBy},
    error::{Answer, ErrorBody},
    extract::{ConnectionOfPath, Json},
    state::App,
};

/// The caller's connections, and the servers that there are.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConnectionList {
    servers: Vec<ServerView>,
    connections: Vec<ConnectionView>,
}

/// A server that the caller can connect.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerView {
    #[schema(example = "notion")]
    server: String,
    #[schema(example = "Notion")]
    title: String,
    /// not_connected, connected or sign_in_again.
    #[schema(example = "connected")]
    state: &'static str,
    /// Where a browser connects it.
    connect_url: String,
}

/// A connection. Its tokens are shown to nobody.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionView {
    id: Uuid,
    #[schema(example = "notion")]
    server: String,
    /// Empty where the server names none.
    workspace_id: String,
    workspace_name: Option<String>,
    /// active, or invalid: the person has to sign in again.
    #[schema(value_type = String, example = "active")]
    status: Status,
    /// Why it is invalid: refused, ended, client_refused or answer_lost.
    reason: Option<String>,
    /// Tools use this one of those of its server.
    active: bool,
    /// When its access token ends; it is refreshed before. Null where the server does not say.
    expires_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Connection> for ConnectionView {
    fn from(connection: Connection) -> Self {
        Self {
            id: connection.id.0,
            server: connection.server,
            workspace_id: connection.workspace_id,
            workspace_name: connection.workspace_name,
            status: connection.status,
            reason: connection.reason,
            active: connection.chosen,
            expires_at: connection.expires_at,
            created_at: connection.created_at,
            updated_at: connection.updated_at,
        }
    }
}

/// Whether a server's tools can be used: by its chosen connection.
fn state(provider: &Provider, connections: &[Connection]) -> &'static str {
    let mut of_it = connections.iter().filter(|connection| connection.server == provider.name);
    match of_it.find(|connection| connection.chosen) {
        None => "not_connected",
        Some(connection) if connection.status == Status::Active => "connected",
        Some(_) => "sign_in_again",
    }
}

/// Lists the caller's connections, and the servers that can be connected.
#[utoipa::path(
    get, path = "/v1/connections", tag = "connections", security(("apiKey" = [])),
    responses((status = 200, description = "The connections", body = ConnectionList))
)]
pub(crate) async fn list_connections(
    State(app): State<App>,
    Caller(actor): Caller,
) -> Answer<JsonAnswer<ConnectionList>> {
    let providers = app.connections.providers(&actor).await?;
    let connections = app.connections.list(&actor).await?;
    let servers = providers.into_iter().map(|provider| ServerView {
        state: state(&provider, &connections),
        connect_url: app.connections.connect_url(&provider.name),
        server: provider.name,
        title: provider.title,
    });
    let servers = servers.collect();
    Ok(JsonAnswer(ConnectionList {
        servers,
        connections: connections.into_iter().map(ConnectionView::from).collect(),
    }))
}

/// What to connect.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostConnection {
    #[schema(example = "notion")]
    server: String,
}

/// A way to be gone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Departure {
    /// Open it within ten minutes, in the browser that got this answer and keeps its cookie.
    authorization_url: String,
}

/// Begins to connect a server, for pages that send their browser there by themselves.
#[utoipa::path(
    post, path = "/v1/connections", tag = "connections", security(("apiKey" = [])),
    request_body = PostConnection,
    responses(
        (status = 201, description = "Where to go; with a cookie to come back with", body = Departure),
        (status = 403, description = "The credential may not change anything", body = ErrorBody),
        (status = 404, description = "There is no such server", body = ErrorBody),
        (status = 502, description = "The server cannot be connected now", body = ErrorBody),
    )
)]
pub(crate) async fn post_connection(
    State(app): State<App>,
    CallerBy(actor, credential): CallerBy,
    headers: HeaderMap,
    Json(PostConnection { server }): Json<PostConnection>,
) -> Answer<Response> {
    let (authorization_url, cookie) = connect::leave(&app, &actor, credential, &server, &headers).await?;
    let cookie = [(header::SET_COOKIE, cookie)];
    Ok((StatusCode::CREATED, cookie, JsonAnswer(Departure { authorization_url })).into_response())
}

/// What can be changed of a connection.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchConnection {
    /// true: tools use this one from now on.
    active: bool,
}

/// Has tools use this connection, of those of its server.
#[utoipa::path(
    patch, path = "/v1/connections/{id}", tag = "connections", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The connection")),
    request_body = PatchConnection,
    responses(
        (status = 200, description = "The connection as it is now", body = ConnectionView),
        (status = 403, description = "The credential may not change anything", body = ErrorBody),
        (status = 404, description = "There is no such connection", body = ErrorBody),
    )
)]
pub(crate) async fn patch_connection(
    State(app): State<App>,
    Caller(actor): Caller,
    ConnectionOfPath(id): ConnectionOfPath,
    Json(PatchConnection { active }): Json<PatchConnection>,
) -> Answer<JsonAnswer<ConnectionView>> {
    if !active {
        return Err(Error::unacceptable("active: takes true; make another connection the active one").into());
    }
    Ok(JsonAnswer(app.connections.choose(&actor, id).await?.into()))
}

/// What became of a connection that was ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedView {
    /// Whether the server took its tokens back. Here they are deleted in any case.
    revoked: bool,
}

/// Ends a connection: its tokens are deleted, and given back where the server takes them.
#[utoipa::path(
    delete, path = "/v1/connections/{id}", tag = "connections", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The connection")),
    responses(
        (status = 200, description = "It has ended", body = EndedView),
        (status = 403, description = "The credential may not change anything", body = ErrorBody),
        (status = 404, description = "There is no such connection", body = ErrorBody),
    )
)]
pub(crate) async fn delete_connection(
    State(app): State<App>,
    Caller(actor): Caller,
    ConnectionOfPath(id): ConnectionOfPath,
) -> Answer<JsonAnswer<EndedView>> {
    let ended = app.connections.disconnect(&actor, id).await?;
    Ok(JsonAnswer(EndedView { revoked: ended.revoked }))
}
