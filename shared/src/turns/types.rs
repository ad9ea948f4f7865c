//! A turn as its owner sees it.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{Code, Error, Origin},
    ids::{ConversationId, SessionId, TurnId},
    tools::Warning,
};

/// The states of the contract [T3]. Inside, `queued` is three: behind another turn, without a slot, and ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    Running,
    AwaitingApproval,
    Succeeded,
    Failed,
    Cancelled,
    Dead,
}

impl Status {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// The status of a stored state.
    #[must_use]
    pub fn of_state(state: &str) -> Self {
        match state {
            "running" => Self::Running,
            "awaiting_approval" => Self::AwaitingApproval,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "dead" => Self::Dead,
            _ => Self::Queued,
        }
    }

    /// Whether the turn has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Dead)
    }
}

/// The answer to a posted turn.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub turn: TurnId,
    pub turn_no: i64,
    pub session: SessionId,
    pub session_token: SecretString,
    pub conversation: ConversationId,
    pub status: Status,
    pub warnings: Vec<Warning>,
    pub retry_of: Option<TurnId>,
}

/// Why a turn failed or died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnError {
    /// Of the taxonomy [O2].
    #[serde(rename = "error")]
    pub code: Code,
    /// For the client.
    pub message: String,
    /// Where it began.
    pub origin: Origin,
}

impl From<&Error> for TurnError {
    fn from(error: &Error) -> Self {
        Self { code: error.code, message: error.message.to_string(), origin: error.origin }
    }
}

/// A tool call of a turn, with its result once there is one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCallView {
    pub id: String,
    pub tool: String,
    pub args: Value,
    pub result: Option<Value>,
    pub is_error: bool,
    pub elapsed_ms: Option<i64>,
    pub cache_hit: bool,
    /// Seconds that the cached answer was still good for.
    #[serde(skip)]
    pub cache_ttl: Option<i64>,
}

/// What a turn that does not run waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum WaitingFor {
    /// An earlier turn of the conversation.
    #[serde(rename_all = "camelCase")]
    Turn { job_id: TurnId },
    /// One of the tenant's running turns to end.
    Slot,
    /// A worker.
    Worker,
    /// The time of its next attempt.
    Retry { at: DateTime<Utc> },
    /// A person's decision on these calls.
    Approval { approvals: Vec<WaitingApproval> },
}

/// A call that waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingApproval {
    pub call_id: String,
    pub tool: String,
    pub args: Value,
    pub expires_at: DateTime<Utc>,
}

/// A turn.
#[derive(Debug, Clone)]
pub struct Turn {
    pub id: TurnId,
    pub turn_no: i64,
    pub conversation: ConversationId,
    pub session: SessionId,
    pub status: Status,
    pub attempts: i64,
    pub max_attempts: i64,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub reply: Option<String>,
    pub tool_calls: Vec<ToolCallView>,
    pub error: Option<TurnError>,
    pub retry_of: Option<TurnId>,
    pub waiting_for: Option<WaitingFor>,
    pub model: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    /// The session's total after this turn, once it has ended.
    pub session_tokens: Option<i64>,
    pub warnings: Vec<Warning>,
    pub request_id: String,
    pub cancel_reason: Option<String>,
}
