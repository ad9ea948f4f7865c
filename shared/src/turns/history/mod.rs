//! What a worker loads to run a turn: the conversation so far, the turn's own steps and the tenant's settings. And the
//! shape of the messages that turns write.

mod store;

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Claimed, OpenApproval, StoredStep, ToolStep, Turns, journal, store as turn_store};
use crate::{
    error::Result,
    ids::ItemUid,
    tenancy::Policies,
    turns::{CallRecord, FinishedUsage, transcript::Transcript},
};

/// Messages of earlier turns that are loaded at most.
const HISTORY_MESSAGES: i64 = 400;

/// A tool call in a stored message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCallRecord {
    pub id: String,
    pub tool: String,
    #[serde(default)]
    pub args: Value,
}

/// A message of the conversation, oldest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryMessage {
    pub role: String,
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub tool_calls: Vec<ToolCallRecord>,
    #[serde(default)]
    pub tool_call_id: Option<String>,
    #[serde(default)]
    pub is_error: bool,
}

/// Everything that running a turn starts from.
#[derive(Debug, Clone)]
pub struct Context {
    /// What stands for the turns before the earliest message.
    pub summary: Option<String>,
    /// Earlier messages and this turn's own user messages; none of its steps.
    pub history: Vec<HistoryMessage>,
    pub steps: Vec<StoredStep>,
    /// The last event that belongs to a finished step, or the turn's first.
    pub last_step_seq: i64,
    /// Text that counts so far, of finished steps.
    pub text: String,
    pub approvals: HashMap<String, OpenApproval>,
    pub policies: Policies,
    /// The tenant's own, if it has one.
    pub system_prompt: Option<String>,
    /// Of their preferences, otherwise of their account.
    pub timezone: String,
    /// Date and time where the user is, `YYYY-MM-DD HH:MM Weekday`.
    pub local_time: String,
    /// Tokens that earlier attempts of this turn used.
    pub used: FinishedUsage,
    pub spent_micros: i64,
}

impl Turns {
    /// Loads what the turn's attempt starts from.
    ///
    /// # Errors
    /// The database's.
    pub async fn context(&self, claimed: &Claimed) -> Result<Context> {
        let mut tx = self.tenants.begin(&claimed.actor).await?;
        let beginning = store::beginning(&mut tx, claimed, HISTORY_MESSAGES).await?;
        let mut context = Context {
            summary: beginning.summary,
            history: beginning.history,
            steps: Vec::new(),
            last_step_seq: 1,
            text: String::new(),
            approvals: HashMap::new(),
            policies: beginning.policies,
            system_prompt: beginning.system_prompt,
            timezone: beginning.timezone,
            local_time: beginning.local_time,
            used: FinishedUsage::default(),
            spent_micros: 0,
        };
        if !claimed.is_fresh() {
            let (steps, last) = journal::steps(&mut tx, claimed).await?;
            context.steps = steps;
            context.last_step_seq = last.unwrap_or(1);
            let log = turn_store::events(&mut tx, claimed.lease.turn).await?;
            context.text = Transcript::of(&log).text_until(context.last_step_seq);
            let approvals = journal::approvals(&mut tx, claimed).await?;
            context.approvals =
                approvals.into_iter().map(|approval| (approval.call_id.clone(), approval)).collect();
            (context.used, context.spent_micros) = turn_store::used(&mut tx, claimed.lease.turn).await?;
        }
        tx.commit().await?;
        Ok(context)
    }
}

/// Position of a message in its chat: turns in their order, then steps, then an assistant's message before its results.
pub(super) fn ordinal(turn_no: i64, step: i64, index: i64) -> i64 {
    (turn_no << 20) + (step << 8) + index.min(255)
}

/// The payload of an assistant's message.
pub(super) fn assistant_payload(
    claimed: &Claimed,
    text: &str,
    calls: &[CallRecord],
    cut_short: bool,
) -> Value {
    let mut payload = json!({
        "chatUid": claimed.chat,
        "role": "assistant",
        "content": text,
        "sender": "assistant",
        "messageType": "text",
        "turnNo": claimed.turn_no,
    });
    if !calls.is_empty() {
        payload["toolCalls"] = calls.iter().map(call_payload).collect();
    }
    if cut_short {
        payload["cutShort"] = Value::Bool(true);
    }
    payload
}

fn call_payload(call: &CallRecord) -> Value {
    let args = call.arguments.clone().or_else(|| call.malformed.clone().map(Value::String));
    json!({ "id": call.id, "tool": call.tool, "args": args })
}

/// The payload of a tool's message.
pub(super) fn tool_payload(chat: ItemUid, turn_no: i64, step: &ToolStep<'_>) -> Value {
    json!({
        "chatUid": chat,
        "role": "tool",
        "content": step.result,
        "sender": "assistant",
        "messageType": "tool_result",
        "toolCallId": step.call.id,
        "tool": step.call.tool,
        "isError": step.is_error,
        "turnNo": turn_no,
    })
}
