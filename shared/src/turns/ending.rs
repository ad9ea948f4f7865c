//! How a turn ends. The last events, the message, the metering and the hand-over of its place and slot are one
//! transaction, so `done` is never told of a turn whose reply is not stored.

use serde_json::json;

use super::{
    Claimed, NewEvent, Status, TurnError, Turns,
    journal::{self, ModelStep, Place},
    store,
};
use crate::{
    bell::Ring,
    error::{Error, Result},
    events::{EventKind, data},
    jobs,
};

/// The status that a turn ends with, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    pub status: Status,
    pub error: Option<TurnError>,
    pub cancel_reason: Option<String>,
}

impl Ending {
    /// It did what it was asked.
    #[must_use]
    pub fn succeeded() -> Self {
        Self { status: Status::Succeeded, error: None, cancel_reason: None }
    }

    /// Somebody stopped it.
    #[must_use]
    pub fn cancelled(reason: &str) -> Self {
        Self { status: Status::Cancelled, error: None, cancel_reason: Some(reason.to_owned()) }
    }

    /// No further try can mend it.
    #[must_use]
    pub fn failed(error: &Error) -> Self {
        Self { status: Status::Failed, error: Some(error.into()), cancel_reason: None }
    }

    /// Its attempts are used up.
    #[must_use]
    pub fn dead(error: TurnError) -> Self {
        Self { status: Status::Dead, error: Some(error), cancel_reason: None }
    }

    /// The closing events from `seq` on: `error` where there is one, then `done`.
    #[must_use]
    pub fn events(&self, mut seq: i64, request_id: &str, usage: FinishedUsage) -> Vec<NewEvent> {
        let mut events = Vec::with_capacity(2);
        if let Some(error) = &self.error {
            let text = data::error_of(error.code.as_str(), &error.message, error.origin.as_str(), request_id);
            events.push(NewEvent { seq, kind: EventKind::Error, data: text });
            seq += 1;
        }
        let mut done = json!({
            "status": self.status.as_str(),
            "tokens": { "input": usage.input, "output": usage.output },
        });
        if let Some(reason) = &self.cancel_reason {
            done["reason"] = json!(reason);
        }
        events.push(NewEvent { seq, kind: EventKind::Done, data: done.to_string() });
        events
    }
}

/// What a turn used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FinishedUsage {
    pub input: i64,
    pub output: i64,
}

/// Everything that the end of a running turn writes.
#[derive(Debug, Clone)]
pub struct FinishedTurn {
    pub ending: Ending,
    /// The last reply of the model, when it ended by itself.
    pub last_step: Option<ModelStep>,
    /// The text of the last, perhaps unfinished, step; becomes a message unless it is empty.
    pub message: String,
    /// The person stopped it before the model ended.
    pub cut_short: bool,
    /// All text of the turn that was not voided.
    pub reply: String,
    pub model: Option<String>,
    pub usage: FinishedUsage,
    pub warnings: Vec<super::Warning>,
    /// In order, the last is `done`.
    pub events: Vec<NewEvent>,
}

impl Turns {
    /// Ends a running turn under its lease. False: the lease was lost and nothing was written.
    ///
    /// # Errors
    /// The database's. A lost connection is retried inside, since finding our own end means that it was written.
    pub async fn finish(&self, claimed: &Claimed, finished: &FinishedTurn) -> Result<bool> {
        let message_id = match finished.message.is_empty() {
            true => 0,
            false => self.message_id(claimed).await?,
        };
        let (written, freed, ready) = loop {
            match self.try_finish(claimed, finished, message_id).await {
                Err(error) if super::asks_to_run_again(&error) => {}
                Err(error) if error.is_transient() => {
                    tracing::warn!(turn_id = %claimed.lease.turn, error = %error, "the end of a turn may not have been written; looking");
                    match self.outlast(claimed).await {
                        Some(Status::Running) => {}
                        Some(status) => break (status == finished.ending.status, true, true),
                        None => break (false, false, false),
                    }
                }
                other => break other?,
            }
        };
        if written {
            let tail = finished.events.last().map_or(0, |event| event.seq);
            self.ring_events(claimed.actor.tenant, claimed.lease.turn, tail);
        }
        if ready {
            self.bell.ring(Ring::Work);
        }
        if freed {
            self.second_look.ask(claimed.actor.tenant);
        }
        Ok(written)
    }

    async fn try_finish(
        &self,
        claimed: &Claimed,
        finished: &FinishedTurn,
        message_id: i64,
    ) -> Result<(bool, bool, bool)> {
        let mut tx = self.tenants.begin(&claimed.actor).await?;
        let Some(next) = store::finish(&mut tx, claimed, finished, message_id).await? else {
            tx.rollback().await?;
            return Ok((false, false, false));
        };
        if finished.ending.status != Status::Succeeded {
            let place = Place { chat: claimed.chat, turn_no: claimed.turn_no, user: claimed.actor.user };
            journal::close_open_calls(&mut tx, claimed.lease.turn, &place).await?;
        }
        if let Some(ready) = next.ready_turn {
            jobs::push_turn(tx.connection(), ready).await?;
        }
        crate::resilience::failpoint("before_finish_commit").await;
        tx.commit().await?;
        crate::resilience::failpoint("after_finish_commit").await;
        Ok((true, next.freed, next.ready_turn.is_some()))
    }

    /// The id of a message, however long the database is away: what a model has written is not thrown away for it.
    pub(super) async fn message_id(&self, claimed: &Claimed) -> Result<i64> {
        loop {
            match self.tenants.counters().next(claimed.actor.tenant, "chat_message").await {
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
                other => return other,
            }
        }
    }

    /// After a lost connection: the turn's status if this lease still is its last one. Keeps asking while the database
    /// is away, so that a finished turn's writer never gives up on an outage.
    pub(super) async fn outlast(&self, claimed: &Claimed) -> Option<Status> {
        loop {
            match store::status_by_lease(&self.engine, &claimed.lease).await {
                Ok(state) => return state.map(|state| Status::of_state(&state)),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            }
        }
    }
}
