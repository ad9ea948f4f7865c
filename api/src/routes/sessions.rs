//! Sessions: made, listed, read, changed, ended by their user.

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use http::{HeaderName, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use shared::{
    error::{Error, Invalid},
    events::data::event_id,
    ids::SessionId,
    sessions::Session,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::chat::without_nul;
use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::{Json, OptionalJson, Parameters, SessionOfPath},
    state::App,
};

/// Sessions in one page of a list, unless asked for fewer.
const PAGE: i64 = 50;

/// A session. Its token is answered only when it is made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionView {
    id: Uuid,
    conversation_id: i64,
    /// What tools keep between turns.
    #[schema(value_type = Object)]
    conversation_context: Value,
    active_notion_workspace: Option<String>,
    tokens_total: i64,
    created_at: DateTime<Utc>,
    /// Right to ten seconds.
    last_accessed: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// The turn that the conversation is busy with.
    running: Option<RunningView>,
    /// The newest event of the conversation: a stream that is opened with it goes on from there.
    last_event_id: Option<String>,
}

/// The turn that a conversation is busy with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningView {
    job_id: Uuid,
    #[schema(example = "running")]
    status: &'static str,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.0,
            conversation_id: session.conversation.0,
            conversation_context: session.conversation_context,
            active_notion_workspace: session.active_notion_workspace,
            tokens_total: session.tokens_total,
            created_at: session.created_at,
            last_accessed: session.last_accessed,
            expires_at: session.expires_at,
            running: session.running.map(|turn| RunningView { job_id: turn.turn.0, status: turn.status }),
            last_event_id: session.last_event.map(|last| event_id(last.turn_no, last.seq)),
        }
    }
}

/// A session that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewSessionView {
    /// The token: send it with messages. Keep it secret.
    session: String,
    #[serde(flatten)]
    made: SessionView,
}

/// A session has no settings to begin with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostSession {}

/// Makes a session with a new, empty conversation.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", security(("apiKey" = [])),
    request_body = Option<PostSession>,
    responses(
        (status = 201, description = "The session", body = NewSessionView,
         headers(("Location" = String, description = "/sessions/{id}"))),
    )
)]
pub(crate) async fn post_session(
    State(app): State<App>,
    Caller(actor): Caller,
    OptionalJson(PostSession {}): OptionalJson<PostSession>,
) -> Answer<(StatusCode, [(HeaderName, String); 1], JsonAnswer<NewSessionView>)> {
    let (session, token) = app.turns.sessions().create(&actor).await?;
    let location = (header::LOCATION, format!("/sessions/{}", session.id));
    let made = NewSessionView { session: token.expose_secret().to_owned(), made: session.into() };
    Ok((StatusCode::CREATED, [location], JsonAnswer(made)))
}

/// The query of GET /sessions.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionsQuery {
    /// Goes on after this session, as `next` says.
    before: Option<Uuid>,
    /// 1 to 200; 50 when left out.
    limit: Option<i64>,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// Newest first.
    sessions: Vec<SessionView>,
    /// `before` of the next page; null on the last.
    next: Option<Uuid>,
}

/// Lists the caller's sessions that have not expired, newest first.
#[utoipa::path(
    get, path = "/sessions", tag = "sessions", security(("apiKey" = [])), params(SessionsQuery),
    responses(
        (status = 200, description = "A page", body = SessionList),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
    )
)]
pub(crate) async fn list_sessions(
    State(app): State<App>,
    Caller(actor): Caller,
    Parameters(query): Parameters<SessionsQuery>,
) -> Answer<JsonAnswer<SessionList>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=200).contains(&limit) {
        return Err(Error::invalid(Invalid::Unreadable, "limit: takes 1 to 200").into());
    }
    let mut sessions = app.turns.sessions().list(&actor, query.before.map(SessionId), limit + 1).await?;
    let is_last = i64::try_from(sessions.len()).is_ok_and(|found| found <= limit);
    sessions.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if is_last { None } else { sessions.last().map(|session| session.id.0) };
    Ok(JsonAnswer(SessionList { sessions: sessions.into_iter().map(SessionView::from).collect(), next }))
}

/// Reads a session: also whether a turn is running, which, and the last event id.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The session")),
    responses(
        (status = 200, description = "The session", body = SessionView),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 410, description = "The session has expired", body = ErrorBody),
    )
)]
pub(crate) async fn get_session(
    State(app): State<App>,
    Caller(actor): Caller,
    SessionOfPath(id): SessionOfPath,
) -> Answer<JsonAnswer<SessionView>> {
    let session = app.turns.sessions().get(&actor, id).await?;
    app.last_accessed.touch(actor.tenant, id);
    Ok(JsonAnswer(session.into()))
}

/// What can be changed of a session; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PatchSession {
    /// At most 200 characters; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 200)]
    active_notion_workspace: Option<Option<String>>,
}

/// Tells null from left out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Changes a session.
#[utoipa::path(
    patch, path = "/sessions/{id}", tag = "sessions", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The session")),
    request_body = PatchSession,
    responses(
        (status = 200, description = "The session as it is now", body = SessionView),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 410, description = "The session has expired", body = ErrorBody),
    )
)]
pub(crate) async fn patch_session(
    State(app): State<App>,
    Caller(actor): Caller,
    SessionOfPath(id): SessionOfPath,
    Json(body): Json<PatchSession>,
) -> Answer<JsonAnswer<SessionView>> {
    let sessions = app.turns.sessions();
    let Some(workspace) = body.active_notion_workspace else {
        return Ok(JsonAnswer(sessions.get(&actor, id).await?.into()));
    };
    if workspace.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > 200) {
        return Err(Error::unacceptable("activeNotionWorkspace: takes 1 to 200 characters, or null").into());
    }
    let workspace = workspace.map(without_nul);
    let session = sessions.set_workspace(&actor, id, workspace.as_deref()).await?;
    app.last_accessed.touch(actor.tenant, id);
    Ok(JsonAnswer(session.into()))
}

/// Ends a session. Its conversation stays.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The session")),
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "There is no such session", body = ErrorBody),
    )
)]
pub(crate) async fn delete_session(
    State(app): State<App>,
    Caller(actor): Caller,
    SessionOfPath(id): SessionOfPath,
) -> Answer<StatusCode> {
    app.turns.sessions().delete(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
