//! The agents of a tenant, for its admins.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use shared::{
    agents::{
        self, Agent, AgentChange, AgentName, AgentSecret, EventType, NewAgent, condition::Condition, health,
        permissions::Level, side::AgentCredentials,
    },
    error::{Error, Result},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::agent_permissions::{ConditionView, LevelView, PermissionsView};
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::{Json, Parameters},
    state::App,
};

/// Looks at an agent's health that are answered.
const HISTORY: i64 = 100;

/// What an agent can be told of.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventTypeView {
    UserLogin,
    UserLogout,
    ContextUpdate,
}

impl From<EventType> for EventTypeView {
    fn from(event: EventType) -> Self {
        match event {
            EventType::UserLogin => Self::UserLogin,
            EventType::UserLogout => Self::UserLogout,
            EventType::ContextUpdate => Self::ContextUpdate,
        }
    }
}

impl From<EventTypeView> for EventType {
    fn from(event: EventTypeView) -> Self {
        match event {
            EventTypeView::UserLogin => Self::UserLogin,
            EventTypeView::UserLogout => Self::UserLogout,
            EventTypeView::ContextUpdate => Self::ContextUpdate,
        }
    }
}

/// An agent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentView {
    #[schema(example = "risk_management")]
    name: String,
    /// Deliveries go to /context/update below it, several at once to /context/update/batch, health checks to /health.
    #[schema(example = "https://agents.example.com/risk")]
    endpoint: String,
    capabilities: Vec<String>,
    event_types: Vec<EventTypeView>,
    permission_level: LevelView,
    permissions: PermissionsView,
    /// Null: everybody's events.
    #[schema(required = true)]
    condition: Option<ConditionView>,
    /// Several deliveries that are due go in one request.
    accepts_batches: bool,
    enabled: bool,
    /// Why deliveries stopped by themselves; enabling it again forgets that.
    #[schema(required = true)]
    disabled_because: Option<String>,
    /// It comes from the environment, which decides its endpoint.
    configured: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Agent> for AgentView {
    fn from(agent: Agent) -> Self {
        Self {
            name: agent.name.as_str().to_owned(),
            endpoint: agent.endpoint.as_str().trim_end_matches('/').to_owned(),
            capabilities: agent.capabilities,
            event_types: agent.event_types.into_iter().map(EventTypeView::from).collect(),
            permission_level: agent.permission_level.into(),
            permissions: agent.permissions.into(),
            condition: agent.condition.map(ConditionView::from),
            accepts_batches: agent.accepts_batches,
            enabled: agent.enabled,
            disabled_because: agent.disabled_because,
            configured: agent.configured,
            created_at: agent.created_at,
            updated_at: agent.updated_at,
        }
    }
}

/// The tenant's agents.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentList {
    items: Vec<AgentView>,
}

/// A new agent.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentBody {
    /// Lower-case letters, digits and _, beginning with a letter.
    #[schema(example = "risk_management", max_length = 63)]
    name: String,
    #[schema(example = "https://agents.example.com/risk")]
    endpoint: String,
    capabilities: Option<Vec<String>>,
    /// All of them, when left out.
    event_types: Option<Vec<EventTypeView>>,
    /// read_only, when left out.
    permission_level: Option<LevelView>,
    /// None of them, when left out: the agent learns who the user is and no more.
    permissions: Option<PermissionsView>,
    condition: Option<ConditionView>,
    /// False, when left out: it is told of one event at a time.
    accepts_batches: Option<bool>,
    enabled: Option<bool>,
}

/// What to change of an agent; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentPatch {
    endpoint: Option<String>,
    capabilities: Option<Vec<String>>,
    event_types: Option<Vec<EventTypeView>>,
    permission_level: Option<LevelView>,
    /// All three lists; a list that is left out is empty.
    permissions: Option<PermissionsView>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ConditionView>)]
    condition: Option<Option<ConditionView>>,
    accepts_batches: Option<bool>,
    enabled: Option<bool>,
}

/// An agent with its secrets. They are not shown again.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewAgentView {
    #[serde(flatten)]
    agent: AgentView,
    /// For checking signatures after Standard Webhooks.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
    #[serde(flatten)]
    credentials: CredentialsView,
}

/// What an agent gets its tokens with. They are not shown again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialsView {
    #[schema(example = "aak_AZrVW…")]
    api_key: String,
    #[schema(example = "acs_9xPq…")]
    client_secret: String,
}

impl From<AgentCredentials> for CredentialsView {
    fn from(made: AgentCredentials) -> Self {
        Self { api_key: shown(&made.api_key), client_secret: shown(&made.client_secret) }
    }
}

/// A secret. It is not shown again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentSecretView {
    id: Uuid,
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
    /// Until then deliveries are signed with the former secret as well; null when there was none.
    #[schema(required = true)]
    former_until: Option<DateTime<Utc>>,
}

/// Which agents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentsQuery {
    /// Only those that can do this.
    capability: Option<String>,
}

/// A look at an agent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckView {
    at: DateTime<Utc>,
    /// It answered 2xx within five seconds.
    healthy: bool,
    #[schema(required = true)]
    status: Option<i64>,
    duration_ms: i64,
    /// Why there was no answer.
    #[schema(required = true)]
    error: Option<String>,
}

/// The last looks at an agent, newest first; a look a minute, a day of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentHealthView {
    checks: Vec<CheckView>,
}

/// Lists the tenant's agents.
#[utoipa::path(
    get, path = "/admin/agents", tag = "agents", security(("apiKey" = [])), params(AgentsQuery),
    responses(
        (status = 200, description = "The agents, by name", body = AgentList),
    )
)]
pub(crate) async fn list_agents(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(query): Parameters<AgentsQuery>,
) -> Answer<JsonAnswer<AgentList>> {
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let agents = agents::list(&mut tx, &admin, query.capability.as_deref()).await?;
    tx.commit().await?;
    Ok(JsonAnswer(AgentList { items: agents.into_iter().map(AgentView::from).collect() }))
}

/// Registers an agent.
#[utoipa::path(
    post, path = "/admin/agents", tag = "agents", security(("apiKey" = [])),
    request_body = AgentBody,
    responses(
        (status = 201, description = "The agent, with its secrets", body = NewAgentView),
        (status = 409, description = "The name is taken, or the tenant has 50 agents", body = ErrorBody),
    )
)]
pub(crate) async fn post_agent(
    State(app): State<App>,
    Admin(admin): Admin,
    Json(body): Json<AgentBody>,
) -> Answer<(StatusCode, JsonAnswer<NewAgentView>)> {
    let name: AgentName = body.name.parse()?;
    let change = AgentChange {
        endpoint: Some(body.endpoint),
        capabilities: body.capabilities,
        event_types: events(body.event_types),
        permission_level: body.permission_level.map(Level::from),
        permissions: body.permissions.as_ref().map(PermissionsView::read).transpose()?,
        condition: body.condition.map(|condition| Some(condition.into())),
        accepts_batches: body.accepts_batches,
        enabled: body.enabled,
    };
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let NewAgent { agent, secret, credentials } =
        agents::create(&mut tx, &admin, &app.vault, &app.outbound, &name, &change).await?;
    tx.commit().await?;
    let view = NewAgentView { agent: agent.into(), secret: shown(&secret), credentials: credentials.into() };
    Ok((StatusCode::CREATED, JsonAnswer(view)))
}

/// Reads an agent.
#[utoipa::path(
    get, path = "/admin/agents/{name}", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 200, description = "The agent", body = AgentView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn get_agent(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<AgentView>> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let agent = agents::get(&mut tx, &admin, &name).await?;
    tx.commit().await?;
    Ok(JsonAnswer(agent.into()))
}

/// Changes an agent. Enabling it, or moving it, closes its breaker; disabling it ends its sessions.
#[utoipa::path(
    patch, path = "/admin/agents/{name}", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    request_body = AgentPatch,
    responses(
        (status = 200, description = "The agent", body = AgentView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
        (status = 409, description = "Its endpoint comes from the environment", body = ErrorBody),
    )
)]
pub(crate) async fn patch_agent(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
    Json(body): Json<AgentPatch>,
) -> Answer<JsonAnswer<AgentView>> {
    let name = named(&name)?;
    let change = AgentChange {
        endpoint: body.endpoint,
        capabilities: body.capabilities,
        event_types: events(body.event_types),
        permission_level: body.permission_level.map(Level::from),
        permissions: body.permissions.as_ref().map(PermissionsView::read).transpose()?,
        condition: body.condition.map(|condition| condition.map(Condition::from)),
        accepts_batches: body.accepts_batches,
        enabled: body.enabled,
    };
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let agent = agents::update(&mut tx, &admin, &app.outbound, &name, &change).await?;
    tx.commit().await?;
    // What waited while it was disabled, or elsewhere, is due.
    app.tell_agents();
    Ok(JsonAnswer(agent.into()))
}

/// Removes an agent. What it was not told yet becomes dead letters.
#[utoipa::path(
    delete, path = "/admin/agents/{name}", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 204, description = "It is no more"),
        (status = 404, description = "There is no such agent", body = ErrorBody),
        (status = 409, description = "It comes from the environment", body = ErrorBody),
    )
)]
pub(crate) async fn delete_agent(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    agents::delete(&mut tx, &admin, &name).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new secret; the former one signs beside it for a day.
#[utoipa::path(
    post, path = "/admin/agents/{name}/secret", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 201, description = "The secret", body = AgentSecretView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn post_agent_secret(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<(StatusCode, JsonAnswer<AgentSecretView>)> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let AgentSecret { id, value, former_until } =
        agents::rotate_secret(&mut tx, &admin, &app.vault, &name).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, JsonAnswer(AgentSecretView { id, secret: shown(&value), former_until })))
}

/// Makes new credentials for an agent's own requests. The former ones and all of its sessions end at once.
#[utoipa::path(
    post, path = "/admin/agents/{name}/credentials", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 201, description = "The credentials", body = CredentialsView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn post_agent_credentials(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<(StatusCode, JsonAnswer<CredentialsView>)> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let made = agents::rotate_credentials(&mut tx, &admin, &name).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, JsonAnswer(made.into())))
}

/// Reads how an agent was.
#[utoipa::path(
    get, path = "/admin/agents/{name}/health", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 200, description = "The last looks at it", body = AgentHealthView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn get_agent_health(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<AgentHealthView>> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    agents::get(&mut tx, &admin, &name).await?;
    let checks = health::history(&mut tx, &name, HISTORY).await?;
    tx.commit().await?;
    let view = |check: health::Check| CheckView {
        at: check.at,
        healthy: check.healthy,
        status: check.status,
        duration_ms: check.duration_ms,
        error: check.error,
    };
    Ok(JsonAnswer(AgentHealthView { checks: checks.into_iter().map(view).collect() }))
}

/// The name as a path has it; what can be no name names nobody.
pub(super) fn named(text: &str) -> Result<AgentName> {
    text.parse().map_err(|_| Error::not_found("the tenant has no such agent"))
}

fn events(events: Option<Vec<EventTypeView>>) -> Option<Vec<EventType>> {
    events.map(|events| events.into_iter().map(EventType::from).collect())
}

/// Null is something that was given, and so is different from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<ConditionView>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn shown(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}
