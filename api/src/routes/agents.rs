//! Agents' own requests [A5]: they get a token with their credentials, read and change what they may of users, acknowledge
//! events, and look after their sessions. Agents show their token in `X-Agent-Authorization`; no credential of a person is
//! good here.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    agents::side::{AgentActor, Asked, Begun, SeenContext, Session},
    error::{Error, Result},
    ids::UserId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    admin::{agent_permissions::LevelView, tenants::Page},
    contexts::{PortfolioSettings, Preferences, RiskProfile, etag},
};
use crate::{
    address::ClientAddress,
    auth::AgentCaller,
    error::{Answer, ErrorBody, Failure},
    extract::{Json, Parameters, RequestId},
    headers::if_match,
    state::App,
};

/// What an agent comes in by.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    #[schema(example = "risk_management")]
    agent_name: String,
    /// aak_…
    #[schema(value_type = String)]
    api_key: SecretString,
    /// acs_…
    #[schema(value_type = String, format = Password)]
    client_secret: SecretString,
    /// What the session is for; the required ones come with it. All that the agent may have, when left out.
    #[schema(example = json!(["read:risk_profile"]))]
    requested_permissions: Option<Vec<String>>,
}

/// A session that has just begun. The token is not shown again.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentToken {
    /// For X-Agent-Authorization.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 3600)]
    expires_in: u64,
    agent_name: String,
    session_id: Uuid,
    permission_level: LevelView,
    permissions: Vec<String>,
}

impl From<Begun> for AgentToken {
    fn from(begun: Begun) -> Self {
        let Begun { token, session, level, life } = begun;
        Self {
            access_token: token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: life.as_secs(),
            agent_name: session.agent_name.as_str().to_owned(),
            session_id: session.id,
            permission_level: level.into(),
            permissions: session.permissions,
        }
    }
}

/// What an agent sees of a user: the id, the address, and the parts that it may see.
#[derive(Serialize)]
pub(crate) struct SeenView {
    user_id: Uuid,
    email: Option<String>,
    #[serde(flatten)]
    parts: Map<String, Value>,
    version: i64,
    updated_at: Option<DateTime<Utc>>,
}

/// What an agent sees of a user. A part that it may not see is not there.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape of SeenView")]
pub(crate) struct AgentContextView {
    user_id: Uuid,
    #[schema(required = true)]
    email: Option<String>,
    is_active: Option<bool>,
    session_id: Option<Uuid>,
    preferences: Option<Preferences>,
    portfolio_settings: Option<PortfolioSettings>,
    #[schema(value_type = Option<Vec<Object>>)]
    active_strategies: Option<Value>,
    risk_profile: Option<RiskProfile>,
    version: i64,
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
}

type Tagged = ([(HeaderName, String); 1], JsonAnswer<SeenView>);

fn tagged(seen: SeenContext) -> Tagged {
    let SeenContext { user, email, version, updated_at, parts } = seen;
    ([etag(version)], JsonAnswer(SeenView { user_id: user.0, email, parts, version, updated_at }))
}

/// What to change of a user (JSON merge patch), in the parts that the agent may change.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared::agents::contexts checks it")]
pub(crate) struct AgentContextPatch {
    preferences: Option<Preferences>,
    portfolio_settings: Option<PortfolioSettings>,
    #[schema(value_type = Option<Vec<Object>>)]
    active_strategies: Option<Value>,
    risk_profile: Option<RiskProfile>,
}

/// An event that the agent has dealt with.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcknowledgedView {
    event_id: Uuid,
    /// When the agent said so first.
    acknowledged_at: DateTime<Utc>,
}

/// A session of an agent.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentSessionView {
    id: Uuid,
    #[schema(example = "risk_management")]
    agent_name: String,
    permissions: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// Right to some seconds.
    last_accessed: DateTime<Utc>,
    #[schema(required = true)]
    ip_address: Option<String>,
    /// Not ended before its time.
    is_active: bool,
}

impl From<Session> for AgentSessionView {
    fn from(session: Session) -> Self {
        Self {
            id: session.id,
            agent_name: session.agent_name.as_str().to_owned(),
            permissions: session.permissions,
            created_at: session.created_at,
            expires_at: session.expires_at,
            last_accessed: session.last_accessed,
            ip_address: session.ip_address,
            is_active: session.is_active,
        }
    }
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentSessionList {
    /// Newest first.
    items: Vec<AgentSessionView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl AgentSessionList {
    pub(super) fn new(limit: i64, sessions: Vec<Session>) -> Self {
        let next_cursor = Page::next(limit, sessions.len(), sessions.last().map(|last| last.id));
        Self { items: sessions.into_iter().map(AgentSessionView::from).collect(), next_cursor }
    }
}

/// Begins a session of an agent, and answers its token.
#[utoipa::path(
    post, path = "/api/v1/agents/token", tag = "agent side",
    request_body = TokenBody,
    responses(
        (status = 200, description = "The token", body = AgentToken),
        (status = 401, description = "The agent, its key or its secret is wrong, or it is switched off", body = ErrorBody),
        (status = 403, description = "A permission that this agent may not have", body = ErrorBody),
        (status = 429, description = "Too many attempts; Retry-After says when", body = ErrorBody),
    )
)]
pub(crate) async fn post_token(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    RequestId(request_id): RequestId,
    Json(body): Json<TokenBody>,
) -> Answer<JsonAnswer<AgentToken>> {
    let asked = Asked {
        agent_name: &body.agent_name,
        api_key: &body.api_key,
        client_secret: &body.client_secret,
        permissions: body.requested_permissions.as_deref(),
        address,
        request_id: &request_id,
    };
    Ok(JsonAnswer(app.agents.begin(&asked).await?.into()))
}

/// Reads what the agent may see of a user.
#[utoipa::path(
    get, path = "/api/v1/agents/users/{user_id}/context", tag = "agent side", security(("agent" = [])),
    params(("user_id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "What it may see", body = AgentContextView, headers(("ETag" = String, description = "The version"))),
        (status = 404, description = "The agent's tenant has no such user", body = ErrorBody),
    )
)]
pub(crate) async fn get_user_context(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Path(user): Path<String>,
) -> Answer<Tagged> {
    let user = wished(&app, &agent, "context.read", &user, user_named(&user)).await?;
    Ok(tagged(app.agents.read_context(&agent, user).await?))
}

/// Changes what the agent may change of a user. Other agents that may see what changed are told of it, and this one too.
#[utoipa::path(
    patch, path = "/api/v1/agents/users/{user_id}/context", tag = "agent side", security(("agent" = [])),
    params(
        ("user_id" = Uuid, Path, description = "The user's id"),
        ("If-Match" = Option<String>, Header, description = "The version that was seen"),
    ),
    request_body(content = AgentContextPatch, content_type = "application/json"),
    responses(
        (status = 200, description = "What it may see now", body = AgentContextView, headers(("ETag" = String, description = "The version"))),
        (status = 400, description = "Unreadable JSON or If-Match", body = ErrorBody),
        (status = 403, description = "A part that the agent may not change", body = ErrorBody),
        (status = 404, description = "The agent's tenant has no such user", body = ErrorBody),
        (status = 412, description = "The version is another one by now", body = ErrorBody),
        (status = 422, description = "A field is not acceptable; the member field has its path", body = ErrorBody),
    )
)]
pub(crate) async fn patch_user_context(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Path(user): Path<String>,
    headers: HeaderMap,
    Json(changes): Json<Map<String, Value>>,
) -> Answer<Tagged> {
    let wish = user_named(&user).and_then(|user| Ok((user, if_match(&headers)?)));
    let (user, seen) = wished(&app, &agent, "context.change", &user, wish).await?;
    let (seen, changed) = app.agents.change_context(&agent, user, changes, seen).await?;
    if let Some(context) = changed {
        app.contexts.changed(agent.tenant(), &context);
    }
    Ok(tagged(seen))
}

/// Notes that the agent has dealt with an event that it was told of. Doing so again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/agents/events/{event_id}/ack", tag = "agent side", security(("agent" = [])),
    params(("event_id" = Uuid, Path, description = "The event's id, which is the delivery's webhook-id")),
    responses(
        (status = 200, description = "Noted", body = AcknowledgedView),
        (status = 404, description = "The agent was told of no such event", body = ErrorBody),
    )
)]
pub(crate) async fn acknowledge(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Path(event): Path<String>,
) -> Answer<JsonAnswer<AcknowledgedView>> {
    let named = named(&event, "this agent has no such event");
    let event = wished(&app, &agent, "event.acknowledge", &event, named).await?;
    let done = app.agents.acknowledge(&agent, event).await?;
    Ok(JsonAnswer(AcknowledgedView { event_id: done.event, acknowledged_at: done.at }))
}

/// Lists the agent's sessions: its own one; at the level admin all of them.
#[utoipa::path(
    get, path = "/api/v1/agents/sessions", tag = "agent side", security(("agent" = [])), params(Page),
    responses(
        (status = 200, description = "A page of sessions", body = AgentSessionList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn list_own_sessions(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<AgentSessionList>> {
    let page = wished(&app, &agent, "agent_session.list", agent.agent().as_str(), page.read()).await?;
    let (limit, before) = page;
    let sessions = app.agents.sessions(&agent, before, limit).await?;
    Ok(JsonAnswer(AgentSessionList::new(limit, sessions)))
}

/// Reads one of the agent's sessions.
#[utoipa::path(
    get, path = "/api/v1/agents/sessions/{id}", tag = "agent side", security(("agent" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session", body = AgentSessionView),
        (status = 404, description = "The agent may see no such session", body = ErrorBody),
    )
)]
pub(crate) async fn get_own_session(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Path(id): Path<String>,
) -> Answer<JsonAnswer<AgentSessionView>> {
    let id = wished(&app, &agent, "agent_session.read", &id, session_named(&id)).await?;
    Ok(JsonAnswer(app.agents.session(&agent, id).await?.into()))
}

/// Ends one of the agent's sessions: its token is good for nothing from now on.
#[utoipa::path(
    delete, path = "/api/v1/agents/sessions/{id}", tag = "agent side", security(("agent" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 204, description = "It is over"),
        (status = 404, description = "The agent may see no such session", body = ErrorBody),
    )
)]
pub(crate) async fn delete_own_session(
    State(app): State<App>,
    AgentCaller(agent): AgentCaller,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let id = wished(&app, &agent, "agent_session.end", &id, session_named(&id)).await?;
    app.agents.end_session(&agent, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What an agent wishes, if it can be read; that it cannot is a decision that is written down like others.
async fn wished<T>(
    app: &App,
    agent: &AgentActor,
    action: &'static str,
    target: &str,
    read: Answer<T>,
) -> Result<T> {
    app.agents.or_refused(agent, action, target, read.map_err(|Failure(error)| error)).await
}

fn user_named(text: &str) -> Answer<UserId> {
    named(text, "the tenant has no such user").map(UserId)
}

fn session_named(text: &str) -> Answer<Uuid> {
    named(text, "there is no such session")
}

fn named(text: &str, unknown: &'static str) -> Answer<Uuid> {
    Ok(Uuid::parse_str(text).map_err(|_| Error::not_found(unknown))?)
}
