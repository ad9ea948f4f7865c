//! Telling an agent all contexts again, for a tenant's admins [A8].

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use shared::{agents::sync, ids::UserId};
use utoipa::ToSchema;
use uuid::Uuid;

use super::agents::named;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::{OptionalJson, RequestId},
    state::App,
};

/// Where to go on.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncBody {
    /// The nextCursor of the batch before.
    cursor: Option<Uuid>,
}

/// What a batch came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SyncView {
    /// Contexts that were looked at: at most 2000.
    contexts: i64,
    /// Those that the agent will be told of.
    told: i64,
    /// For the next batch; null when all were looked at.
    #[schema(required = true)]
    next_cursor: Option<Uuid>,
}

/// Has an agent told of the contexts of all users again, in batches: each as a delivery, with what the agent may see now.
#[utoipa::path(
    post, path = "/admin/agents/{name}/sync", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    request_body = Option<SyncBody>,
    responses(
        (status = 200, description = "What the batch came to", body = SyncView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
        (status = 409, description = "The agent is disabled", body = ErrorBody),
    )
)]
pub(crate) async fn sync_agent(
    State(app): State<App>,
    Admin(admin): Admin,
    RequestId(request_id): RequestId,
    Path(name): Path<String>,
    OptionalJson(body): OptionalJson<SyncBody>,
) -> Answer<JsonAnswer<SyncView>> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let (after, default_tenant) = (body.cursor.map(UserId), app.config.default_tenant);
    let synced = sync::sync(&mut tx, &admin, &name, after, default_tenant, &request_id).await?;
    tx.commit().await?;
    app.tell_agents();
    Ok(JsonAnswer(SyncView {
        contexts: synced.contexts,
        told: synced.told,
        next_cursor: synced.next.map(|user| user.0),
    }))
}
