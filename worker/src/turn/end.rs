//! How an attempt ends: with a reply, with an end that somebody asked for or that cannot be mended, or by giving the
//! turn back.

use shared::{
    events::{EventKind, Stopped, TurnLog, data},
    turns::{Claimed, Ending, FinishedTurn, ModelStep, NewEvent, Released, Status, TurnError},
};

use super::{Attempt, Stop, from_log};
use crate::engine::Engine;

impl Attempt {
    /// The reply is complete.
    pub(super) async fn succeed(&mut self, reply: ModelStep) -> Result<(), Stop> {
        let message = self.message().to_owned();
        let text = std::mem::take(&mut self.text);
        self.finish(Ending::succeeded(), Some(reply), message, text, Vec::new()).await
    }

    /// Ends or gives back the turn for this reason.
    pub(super) async fn stop(mut self, stop: Stop) {
        let stop = match stop {
            Stop::Cancelled => {
                // Who asked and why is only in the turn's row: the bell says no more than that somebody did.
                let asked = self.engine.turns.cancel_reason(&self.claimed).await.ok().flatten();
                let reason = asked.unwrap_or_else(|| "cancelled".to_owned());
                let (message, text) = (self.message().to_owned(), self.text.clone());
                match self.finish(Ending::cancelled(&reason), None, message, text, Vec::new()).await {
                    Ok(()) => return,
                    Err(stop) => stop,
                }
            }
            Stop::Fatal(error) => {
                crate::metrics::count_error(&error);
                tracing::warn!(
                    turn_id = %self.claimed.lease.turn, request_id = %self.claimed.request_id,
                    error_code = error.code.as_str(), origin = error.origin.as_str(), error = %error, "a turn failed"
                );
                let void = self.text.len() > self.step_text;
                self.text.truncate(self.step_text);
                let voiding = if void {
                    vec![data::resumed(self.claimed.turn_no, self.last_step_seq)]
                } else {
                    Vec::new()
                };
                let text = std::mem::take(&mut self.text);
                match self.finish(Ending::failed(&error), None, String::new(), text, voiding).await {
                    Ok(()) => return,
                    Err(stop) => stop,
                }
            }
            other => other,
        };
        give_back(&self.engine, &self.claimed, &self.log, stop).await;
    }

    /// `voiding`: data of `resumed` events that come before the closing ones.
    async fn finish(
        &mut self,
        ending: Ending,
        last_step: Option<ModelStep>,
        message: String,
        reply: String,
        voiding: Vec<String>,
    ) -> Result<(), Stop> {
        self.log.flushed().await.map_err(from_log)?;
        let closing = ending.events(0, &self.claimed.request_id, self.used).len() + voiding.len();
        let first = self.log.take(i64::try_from(closing).unwrap_or(0)).await;
        let mut events: Vec<NewEvent> = (first..)
            .zip(voiding)
            .map(|(seq, data)| NewEvent { seq, kind: EventKind::Resumed, data })
            .collect();
        let next = first + i64::try_from(events.len()).unwrap_or(0);
        events.extend(ending.events(next, &self.claimed.request_id, self.used));
        let status = ending.status;
        let finished = FinishedTurn {
            cut_short: status == Status::Cancelled,
            ending,
            last_step,
            message,
            reply,
            model: self.model.clone(),
            usage: self.used,
            warnings: self.warnings.clone(),
            events,
        };
        match self.engine.turns.finish(&self.claimed, &finished).await {
            Ok(true) => {
                if !self.claimed.is_fresh() {
                    self.engine.turns.correct_totals(&self.claimed);
                }
                self.ask_for_compaction();
                let duration = (chrono::Utc::now() - self.claimed.created_at).num_milliseconds();
                tracing::info!(
                    turn_id = %self.claimed.lease.turn, request_id = %self.claimed.request_id, tenant_id = %self.claimed.actor.tenant,
                    user_id = %self.claimed.actor.user, session_id = %self.claimed.session, status = status.as_str(),
                    duration_ms = duration, input_tokens = self.used.input, output_tokens = self.used.output, "turn ended"
                );
                Ok(())
            }
            Ok(false) => Err(Stop::Fenced),
            Err(error) => Err(Stop::Failed(error)),
        }
    }
}

impl Attempt {
    /// Has old turns summed up, beside all turns: nobody waits for it.
    fn ask_for_compaction(&self) {
        if !self.is_long {
            return;
        }
        let (engine, claimed) = (std::sync::Arc::clone(&self.engine), self.claimed.clone());
        self.engine.tasks.spawn(async move {
            let asked =
                engine.turns.ask_for_compaction(&claimed.actor, claimed.conversation, claimed.turn_no);
            match asked.await {
                Ok(_) => engine.maintenance.notify_one(),
                Err(error) => {
                    tracing::debug!(error = %error, "a summary was not asked for; the next turn asks again")
                }
            }
        });
    }
}

/// Gives a turn back unfinished, or lets go of one that is somebody else's.
pub(super) async fn give_back(engine: &Engine, claimed: &Claimed, log: &TurnLog, stop: Stop) {
    let turn_id = claimed.lease.turn;
    engine.turns.correct_totals(claimed);
    let released = match stop {
        Stop::Fenced => {
            tracing::warn!(turn_id = %turn_id, "the turn belongs to another process now; nothing more is written here");
            return;
        }
        Stop::HandOver | Stop::Cancelled => {
            tracing::info!(turn_id = %turn_id, "the turn is handed over");
            Released::HandOver
        }
        Stop::Failed(error) | Stop::Fatal(error) => {
            crate::metrics::count_error(&error);
            tracing::warn!(
                turn_id = %turn_id, request_id = %claimed.request_id, attempt = claimed.attempts + 1,
                error_code = error.code.as_str(), origin = error.origin.as_str(),
                error = %error, cause = error_chain(&error), "a run of the turn failed"
            );
            Released::Failed(TurnError::from(&error))
        }
    };
    // What the log still holds must be in the table before the lease is given up in an orderly way.
    match log.flushed().await {
        // Events that the database refuses never arrive; the turn has to be let go of all the same.
        Ok(_) | Err(Stopped::Refused(_)) => {}
        Err(Stopped::Fenced | Stopped::Closed) => return,
    }
    let retry = matches!(released, Released::Failed(_)).then(|| engine.turns.retry_delay(claimed));
    loop {
        match engine.turns.release(claimed, released.clone()).await {
            Ok(_) => break,
            Err(error) if error.is_transient() => {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await
            }
            Err(error) => {
                tracing::error!(turn_id = %turn_id, error = %error, "a turn could not be given back; its lease will run out");
                return;
            }
        }
    }
    if let Some(delay) = retry {
        engine.claim_again_after(delay);
    }
}

fn error_chain(error: &shared::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
