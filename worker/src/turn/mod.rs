//! Running one turn: model, tools, model, until the model has nothing more to call.
//!
//! An attempt holds a lease and writes only through it. Whatever may take long and has no effect of ours (a model's
//! stream, an outside call, a pause) can be interrupted; a transaction under way never is, so that event ids are never
//! in doubt. Losing the lease ends an attempt without a further write.

mod calls;
mod end;
mod model_call;
mod on_demand;
mod prompt;
mod step;
mod thrift;
mod tools;

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::{
    Error,
    error::Code,
    events::{Stopped, TurnLog},
    model::{ModelMessage, StopReason},
    remote::Toolset,
    turns::{Claimed, Context, FinishedUsage, ModelStep, StoredStep, Warning},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

pub(crate) use tools::spec;

/// Why an attempt goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// Another process holds the turn, or this one was declared dead: write nothing more.
    Fenced,
    /// This process is stopping: give the turn to another.
    HandOver,
    /// No further try can mend it.
    Fatal(Error),
    /// Another attempt may mend it.
    Failed(Error),
}

/// How an attempt ended by itself.
pub(crate) enum Reached {
    /// The model's last reply, which calls nothing.
    Reply(Box<ModelStep>),
    /// People have to decide first; the turn is parked already.
    Parked,
}

/// Signals from the process to one attempt.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// Give the turn to another process.
    pub(crate) hand_over: CancellationToken,
    /// The process was declared dead.
    pub(crate) lost: CancellationToken,
}

/// One attempt at a turn.
pub(crate) struct Attempt {
    engine: Arc<Engine>,
    claimed: Claimed,
    log: Arc<TurnLog>,
    signals: Signals,
    deadline: Instant,
    context: Context,
    /// Earlier messages as the model reads them.
    messages: Vec<ModelMessage>,
    /// Where in them the turn's own replies and results begin.
    this_turn: usize,
    /// The history is so long that its old turns should become a summary.
    is_long: bool,
    /// What other people's servers offer this turn.
    tools: Arc<Toolset>,
    /// The newest reply of the model and which of its calls have results, by call id.
    open: Option<OpenReply>,
    /// Number of the newest model step.
    step: i64,
    /// The last event of a finished step: text after it does not count if this attempt ends.
    last_step_seq: i64,
    /// All text that counts.
    text: String,
    /// Where the text of the step under way begins in `text`, and where its own message does.
    step_text: usize,
    message_text: usize,
    used: FinishedUsage,
    spent_micros: i64,
    model: Option<String>,
    warnings: Vec<Warning>,
    /// One result is written at a time: its event's id is only known to be next while nobody else takes one.
    writing: tokio::sync::Mutex<()>,
}

/// A reply and what is known of its calls, by call id.
type OpenReply = (ModelStep, HashMap<String, CallState>);

/// What is known of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CallState {
    /// Begun by an earlier attempt; nobody knows whether it took effect.
    Begun,
    Done {
        result: String,
        is_error: bool,
    },
}

/// Runs a claimed turn to wherever this process can bring it.
pub(crate) async fn run(engine: Arc<Engine>, claimed: Claimed, signals: Signals) {
    shared::resilience::failpoint("claimed").await;
    let log = Arc::new(engine.log.open(claimed.lease, claimed.next_seq, claimed.elapsed_ms));
    let context = loop {
        match engine.turns.context(&claimed).await {
            Ok(context) => break context,
            Err(error) if error.is_transient() => {
                tokio::select! {
                    () = signals.lost.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
            Err(error) => {
                end::give_back(&engine, &claimed, &log, Stop::Failed(error)).await;
                return;
            }
        }
    };
    let mut attempt = Attempt::new(engine, claimed, log, signals, context);
    let stop = match attempt.drive().await {
        Ok(Reached::Parked) => return,
        Ok(Reached::Reply(reply)) => match attempt.succeed(*reply).await {
            Ok(()) => return,
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    attempt.stop(stop).await;
}

impl Attempt {
    fn new(
        engine: Arc<Engine>,
        claimed: Claimed,
        log: Arc<TurnLog>,
        signals: Signals,
        mut context: Context,
    ) -> Self {
        // What waited in line, or an hour for a person, has not run for all that time.
        let deadline = Instant::now() + engine.settings.turn_time_budget.saturating_sub(claimed.ran);
        let history = std::mem::take(&mut context.history);
        let messages =
            prompt::history(context.summary.as_deref(), &history, engine.settings.context_budget_tokens);
        let is_long = thrift::is_long(&messages, &engine.settings.thrift);
        let (step, open) = newest(&context.steps);
        let text = std::mem::take(&mut context.text);
        Self {
            step,
            open,
            last_step_seq: context.last_step_seq,
            step_text: text.len(),
            message_text: text.len(),
            text,
            used: context.used,
            spent_micros: context.spent_micros,
            model: None,
            warnings: Vec::new(),
            writing: tokio::sync::Mutex::new(()),
            this_turn: messages.len(),
            is_long,
            messages,
            tools: Arc::default(),
            context,
            deadline,
            signals,
            log,
            claimed,
            engine,
        }
    }

    async fn drive(&mut self) -> Result<Reached, Stop> {
        self.announce().await?;
        self.find_tools().await?;
        loop {
            self.check()?;
            if self.open.is_some() {
                if self.run_calls().await? {
                    return Ok(Reached::Parked);
                }
                continue;
            }
            self.within_budgets()?;
            shared::resilience::failpoint("before_model").await;
            let reply = self.next_reply(self.step + 1).await?;
            if reply.stop == StopReason::Refused {
                return Err(Stop::Fatal(Error::new(Code::ModelRejected, "the model declined to answer")));
            }
            if reply.calls.is_empty() {
                return Ok(Reached::Reply(Box::new(reply)));
            }
            self.commit_reply(reply).await?;
        }
    }

    /// Level-triggered: whatever was signalled before a step begins stops it.
    fn check(&self) -> Result<(), Stop> {
        if self.signals.lost.is_cancelled() {
            return Err(Stop::Fenced);
        }
        if self.claimed.cancel_requested || self.log.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        if self.signals.hand_over.is_cancelled() {
            return Err(Stop::HandOver);
        }
        if Instant::now() >= self.deadline {
            return Err(Stop::Fatal(time_is_up()));
        }
        Ok(())
    }

    /// Resolves when the attempt has to stop; used beside whatever takes long. Owns what it watches, so that one future
    /// can stand beside a whole stream.
    fn interrupted(&self) -> impl Future<Output = Stop> + Send + use<> {
        let (log, signals, deadline) = (Arc::clone(&self.log), self.signals.clone(), self.deadline);
        async move {
            tokio::select! {
                biased;
                () = signals.lost.cancelled() => Stop::Fenced,
                () = log.cancelled() => Stop::Cancelled,
                stopped = log.stopped() => from_log(stopped),
                () = signals.hand_over.cancelled() => Stop::HandOver,
                () = tokio::time::sleep_until(deadline) => Stop::Fatal(time_is_up()),
            }
        }
    }

    async fn interruptible<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.interrupted() => Err(stop),
            done = work => Ok(done),
        }
    }

    fn within_budgets(&self) -> Result<(), Stop> {
        let settings = &self.engine.settings;
        let used = self.used.input + self.used.output;
        let budget = |what: String| Err(Stop::Fatal(Error::new(Code::ModelBudget, what)));
        if self.step >= settings.max_steps {
            return budget(format!(
                "the turn has used its {} model replies without coming to an end",
                settings.max_steps
            ));
        }
        if used >= settings.turn_token_budget {
            return budget(format!(
                "the turn has used {used} tokens; its budget is {}",
                settings.turn_token_budget
            ));
        }
        match settings.turn_cost_budget_micros {
            Some(most) if self.spent_micros >= most => budget(format!(
                "the turn has cost {} millionths of a dollar; its budget is {most}",
                self.spent_micros
            )),
            _ => Ok(()),
        }
    }
}

fn time_is_up() -> Error {
    Error::new(Code::ModelBudget, "the turn has used its time budget")
}

fn from_log(stopped: Stopped) -> Stop {
    match stopped {
        Stopped::Fenced | Stopped::Closed => Stop::Fenced,
        Stopped::Refused(error) => Stop::Fatal(error),
    }
}

/// The newest model step of a journal, open while a call of it has no result.
fn newest(steps: &[StoredStep]) -> (i64, Option<OpenReply>) {
    let Some(model) = steps.iter().rev().find_map(|step| match step {
        StoredStep::Model(model) => Some(model.clone()),
        StoredStep::Tool { .. } => None,
    }) else {
        return (0, None);
    };
    let states = steps
        .iter()
        .filter_map(|step| match step {
            StoredStep::Tool { step, call_id, result, is_error } if *step == model.step => {
                let state = match result {
                    Some(result) => CallState::Done { result: result.clone(), is_error: *is_error },
                    None => CallState::Begun,
                };
                Some((call_id.clone(), state))
            }
            _ => None,
        })
        .collect();
    (model.step, Some((model, states)))
}
