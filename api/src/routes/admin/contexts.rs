//! What is known of a tenant's users, for its admins: as it is, and as it was. Admins read; only the user and the agents that
//! may change it.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    agents::contexts::{self, Version},
    error::{Error, Result},
    ids::UserId,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    auth::Admin,
    error::{Answer, ErrorBody, unreadable},
    extract::Parameters,
    routes::contexts::ContextView,
    state::App,
};

/// A version of a context.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionView {
    version: i64,
    /// All that was known of the user then.
    #[schema(value_type = Object)]
    context: Value,
    /// What the change was about; empty when the context was emptied because the user was away for long.
    #[schema(example = json!(["preferences"]))]
    changed_parts: Vec<String>,
    /// user, system, or agent: and its name.
    #[schema(example = "agent:risk_management")]
    changed_by: String,
    created_at: DateTime<Utc>,
}

impl From<Version> for VersionView {
    fn from(version: Version) -> Self {
        Self {
            version: version.version,
            context: version.context_data,
            changed_parts: version.changed_parts,
            changed_by: version.changed_by,
            created_at: version.created_at,
        }
    }
}

/// A page of a context's history.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionList {
    /// Newest first.
    items: Vec<VersionView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Which versions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionsQuery {
    /// Versions of a page at most, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// Reads what is known of a user of the tenant. Whoever left it is nobody's here.
#[utoipa::path(
    get, path = "/admin/contexts/{user_id}", tag = "agents", security(("apiKey" = [])),
    params(("user_id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The context", body = ContextView),
        (status = 404, description = "There is no such user", body = ErrorBody),
    )
)]
pub(crate) async fn get_context(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(user): Path<String>,
) -> Answer<JsonAnswer<ContextView>> {
    let user = named(&user)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let context = contexts::of(&mut tx, &admin, user, app.config.default_tenant).await?;
    tx.commit().await?;
    let sign_in = contexts::newest_sign_in(&app.engine, user).await?;
    Ok(JsonAnswer(ContextView::new(&context, sign_in)))
}

/// Lists what was known of a user of the tenant, newest first.
#[utoipa::path(
    get, path = "/admin/contexts/{user_id}/history", tag = "agents", security(("apiKey" = [])),
    params(("user_id" = Uuid, Path, description = "The user's id"), VersionsQuery),
    responses(
        (status = 200, description = "A page of versions; those of the last 90 days and the newest", body = VersionList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "There is no such user", body = ErrorBody),
    )
)]
pub(crate) async fn list_versions(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(user): Path<String>,
    Parameters(query): Parameters<VersionsQuery>,
) -> Answer<JsonAnswer<VersionList>> {
    let user = named(&user)?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(unreadable("limit: takes 1 to 1000"));
    }
    let before = query.cursor.as_deref().map(str::parse).transpose();
    let before =
        before.map_err(|_| unreadable("cursor: takes the nextCursor of an earlier page, unchanged"))?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let default_tenant = app.config.default_tenant;
    let versions = contexts::history(&mut tx, &admin, user, default_tenant, before, limit).await?;
    tx.commit().await?;
    let is_full = i64::try_from(versions.len()).unwrap_or(i64::MAX) >= limit;
    let next_cursor = versions.last().filter(|_| is_full).map(|last| last.version.to_string());
    Ok(JsonAnswer(VersionList { items: versions.into_iter().map(VersionView::from).collect(), next_cursor }))
}

fn named(text: &str) -> Result<UserId> {
    Uuid::parse_str(text).map(UserId).map_err(|_| Error::not_found("the tenant has no such user"))
}
