//! What was approved of a remote server's tools, and what changed since: a tenant's admin looks and decides.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    ids::UserId,
    remote::{
        Scope,
        pins::{self, Pinned, ToolChange},
    },
    tenancy::AdminActor,
};
use utoipa::ToSchema;

use super::mcp_servers::one;
use crate::{
    auth::Steward,
    error::{Answer, ErrorBody},
    extract::Json,
    state::App,
};

/// What a tool became after it was approved. It is held back until an admin accepts this.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolChangeView {
    /// Names this change; accepting it is accepting no other.
    fingerprint: String,
    seen_at: DateTime<Utc>,
    /// By member of the tool's definition: what was approved, and what it says now.
    #[schema(value_type = Object)]
    difference: Map<String, Value>,
    /// All that it says now.
    #[schema(value_type = Object)]
    definition: Value,
}

/// A tool and what was approved of it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PinnedToolView {
    /// The server's own name of it.
    tool: String,
    /// What was approved: name, title, description, schemas and annotations.
    #[schema(value_type = Object)]
    approved: Value,
    approved_at: DateTime<Utc>,
    /// Null when it was the first that was seen of it.
    #[schema(required = true, value_type = Option<Uuid>)]
    approved_by: Option<UserId>,
    /// Null unless it is held back.
    #[schema(required = true)]
    change: Option<ToolChangeView>,
}

impl From<Pinned> for PinnedToolView {
    fn from(pinned: Pinned) -> Self {
        let Pinned { tool, approved, approved_at, approved_by, change } = pinned;
        let change = change.map(|change| {
            let ToolChange { fingerprint, definition, seen_at, difference } = change;
            ToolChangeView { fingerprint, seen_at, difference, definition }
        });
        Self { tool, approved, approved_at, approved_by, change }
    }
}

/// A server's tools.
#[derive(Serialize, ToSchema)]
pub(crate) struct PinnedToolList {
    /// By name.
    items: Vec<PinnedToolView>,
}

/// The change that was looked at.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acceptance {
    /// The server's own name of the tool.
    tool: String,
    /// The change's fingerprint.
    fingerprint: String,
}

/// Lists a server's tools as they were approved, with what changed since.
#[utoipa::path(
    get, path = "/admin/mcp-servers/{name}/tools", tag = "admin", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The server's name")),
    responses(
        (status = 200, description = "The tools", body = PinnedToolList),
        (status = 404, description = "The tenant may use no such server", body = ErrorBody),
    )
)]
pub(crate) async fn list_server_tools(
    State(app): State<App>,
    steward: Steward,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<PinnedToolList>> {
    let admin = steward.admin()?;
    one(&app, &steward, &name).await?;
    answer(&app, &admin, &name).await
}

/// Accepts what a tool became, so that it is offered again.
#[utoipa::path(
    post, path = "/admin/mcp-servers/{name}/tools", tag = "admin", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The server's name")),
    request_body = Acceptance,
    responses(
        (status = 200, description = "The tools", body = PinnedToolList),
        (status = 404, description = "The tenant may use no such server, or the tool is not held back", body = ErrorBody),
        (status = 409, description = "The tool has changed again", body = ErrorBody),
    )
)]
pub(crate) async fn accept_tool(
    State(app): State<App>,
    steward: Steward,
    Path(name): Path<String>,
    Json(body): Json<Acceptance>,
) -> Answer<JsonAnswer<PinnedToolList>> {
    let admin = steward.admin()?;
    one(&app, &steward, &name).await?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    pins::accept(&mut tx, &admin, &name, &body.tool, &body.fingerprint).await?;
    tx.commit().await?;
    app.gateway.registry().forget(Scope::Tenant(admin.actor().tenant));
    answer(&app, &admin, &name).await
}

async fn answer(app: &App, admin: &AdminActor, name: &str) -> Answer<JsonAnswer<PinnedToolList>> {
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let pinned = pins::list(&mut tx, admin, name).await?;
    tx.commit().await?;
    Ok(JsonAnswer(PinnedToolList { items: pinned.into_iter().map(PinnedToolView::from).collect() }))
}
