//! What several answers about a turn have in common.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::Value;
use shared::{
    ids::TurnId,
    turns::{Accepted, ToolCallView, Turn, Warning},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Where to go on from a turn.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Links {
    /// The job.
    #[serde(rename = "self")]
    #[schema(example = "/jobs/0198…")]
    this: String,
    /// Its event stream.
    events: String,
    /// The event stream of its session; only where the session's token was answered as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// Cancels it, by POST.
    cancel: String,
}

impl Links {
    pub(crate) fn of(turn: TurnId) -> Self {
        Self {
            this: job_path(turn),
            events: format!("/jobs/{turn}/events"),
            stream: None,
            cancel: format!("/jobs/{turn}/cancel"),
        }
    }
}

/// The job's place.
pub(crate) fn job_path(turn: TurnId) -> String {
    format!("/jobs/{turn}")
}

/// Something that a client should know although nothing failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WarningView {
    /// Such as CONTEXT_NEAR_LIMIT or AWAITING_APPROVAL.
    code: String,
    /// A sentence.
    detail: String,
}

fn warnings(warnings: Vec<Warning>) -> Vec<WarningView> {
    warnings.into_iter().map(|warning| WarningView { code: warning.code, detail: warning.detail }).collect()
}

/// A turn that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedView {
    job_id: Uuid,
    /// The session's token: send it with the next message of this conversation. Keep it secret.
    session: String,
    session_id: Uuid,
    conversation_id: i64,
    /// queued; what it is by now when an Idempotency-Key was repeated.
    #[schema(example = "queued")]
    status: &'static str,
    /// The dead job that this one retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<Uuid>,
    links: Links,
    meta: AcceptedMeta,
}

/// About an accepted turn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedMeta {
    request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningView>,
}

impl AcceptedView {
    pub(crate) fn of(accepted: Accepted, request_id: String) -> Self {
        let session = accepted.session_token.expose_secret().to_owned();
        let mut links = Links::of(accepted.turn);
        links.stream = Some(format!("/chat/stream?session={session}"));
        Self {
            job_id: accepted.turn.0,
            session,
            session_id: accepted.session.0,
            conversation_id: accepted.conversation.0,
            status: accepted.status.as_str(),
            retry_of: accepted.retry_of.map(|turn| turn.0),
            links,
            meta: AcceptedMeta { request_id, warnings: warnings(accepted.warnings) },
        }
    }
}

/// A tool call of a turn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolCall {
    id: String,
    tool: String,
    #[schema(value_type = Object)]
    args: Value,
    /// What the tool answered; null while it has not.
    result: Value,
    is_error: bool,
    elapsed_ms: Option<i64>,
    cache_hit: bool,
}

/// The turn's tool calls, as answered.
pub(crate) fn tool_calls(calls: Vec<ToolCallView>) -> Vec<ToolCall> {
    let view = |call: ToolCallView| ToolCall {
        id: call.id,
        tool: call.tool,
        args: call.args,
        result: call.result.unwrap_or_default(),
        is_error: call.is_error,
        elapsed_ms: call.elapsed_ms,
        cache_hit: call.cache_hit,
    };
    calls.into_iter().map(view).collect()
}

/// Tokens of a turn.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    /// Read by models in this turn.
    input: i64,
    /// Written by models in this turn.
    output: i64,
    /// The session's total after this turn; null until it has ended.
    used: Option<i64>,
}

/// About a turn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    /// Whether some tool result came from the cache.
    cache_hit: bool,
    /// The least time to live of those results, in seconds.
    cache_ttl_remaining: Option<i64>,
    tokens: Tokens,
    /// provider:model that wrote the reply.
    model: Option<String>,
    /// From acceptance to the end.
    duration_ms: Option<i64>,
    warnings: Vec<WarningView>,
    /// The request that posted the turn.
    request_id: String,
}

impl Meta {
    /// Takes what it needs out of the turn.
    pub(crate) fn take(turn: &mut Turn) -> Self {
        Self {
            cache_hit: turn.tool_calls.iter().any(|call| call.cache_hit),
            cache_ttl_remaining: turn.tool_calls.iter().filter_map(|call| call.cache_ttl).min(),
            tokens: Tokens {
                input: turn.input_tokens,
                output: turn.output_tokens,
                used: turn.session_tokens,
            },
            model: turn.model.take(),
            duration_ms: turn.finished_at.map(|at| milliseconds(turn.created_at, at)),
            warnings: warnings(std::mem::take(&mut turn.warnings)),
            request_id: std::mem::take(&mut turn.request_id),
        }
    }
}

fn milliseconds(from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
    (to - from).num_milliseconds().max(0)
}
