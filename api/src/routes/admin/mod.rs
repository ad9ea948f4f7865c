//! What a tenant's admins decide for their tenant.

pub(crate) mod agent_breaker;
pub(crate) mod agent_permissions;
pub(crate) mod agent_sessions;
pub(crate) mod agent_sync;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod cache;
pub(crate) mod contexts;
pub(crate) mod deliveries;
pub(crate) mod flags;
pub(crate) mod mcp_servers;
pub(crate) mod mcp_tools;
pub(crate) mod members;
pub(crate) mod queues;
pub(crate) mod secrets;
pub(crate) mod tenants;

use std::collections::BTreeMap;

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    error::Error,
    tenancy::{self, Policy},
};
use utoipa::ToSchema;

use super::chat::without_nul;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::Json,
    state::App,
};

/// Bytes of a system prompt at most.
const LONGEST_PROMPT: usize = 64 * 1024;

/// Whether a tool runs, asks a person first, or does not run.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PolicyView {
    Allow,
    Ask,
    Deny,
}

impl From<Policy> for PolicyView {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Allow => Self::Allow,
            Policy::Ask => Self::Ask,
            Policy::Deny => Self::Deny,
        }
    }
}

/// The policies that are set; any other tool runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyList {
    /// By the tool's name.
    policies: BTreeMap<String, PolicyView>,
}

/// One tool's policy.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyBody {
    policy: PolicyView,
}

/// Lists the tenant's tool policies.
#[utoipa::path(
    get, path = "/admin/tool-policies", tag = "admin", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The policies", body = PolicyList),
    )
)]
pub(crate) async fn list_policies(
    State(app): State<App>,
    Admin(admin): Admin,
) -> Answer<JsonAnswer<PolicyList>> {
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let policies = tenancy::policies(&mut tx).await?;
    tx.commit().await?;
    let policies = policies.into_iter().map(|(tool, policy)| (tool, policy.into())).collect();
    Ok(JsonAnswer(PolicyList { policies }))
}

/// Reads a tool's policy.
#[utoipa::path(
    get, path = "/admin/tool-policies/{tool}", tag = "admin", security(("apiKey" = [])),
    params(("tool" = String, Path, description = "The tool's name")),
    responses(
        (status = 200, description = "The policy; allow when none is set", body = PolicyBody),
        (status = 404, description = "No tool can have this name", body = ErrorBody),
    )
)]
pub(crate) async fn get_policy(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(tool): Path<String>,
) -> Answer<JsonAnswer<PolicyBody>> {
    let tool = tool_name(&tool)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let policies = tenancy::policies(&mut tx).await?;
    tx.commit().await?;
    Ok(JsonAnswer(PolicyBody { policy: policies.get(tool).copied().unwrap_or(Policy::Allow).into() }))
}

/// Sets a tool's policy. Turns that begin a step later follow it.
#[utoipa::path(
    put, path = "/admin/tool-policies/{tool}", tag = "admin", security(("apiKey" = [])),
    params(("tool" = String, Path, description = "The tool's name")),
    request_body = PolicyBody,
    responses(
        (status = 200, description = "The policy", body = PolicyBody),
        (status = 404, description = "No tool can have this name", body = ErrorBody),
    )
)]
pub(crate) async fn put_policy(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(tool): Path<String>,
    Json(body): Json<PolicyBody>,
) -> Answer<JsonAnswer<PolicyBody>> {
    let tool = tool_name(&tool)?;
    let policy = match body.policy {
        PolicyView::Allow => Policy::Allow,
        PolicyView::Ask => Policy::Ask,
        PolicyView::Deny => Policy::Deny,
    };
    let mut tx = app.tenants.begin(admin.actor()).await?;
    tenancy::set_policy(&mut tx, &admin, tool, policy).await?;
    tx.commit().await?;
    app.policies.forget(admin.actor().tenant);
    Ok(JsonAnswer(body))
}

/// Removes a tool's policy, so that it runs again.
#[utoipa::path(
    delete, path = "/admin/tool-policies/{tool}", tag = "admin", security(("apiKey" = [])),
    params(("tool" = String, Path, description = "The tool's name")),
    responses(
        (status = 204, description = "It has none any more"),
        (status = 404, description = "It had none", body = ErrorBody),
    )
)]
pub(crate) async fn delete_policy(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(tool): Path<String>,
) -> Answer<StatusCode> {
    let tool = tool_name(&tool)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let was_set = tenancy::clear_policy(&mut tx, &admin, tool).await?;
    tx.commit().await?;
    app.policies.forget(admin.actor().tenant);
    if was_set { Ok(StatusCode::NO_CONTENT) } else { Err(Error::not_found("the tool has no policy").into()) }
}

/// Tools of remote servers come and go, so any name that a tool can have may have a policy.
fn tool_name(name: &str) -> Answer<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=192).contains(&name.len()) && name.bytes().all(fits) {
        Ok(name)
    } else {
        Err(Error::not_found("no tool can have this name").into())
    }
}

/// The tenant's settings.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Takes the place of the built-in system prompt, at most 64 KiB; null for the built-in one.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true, max_length = 65536)]
    system_prompt: Option<String>,
}

/// Reads the tenant's settings.
#[utoipa::path(
    get, path = "/admin/settings", tag = "admin", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The settings", body = Settings),
    )
)]
pub(crate) async fn get_settings(
    State(app): State<App>,
    Admin(admin): Admin,
) -> Answer<JsonAnswer<Settings>> {
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let system_prompt = tenancy::system_prompt(&mut tx).await?;
    tx.commit().await?;
    Ok(JsonAnswer(Settings { system_prompt }))
}

/// Writes the tenant's settings, all of them.
#[utoipa::path(
    put, path = "/admin/settings", tag = "admin", security(("apiKey" = [])),
    request_body = Settings,
    responses(
        (status = 200, description = "The settings", body = Settings),
    )
)]
pub(crate) async fn put_settings(
    State(app): State<App>,
    Admin(admin): Admin,
    Json(body): Json<Settings>,
) -> Answer<JsonAnswer<Settings>> {
    let system_prompt = body.system_prompt.map(without_nul);
    if system_prompt.as_ref().is_some_and(|prompt| prompt.trim().is_empty() || prompt.len() > LONGEST_PROMPT)
    {
        return Err(Error::unacceptable("systemPrompt: takes 1 byte to 64 KiB, or null").into());
    }
    let mut tx = app.tenants.begin(admin.actor()).await?;
    tenancy::set_system_prompt(&mut tx, &admin, system_prompt.as_deref()).await?;
    tx.commit().await?;
    Ok(JsonAnswer(Settings { system_prompt }))
}
