//! The audit log, for a tenant's admins and for operators.

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::{
    ids::UserId,
    tenancy::audit::{self, Recorded},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::tenants::Page;
use crate::{
    auth::{Admin, Operator},
    error::{Answer, ErrorBody},
    extract::{Parameters, TenantOfPath},
    state::App,
};

/// Something that was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditView {
    id: Uuid,
    at: DateTime<Utc>,
    /// Null when a process did it by itself, or an agent, whom the details name.
    #[schema(required = true, value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// admin, operator, system or agent.
    #[schema(example = "admin")]
    acted_as: String,
    #[schema(example = "tool_policy.set")]
    action: String,
    /// On what; empty for the tenant itself.
    target: String,
    #[schema(value_type = Object)]
    details: Value,
    /// The request's id, under which the log has more.
    #[schema(required = true)]
    request_id: Option<String>,
}

impl From<Recorded> for AuditView {
    fn from(row: Recorded) -> Self {
        let Recorded { id, at, user_id, acted_as, action, target, details, request_id } = row;
        Self { id, at, user_id, acted_as, action, target, details, request_id }
    }
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditList {
    /// Newest first.
    items: Vec<AuditView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

fn list_of(limit: i64, rows: Vec<Recorded>) -> AuditList {
    let next_cursor = Page::next(limit, rows.len(), rows.last().map(|row| row.id));
    AuditList { items: rows.into_iter().map(AuditView::from).collect(), next_cursor }
}

/// Lists what was done to the tenant, newest first.
#[utoipa::path(
    get, path = "/admin/audit", tag = "admin", security(("apiKey" = [])),
    params(Page),
    responses(
        (status = 200, description = "A page of the log", body = AuditList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn list_audit(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<AuditList>> {
    let (limit, before) = page.read()?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let rows = audit::list(&mut tx, &admin, before, limit).await?;
    tx.commit().await?;
    Ok(JsonAnswer(list_of(limit, rows)))
}

/// Lists what was done to any tenant, also after it was deleted.
#[utoipa::path(
    get, path = "/admin/tenants/{id}/audit", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id"), Page),
    responses(
        (status = 200, description = "A page of the log; empty for a tenant that never was", body = AuditList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "The id is none", body = ErrorBody),
    )
)]
pub(crate) async fn list_audit_of(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<AuditList>> {
    let (limit, before) = page.read()?;
    let rows = audit::list_for(&app.tenants, &operator, id, before, limit).await?;
    Ok(JsonAnswer(list_of(limit, rows)))
}
