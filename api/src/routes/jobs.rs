//! A turn seen as a job: read, cancel, retry, approve.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    error::Error,
    ids::TurnId,
    jobs::CHAT_TURNS,
    turns::{Decision, Turn},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    chat::{accepted_answer, without_nul},
    meta::{AcceptedView, Links, Meta, ToolCall, tool_calls},
};
use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::{Job, Json, RequestId},
    headers,
    state::App,
};

/// Characters of an approval's reason at most.
const LONGEST_REASON: usize = 2000;

/// A turn as a job.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    id: Uuid,
    #[schema(example = "chat-turns")]
    queue: &'static str,
    /// queued, running, awaiting_approval, succeeded, failed, cancelled or dead.
    #[schema(example = "succeeded")]
    status: &'static str,
    /// Runs that began.
    attempts: i64,
    max_attempts: i64,
    conversation_id: i64,
    session_id: Uuid,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    /// The text; of a cancelled turn what there was of it.
    reply: Option<String>,
    tool_calls: Vec<ToolCall>,
    /// Why a failed or dead turn is that.
    error: Option<JobError>,
    /// The dead job that this one retries.
    retry_of: Option<Uuid>,
    /// Why a turn that does not run does not.
    #[schema(value_type = Option<Object>)]
    waiting_for: Option<Value>,
    /// Why a cancelled turn was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_reason: Option<String>,
    meta: Meta,
    links: Links,
}

/// Why a turn failed.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobError {
    #[schema(example = "MODEL-UNAVAILABLE")]
    error: &'static str,
    message: String,
    #[schema(example = "model")]
    origin: &'static str,
}

impl JobView {
    fn of(mut turn: Turn) -> Answer<JsonAnswer<Self>> {
        let meta = Meta::take(&mut turn);
        Ok(JsonAnswer(Self {
            id: turn.id.0,
            queue: CHAT_TURNS,
            status: turn.status.as_str(),
            attempts: turn.attempts,
            max_attempts: turn.max_attempts,
            conversation_id: turn.conversation.0,
            session_id: turn.session.0,
            created_at: turn.created_at,
            started_at: turn.started_at,
            finished_at: turn.finished_at,
            reply: turn.reply,
            tool_calls: tool_calls(turn.tool_calls),
            error: turn.error.map(|error| JobError {
                error: error.code.as_str(),
                message: error.message,
                origin: error.origin.as_str(),
            }),
            retry_of: turn.retry_of.map(|turn| turn.0),
            waiting_for: turn
                .waiting_for
                .as_ref()
                .map(serde_json::to_value)
                .transpose()
                .map_err(Error::from)?,
            cancel_reason: turn.cancel_reason,
            meta,
            links: Links::of(turn.id),
        }))
    }
}

/// Reads a job. Somebody else's is unknown.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "chat", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = 404, description = "There is no such job", body = ErrorBody),
    )
)]
pub(crate) async fn get_job(
    State(app): State<App>,
    Caller(actor): Caller,
    Job(turn): Job,
) -> Answer<JsonAnswer<JobView>> {
    JobView::of(app.turns.get(&actor, turn).await?)
}

/// Stops a queued, running or parked turn within a second. The text so far stays. A finished one is answered unchanged.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "chat", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "The job as it is now", body = JobView),
        (status = 404, description = "There is no such job", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    State(app): State<App>,
    Caller(actor): Caller,
    Job(turn): Job,
) -> Answer<JsonAnswer<JobView>> {
    JobView::of(app.turns.cancel(&actor, turn, "cancelled by its user").await?)
}

/// Makes a new turn, at the end of its conversation's line, out of a dead one, which stays as it is.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "chat", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The dead job")),
    responses(
        (status = 202, description = "Accepted as a new job", body = AcceptedView,
         headers(("Location" = String, description = "/jobs/{id}"))),
        (status = 404, description = "There is no such job", body = ErrorBody),
        (status = 409, description = "The job is not dead", body = ErrorBody),
    )
)]
pub(crate) async fn retry(
    State(app): State<App>,
    Caller(actor): Caller,
    RequestId(request_id): RequestId,
    Job(turn): Job,
) -> Answer<Response> {
    let accepted = app.turns.retry(&actor, turn, TurnId::generate(), &request_id).await?;
    Ok(accepted_answer(accepted, request_id))
}

/// What a person decides on a tool call.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostApproval {
    decision: ApprovalDecision,
    /// For the model and the record, at most 2000 characters.
    #[serde(default)]
    #[schema(max_length = 2000)]
    reason: Option<String>,
}

/// Approve or deny.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ApprovalDecision {
    Approve,
    Deny,
}

#[derive(Deserialize)]
pub(crate) struct CallPath {
    #[serde(rename = "callId")]
    call: String,
}

/// Decides on one tool call of a parked turn; the last decision lets the turn go on.
#[utoipa::path(
    post, path = "/jobs/{id}/approvals/{callId}", tag = "chat", security(("apiKey" = [])),
    params(
        ("id" = Uuid, Path, description = "The job"),
        ("callId" = String, Path, description = "The call, as its approval_required event names it"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for 24 hours"),
    ),
    request_body = PostApproval,
    responses(
        (status = 200, description = "The job as it is now", body = JobView),
        (status = 400, description = "Unreadable JSON or header", body = ErrorBody),
        (status = 404, description = "There is no such job or call", body = ErrorBody),
        (status = 409, description = "It was decided otherwise, has expired, or the Idempotency-Key was used with another body", body = ErrorBody),
    )
)]
pub(crate) async fn approve(
    State(app): State<App>,
    Caller(actor): Caller,
    Job(turn): Job,
    Path(CallPath { call }): Path<CallPath>,
    headers: HeaderMap,
    Json(body): Json<PostApproval>,
) -> Answer<JsonAnswer<JobView>> {
    // The key is for this call: the hash covers which one it is.
    let key = headers::idempotency(&headers, "POST /jobs/{id}/approvals/{callId}", &(turn, &call, &body))?;
    let reason = body.reason.map(without_nul).filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return Err(Error::unacceptable(format!("reason: is longer than {LONGEST_REASON} characters")).into());
    }
    let decision = match body.decision {
        ApprovalDecision::Approve => Decision::Approve,
        ApprovalDecision::Deny => Decision::Deny,
    };
    JobView::of(app.turns.decide(&actor, turn, &call, decision, reason.as_deref(), key.as_ref()).await?)
}
