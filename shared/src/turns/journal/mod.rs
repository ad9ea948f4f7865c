//! The step journal: a model's reply or a tool's result is one row, and what a client sees of it rides in the same
//! transaction. A new worker loads the steps and goes on; a finished step is never run again.

mod store;

pub(super) use self::store::{approvals, steps};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Claimed, NewEvent, Turns, store as turn_store};
use crate::{
    bell::Ring,
    db::TenantTx,
    error::Result,
    ids::{ItemUid, TurnId, UserId},
    jobs,
    model::{StopReason, Usage},
    tools::CacheFacts,
};

/// A tool call as we number it: unique within the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Ours, in events and approvals.
    pub id: String,
    /// The provider's, for replay.
    pub provider_id: String,
    /// `server.tool` or the plain name of a built-in one.
    pub tool: String,
    /// The arguments, when the model wrote JSON.
    pub arguments: Option<Value>,
    /// What it wrote instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
}

/// A finished reply of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelStep {
    #[serde(skip)]
    pub step: i64,
    pub text: String,
    pub calls: Vec<CallRecord>,
    pub stop: StopReason,
    pub usage: Usage,
    pub model: String,
    /// Which provider `blocks` belong to.
    #[serde(skip)]
    pub provider: String,
    /// The provider's own blocks, byte for byte.
    #[serde(skip)]
    pub blocks: String,
}

/// A tool call's row: its intent, or with `result` its end.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolStep<'a> {
    pub step: i64,
    /// Position of the call in the model's reply.
    pub index: i64,
    pub call: &'a CallRecord,
    pub result: &'a str,
    pub is_error: bool,
    pub elapsed_ms: i64,
    /// What the cache had to do with it.
    pub cache: Option<&'a CacheFacts>,
}

/// A step as stored.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredStep {
    Model(ModelStep),
    Tool {
        step: i64,
        call_id: String,
        /// None: the call was begun and its outcome is unknown.
        result: Option<String>,
        is_error: bool,
    },
}

/// An approval as a worker finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenApproval {
    pub call_id: String,
    /// None while it is open.
    pub decision: Option<String>,
    pub reason: Option<String>,
}

/// What parks a turn.
#[derive(Debug, Clone)]
pub struct Parking<'a> {
    pub step: i64,
    pub calls: Vec<&'a CallRecord>,
    /// As the events tell people.
    pub expires_at: DateTime<Utc>,
    pub events: Vec<NewEvent>,
}

/// Where messages of a turn go.
pub(super) struct Place {
    pub(super) chat: ItemUid,
    pub(super) turn_no: i64,
    pub(super) user: UserId,
}

/// Gives every call that the turn did not live to answer a result that says so: in the stored history each call has
/// exactly one.
pub(super) async fn close_open_calls(tx: &mut TenantTx, turn: TurnId, place: &Place) -> Result<()> {
    let open = store::unanswered(tx, turn).await?;
    for (step, index, call) in &open {
        let result = "the turn ended before this call had a result; whether it took effect is unknown";
        let answer =
            ToolStep { step: *step, index: *index, call, result, is_error: true, elapsed_ms: 0, cache: None };
        let message_id = tx.next_id("chat_message").await?;
        store::answer(tx, turn, place, &answer, message_id).await?;
    }
    Ok(())
}

/// Whether a step was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepCommit {
    Written,
    /// Somebody else holds the turn now; nothing was written.
    Fenced,
}

impl Turns {
    /// Writes a model's reply with its message and events.
    ///
    /// # Errors
    /// The database's, other than lost connections, which are outlasted.
    pub async fn commit_model_step(
        &self,
        claimed: &Claimed,
        step: &ModelStep,
        events: &[NewEvent],
    ) -> Result<StepCommit> {
        let message_id = self.message_id(claimed).await?;
        loop {
            let tried = async {
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                let held = store::model_step(&mut tx, claimed, step, events, message_id).await?;
                crate::resilience::failpoint("model_step_before_commit").await;
                tx.commit().await?;
                Ok(held)
            }
            .await;
            if let Some(outcome) = self.settle_commit(claimed, step.step, "", tried).await? {
                if outcome == StepCommit::Written {
                    crate::resilience::failpoint("model_step_after_commit").await;
                }
                return Ok(outcome);
            }
        }
    }

    /// Writes down that an outside call is about to be made.
    ///
    /// # Errors
    /// The database's, other than lost connections, which are outlasted.
    pub async fn begin_call(&self, claimed: &Claimed, step: i64, call: &CallRecord) -> Result<StepCommit> {
        loop {
            let tried = async {
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                let held = store::intent(&mut tx, claimed, step, call).await?;
                tx.commit().await?;
                Ok(held)
            }
            .await;
            if let Some(outcome) = self.settle_commit(claimed, step, &call.id, tried).await? {
                return Ok(outcome);
            }
        }
    }

    /// Writes a tool's result with its message and events in the transaction that also holds its effect. An error that
    /// [`crate::Error::is_transient`] leaves the outcome open: ask [`Turns::step_result`].
    ///
    /// # Errors
    /// The database's.
    pub async fn commit_tool_step(
        &self,
        claimed: &Claimed,
        mut tx: TenantTx,
        step: &ToolStep<'_>,
        message_id: i64,
        events: &[NewEvent],
    ) -> Result<StepCommit> {
        let held = store::tool_step(&mut tx, claimed, step, events, message_id).await?;
        crate::resilience::failpoint("tool_before_commit").await;
        if !held {
            tx.rollback().await?;
            return Ok(StepCommit::Fenced);
        }
        tx.commit().await?;
        crate::resilience::failpoint("tool_after_commit").await;
        Ok(StepCommit::Written)
    }

    /// Whether this call has its result in the journal; asked after a commit whose reply was lost, while the database
    /// may still be away. `Fenced` when somebody else holds the turn.
    pub async fn step_result(&self, claimed: &Claimed, step: i64, call_id: &str) -> Option<StepCommit> {
        match self.outlast(claimed).await {
            None => Some(StepCommit::Fenced),
            Some(_) => loop {
                match store::is_finished(&self.engine, claimed, step, call_id).await {
                    Ok(finished) => return finished.then_some(StepCommit::Written),
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
                }
            },
        }
    }

    /// Parks a turn until people decide on these calls; frees its slot, keeps its place.
    ///
    /// # Errors
    /// The database's, other than lost connections, which are outlasted.
    pub async fn park(&self, claimed: &Claimed, parking: &Parking<'_>) -> Result<StepCommit> {
        loop {
            let tried = async {
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                turn_store::lock_conversation(&mut tx, claimed.conversation).await?;
                let held = store::park(&mut tx, claimed, parking).await?;
                if !held {
                    tx.rollback().await?;
                    return Ok((false, false, false));
                }
                let next = turn_store::hand_over(&mut tx, claimed.conversation, Some(claimed.slot)).await?;
                if let Some(ready) = next.ready_turn {
                    jobs::push_turn(tx.connection(), ready).await?;
                }
                tx.commit().await?;
                Ok((true, next.freed, next.ready_turn.is_some()))
            }
            .await;
            match tried {
                Ok((false, ..)) => return Ok(StepCommit::Fenced),
                Ok((true, freed, ready)) => {
                    if ready {
                        self.bell.ring(Ring::Work);
                    }
                    if freed {
                        self.second_look.ask(claimed.actor.tenant);
                    }
                    return Ok(StepCommit::Written);
                }
                Err(error) if super::asks_to_run_again(&error) => {}
                // Parked turns have no lease; if ours is gone the parking was written, or somebody took the turn.
                Err(error) if crate::Error::is_transient(&error) => {
                    if self.outlast(claimed).await.is_none() {
                        self.bell.ring(Ring::Work);
                        return Ok(StepCommit::Fenced);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes something of a commit's outcome; none means: run the transaction again.
    async fn settle_commit(
        &self,
        claimed: &Claimed,
        step: i64,
        call_id: &str,
        tried: Result<bool>,
    ) -> Result<Option<StepCommit>> {
        match tried {
            Ok(true) => Ok(Some(StepCommit::Written)),
            Ok(false) => Ok(Some(StepCommit::Fenced)),
            Err(error) if super::asks_to_run_again(&error) => Ok(None),
            Err(error) if error.is_transient() => {
                tracing::warn!(turn_id = %claimed.lease.turn, error = %error, "a step may not have been written; looking");
                match self.outlast(claimed).await {
                    None => Ok(Some(StepCommit::Fenced)),
                    Some(_) => loop {
                        match store::exists(&self.engine, claimed, step, call_id).await {
                            Err(error) if error.is_transient() => {
                                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                            }
                            exists => break Ok(exists?.then_some(StepCommit::Written)),
                        }
                    },
                }
            }
            Err(error) => Err(error),
        }
    }
}
