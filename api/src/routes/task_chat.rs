//! The task chat [T9]: one call, one reply, no stream. The same turns as POST /chat, for clients that keep a
//! conversation's number instead of a session.

use std::time::Duration;

use axum::{
    Json as JsonAnswer,
    extract::{FromRequestParts, Path, State},
};
use http::{HeaderMap, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    error::{Code, Error},
    identity::Actor,
    ids::{ConversationId, TurnId},
    turns::{MessageRole, NewMessage, NewTurn, OnBusy, Turn, WaitingFor},
};
use tokio::time::Instant;
use tracing::{Span, field::display};
use utoipa::ToSchema;
use uuid::Uuid;

use super::chat;
use crate::{
    auth::Caller,
    error::{Answer, ErrorBody, Failure},
    extract::{Json, RequestId},
    headers,
    state::App,
};

/// How long the client waits for the result.
const PATIENCE: Duration = Duration::from_secs(30);

/// The caller, who named themselves in the path.
pub(crate) struct Oneself(Actor);

impl FromRequestParts<App> for Oneself {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Caller(actor) = Caller::from_request_parts(parts, app).await?;
        let named = Path::<String>::from_request_parts(parts, app).await.map(|Path(named)| named);
        let named = named.unwrap_or_default();
        let is_theirs = match (named.parse::<Uuid>(), named.parse::<i64>()) {
            (Ok(id), _) => id == actor.user.0,
            (_, Ok(number)) => app.turns.sessions().is_number_of(&actor, number).await?,
            _ => false,
        };
        if is_theirs {
            return Ok(Self(actor));
        }
        // The same for users that there are and for those that there are not.
        Err(Error::new(Code::Forbidden, "the path names another user; use your own uuid or number").into())
    }
}

/// A message.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostTaskChat {
    /// Goes on with this conversation; without one a new one begins.
    #[serde(default)]
    conversation_id: Option<i64>,
    /// 1 byte to 64 KiB of UTF-8, not only white space.
    #[schema(min_length = 1, max_length = 65536)]
    message: String,
}

/// The reply.
#[derive(Serialize, ToSchema)]
pub(crate) struct TaskReply {
    conversation_id: i64,
    /// What the model said, or that a person has to approve something first.
    response: String,
    tool_calls: Vec<TaskToolCall>,
}

/// What a tool was asked, and what it answered.
#[derive(Serialize, ToSchema)]
pub(crate) struct TaskToolCall {
    tool: String,
    #[schema(value_type = Object)]
    params: Value,
    /// Null while a person has not decided.
    result: Value,
}

/// Posts a message and waits up to 30 seconds for the reply.
#[utoipa::path(
    post, path = "/api/{user_id}/chat", tag = "chat", security(("apiKey" = [])),
    params(
        ("user_id" = String, Path, description = "The caller's own uuid or number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for 24 hours"),
    ),
    request_body = PostTaskChat,
    responses(
        (status = 200, description = "The reply, or that the turn waits for an approval", body = TaskReply),
        (status = 400, description = "Unreadable JSON or header", body = ErrorBody),
        (status = 403, description = "The path names another user", body = ErrorBody),
        (status = 404, description = "The caller has no such conversation", body = ErrorBody),
        (status = 409, description = "The turn was cancelled, or the Idempotency-Key was used with another body", body = ErrorBody),
        (status = 410, description = "The session of the conversation ended at this moment: send it again", body = ErrorBody),
        (status = 422, description = "A member is not acceptable, or a budget ended the turn", body = ErrorBody),
        (status = 502, description = "The model refused the turn", body = ErrorBody),
        (status = 503, description = "The model is not available", body = ErrorBody),
        (status = 504, description = "No result within 30 seconds; the turn goes on, and jobId names it", body = ErrorBody),
    )
)]
pub(crate) async fn post_task_chat(
    State(app): State<App>,
    Oneself(actor): Oneself,
    RequestId(request_id): RequestId,
    headers: HeaderMap,
    Json(body): Json<PostTaskChat>,
) -> Answer<JsonAnswer<TaskReply>> {
    let new = new_turn(&app, &actor, body, &headers, request_id).await?;
    // Before the commit, so that nothing of the turn can be missed.
    let follower = app.hub.follow(actor.tenant, new.id, 0);
    let until = Instant::now() + PATIENCE;
    let accepted = app.turns.post(&actor, &new).await?;
    Span::current().record("turn_id", display(accepted.turn)).record("session_id", display(accepted.session));
    app.last_accessed.touch(actor.tenant, accepted.session);
    let turn = match chat::ended(&app, &actor, &new, &accepted, follower, until).await? {
        Some(turn) => turn,
        None => app.turns.get(&actor, accepted.turn).await?,
    };
    reply(turn).map(JsonAnswer)
}

async fn new_turn(
    app: &App,
    actor: &Actor,
    body: PostTaskChat,
    headers: &HeaderMap,
    request_id: String,
) -> Answer<NewTurn> {
    chat::check_content("message", &body.message)?;
    let idempotency = headers::idempotency(headers, "POST /api/{user_id}/chat", &body)?;
    let session = match body.conversation_id {
        Some(id) => Some(app.turns.sessions().of_conversation(actor, ConversationId(id)).await?),
        None => None,
    };
    let message = NewMessage { role: MessageRole::User, content: chat::without_nul(body.message) };
    Ok(NewTurn {
        id: TurnId::generate(),
        messages: vec![message],
        session,
        force_refresh: false,
        on_busy: OnBusy::Enqueue,
        idempotency,
        request_id,
    })
}

fn reply(turn: Turn) -> Answer<TaskReply> {
    if let Some(WaitingFor::Approval { approvals }) = &turn.waiting_for {
        let tools: Vec<&str> = approvals.iter().map(|approval| approval.tool.as_str()).collect();
        let response = format!(
            "This needs your approval before it goes on: {}. Decide at /jobs/{}/approvals/{{callId}}.",
            tools.join(", "),
            turn.id
        );
        return Ok(TaskReply { response, ..view(turn) });
    }
    if !turn.status.is_terminal() {
        let late = Error::new(
            Code::ModelTimeout,
            "the turn takes longer than 30 s and goes on; read it at /jobs/{jobId}",
        );
        return Err(late.with_detail("jobId", turn.id.to_string()).into());
    }
    chat::succeeded(turn).map(view)
}

fn view(turn: Turn) -> TaskReply {
    let calls = turn.tool_calls.into_iter().map(|call| TaskToolCall {
        tool: call.tool,
        params: call.args,
        result: call.result.unwrap_or_default(),
    });
    TaskReply {
        conversation_id: turn.conversation.0,
        response: turn.reply.unwrap_or_default(),
        tool_calls: calls.collect(),
    }
}
