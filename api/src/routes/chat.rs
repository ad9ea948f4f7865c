//! Posting a turn, and waiting for its result when the client prefers to.

use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use shared::{
    error::{Code, Error},
    events::{EventKind, Follower},
    identity::Actor,
    ids::TurnId,
    turns::{Accepted, MessageRole, NewMessage, NewTurn, OnBusy, Status, Turn},
};
use tokio::time::Instant;
use tracing::{Span, field::display};
use utoipa::ToSchema;
use uuid::Uuid;

use super::meta::{AcceptedView, Meta, ToolCall, job_path, tool_calls};
use crate::{
    auth::Caller,
    error::{Answer, Failure},
    extract::{Json, Parameters, RequestId},
    headers,
    object::Object,
    state::App,
};

/// Bytes of one message's content at most.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// Messages of one post at most.
const MOST_MESSAGES: usize = 1000;

/// A chat turn.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PostChat {
    /// The last one is the user's. Earlier ones are only accepted when the turn opens a conversation.
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<Message>)]
    messages: Vec<Object<Message>>,
    /// The session's token; without one the turn opens a conversation.
    #[serde(default, serialize_with = "exposed")]
    #[schema(value_type = Option<String>)]
    session: Option<SecretString>,
    /// Do not answer tool calls from the cache.
    #[serde(default)]
    force_refresh: bool,
    /// What to do when the conversation is busy with another turn.
    #[serde(default)]
    on_busy: Busy,
}

/// Only into the hash of an idempotent request.
fn exposed<S: Serializer>(token: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(|token| token.expose_secret()).serialize(serializer)
}

/// What somebody said.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    role: Role,
    /// 1 byte to 64 KiB of UTF-8, not only white space.
    #[schema(min_length = 1, max_length = 65536)]
    content: String,
}

/// Who said it.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    User,
    Assistant,
}

/// What to do when the conversation is busy.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Busy {
    /// Wait in line.
    #[default]
    Enqueue,
    /// Refuse with 409.
    Reject,
    /// Cancel the running turn, then run.
    Interrupt,
}

/// The query of POST /chat.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatQuery {
    /// As the body's member of that name.
    force_refresh: Option<bool>,
}

/// The result of a turn that was waited for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reply {
    reply: String,
    job_id: Uuid,
    /// The session's token.
    session: String,
    session_id: Uuid,
    conversation_id: i64,
    tool_calls: Vec<ToolCall>,
    meta: Meta,
}

/// Posts a chat turn. Answers at once, or with `Prefer: wait=N` when the turn has ended within N seconds (at most 30).
#[utoipa::path(
    post, path = "/chat", tag = "chat", security(("apiKey" = [])),
    params(
        ChatQuery,
        ("Prefer" = Option<String>, Header, description = "wait=N: wait up to N seconds for the result", example = "wait=20"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for 24 hours"),
    ),
    request_body = PostChat,
    responses(
        (status = 202, description = "Accepted: follow links.events or poll links.self", body = AcceptedView,
         headers(("Location" = String, description = "/jobs/{id}"))),
        (status = 200, description = "The turn has ended within the time", body = Reply,
         headers(("Preference-Applied" = String, description = "wait"), ("Location" = String, description = "/jobs/{id}"))),
        (status = 400, description = "Unreadable JSON, header or parameter", body = crate::error::ErrorBody),
        (status = 404, description = "The session is unknown", body = crate::error::ErrorBody),
        (status = 409, description = "The conversation is busy and onBusy is reject (jobId names the job), the Idempotency-Key was used with another body, or the turn waited for was cancelled", body = crate::error::ErrorBody),
        (status = 410, description = "The session has expired", body = crate::error::ErrorBody),
        (status = 422, description = "A member is not acceptable, or a budget ended the turn waited for", body = crate::error::ErrorBody),
        (status = 429, description = "The model's provider limited the turn waited for", body = crate::error::ErrorBody),
        (status = 502, description = "The model refused the turn waited for", body = crate::error::ErrorBody),
        (status = 503, description = "The model was not available for the turn waited for", body = crate::error::ErrorBody),
        (status = 504, description = "The model did not answer the turn waited for in time", body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn post_chat(
    State(app): State<App>,
    Caller(actor): Caller,
    RequestId(request_id): RequestId,
    Parameters(query): Parameters<ChatQuery>,
    headers: HeaderMap,
    Json(body): Json<PostChat>,
) -> Answer<Response> {
    let wait = headers::wait(&headers)?;
    let new = new_turn(body, &query, &headers, &request_id)?;
    // Before the commit, so that nothing of the turn can be missed.
    let follower = wait.map(|wait| (app.hub.follow(actor.tenant, new.id, 0), Instant::now() + wait));
    let accepted = app.turns.post(&actor, &new).await?;
    Span::current().record("turn_id", display(accepted.turn)).record("session_id", display(accepted.session));
    app.last_accessed.touch(actor.tenant, accepted.session);
    if let Some((follower, until)) = follower
        && let Some(turn) = ended(&app, &actor, &new, &accepted, follower, until).await?
    {
        return result(turn, &accepted);
    }
    Ok(accepted_answer(accepted, request_id))
}

/// 202 with its `Location`.
pub(crate) fn accepted_answer(accepted: Accepted, request_id: String) -> Response {
    let location = location(accepted.turn);
    (StatusCode::ACCEPTED, [location], JsonAnswer(AcceptedView::of(accepted, request_id))).into_response()
}

fn location(turn: TurnId) -> (HeaderName, String) {
    (header::LOCATION, job_path(turn))
}

fn new_turn(body: PostChat, query: &ChatQuery, headers: &HeaderMap, request_id: &str) -> Answer<NewTurn> {
    let force_refresh = body.force_refresh || query.force_refresh == Some(true);
    let body = PostChat { force_refresh, ..body };
    check(&body)?;
    let idempotency = headers::idempotency(headers, "POST /chat", &body)?;
    let on_busy = match body.on_busy {
        Busy::Enqueue => OnBusy::Enqueue,
        Busy::Reject => OnBusy::Reject,
        Busy::Interrupt => OnBusy::Interrupt,
    };
    let messages = body.messages.into_iter().map(|Object(message)| NewMessage {
        role: match message.role {
            Role::User => MessageRole::User,
            Role::Assistant => MessageRole::Assistant,
        },
        content: without_nul(message.content),
    });
    Ok(NewTurn {
        id: TurnId::generate(),
        messages: messages.collect(),
        session: body.session,
        force_refresh,
        on_busy,
        idempotency,
        request_id: request_id.to_owned(),
    })
}

fn check(body: &PostChat) -> Result<(), Error> {
    let count = body.messages.len();
    let Some(Object(last)) = body.messages.last() else {
        return Err(Error::unacceptable("messages: at least one message is required"));
    };
    if count > MOST_MESSAGES {
        return Err(Error::unacceptable(format!("messages: {count} are more than {MOST_MESSAGES}")));
    }
    if last.role != Role::User {
        return Err(Error::unacceptable(format!(
            "messages[{}].role: the last message must be the user's",
            count - 1
        )));
    }
    for (index, Object(message)) in body.messages.iter().enumerate() {
        check_content(&format!("messages[{index}].content"), &message.content)?;
    }
    match &body.session {
        Some(token) if token.expose_secret().is_empty() => {
            Err(Error::unacceptable("session: must not be empty"))
        }
        Some(_) if count > 1 => Err(Error::unacceptable(
            "messages: earlier messages are only accepted when the turn opens a conversation, not with a session",
        )),
        _ => Ok(()),
    }
}

/// What a message of this place may hold.
pub(super) fn check_content(place: &str, content: &str) -> Result<(), Error> {
    if content.trim().is_empty() {
        return Err(Error::unacceptable(format!("{place}: must not be empty")));
    }
    if content.len() > LONGEST_MESSAGE {
        let length = content.len();
        return Err(Error::unacceptable(format!("{place}: {length} bytes are more than {LONGEST_MESSAGE}")));
    }
    Ok(())
}

/// Postgres takes no U+0000 in text.
pub(crate) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The turn, once it has ended; none when it has not within the time or waits for an approval.
pub(super) async fn ended(
    app: &App,
    actor: &Actor,
    new: &NewTurn,
    accepted: &Accepted,
    mut follower: Follower,
    until: Instant,
) -> Answer<Option<Turn>> {
    // A repeated request leads to the first one's turn, which may have ended long ago.
    let is_repeated = accepted.turn != new.id;
    if is_repeated {
        follower = app.hub.follow(actor.tenant, accepted.turn, 0);
    }
    let mut look = is_repeated;
    loop {
        if look {
            let turn = app.turns.get(actor, accepted.turn).await?;
            if turn.status.is_terminal() {
                return Ok(Some(turn));
            }
            if turn.status == Status::AwaitingApproval {
                return Ok(None);
            }
        }
        let events = tokio::select! {
            events = follower.next() => events,
            () = tokio::time::sleep_until(until) => return Ok(None),
            // The turn goes on without this process; the client may follow it elsewhere.
            () = app.draining.cancelled() => return Ok(None),
        };
        look = events.iter().any(|event| matches!(event.kind, EventKind::Done | EventKind::ApprovalRequired));
        if events.is_empty() {
            // The log ended; the turn says how.
            let turn = app.turns.get(actor, accepted.turn).await?;
            return Ok(Some(turn).filter(|turn| turn.status.is_terminal()));
        }
    }
}

/// A turn that ended well; otherwise what it failed of.
pub(super) fn succeeded(turn: Turn) -> Answer<Turn> {
    if let Some(error) = turn.error {
        let mut failure = Error::new(error.code, error.message).with_detail("jobId", turn.id.to_string());
        failure.origin = error.origin;
        return Err(Failure(failure));
    }
    if turn.status == Status::Cancelled {
        let reason = turn.cancel_reason.as_deref().unwrap_or("no reason given");
        let message = format!("the turn was cancelled: {reason}");
        return Err(Error::new(Code::Conflict, message).with_detail("jobId", turn.id.to_string()).into());
    }
    Ok(turn)
}

fn result(turn: Turn, accepted: &Accepted) -> Answer<Response> {
    let mut turn = succeeded(turn)?;
    let meta = Meta::take(&mut turn);
    let reply = Reply {
        reply: turn.reply.unwrap_or_default(),
        job_id: turn.id.0,
        session: accepted.session_token.expose_secret().to_owned(),
        session_id: accepted.session.0,
        conversation_id: accepted.conversation.0,
        tool_calls: tool_calls(turn.tool_calls),
        meta,
    };
    let applied = (HeaderName::from_static("preference-applied"), HeaderValue::from_static("wait"));
    Ok(([applied], [location(turn.id)], JsonAnswer(reply)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: serde_json::Value) -> String {
        check(&serde_json::from_value(body).unwrap()).unwrap_err().message.into_owned()
    }

    #[test]
    fn what_is_not_acceptable_is_named() {
        let user = |content: &str| serde_json::json!({"role": "user", "content": content});
        assert!(problem(serde_json::json!({"messages": []})).starts_with("messages: "));
        assert!(problem(serde_json::json!({"messages": [user(" \n")]})).starts_with("messages[0].content: "));
        assert!(
            problem(serde_json::json!({"messages": [user(&"x".repeat(65537))]}))
                .starts_with("messages[0].content: ")
        );
        assert!(
            problem(serde_json::json!({"messages": [user("a"), {"role": "assistant", "content": "b"}]}))
                .starts_with("messages[1].role: ")
        );
        assert!(
            problem(serde_json::json!({"messages": [user("a"), user("b")], "session": "s"}))
                .starts_with("messages: ")
        );
        assert!(
            problem(serde_json::json!({"messages": [user("a")], "session": ""})).starts_with("session: ")
        );
        let fine = serde_json::json!({"messages": [user(&"x".repeat(65536))], "session": null});
        check(&serde_json::from_value(fine).unwrap()).unwrap();
    }

    #[test]
    fn the_same_request_has_one_canonical_form() {
        let canonical =
            |text: &str| serde_json::to_string(&serde_json::from_str::<PostChat>(text).unwrap()).unwrap();
        assert_eq!(
            canonical(r#"{"messages":[{"role":"user","content":"a"}]}"#),
            canonical(
                r#"{ "onBusy":"enqueue", "session":null, "forceRefresh":false, "messages":[{"content":"\u0061","role":"user"}]}"#
            ),
        );
        assert_ne!(
            canonical(r#"{"messages":[{"role":"user","content":"a"}]}"#),
            canonical(r#"{"messages":[{"role":"user","content":"a"}],"session":"x"}"#),
        );
    }
}
