//! Carrying out the tool calls of one reply: those on the same resource in order, all others side by side.

use std::{
    collections::HashMap,
    pin::pin,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures::{StreamExt, stream::FuturesUnordered};
use shared::{
    Error,
    events::{EventKind, data},
    tenancy::Policy,
    tools::{OutsideCall, OutsideTool, ToolDef, ToolOutput, ToolRun, Warning, WorkspaceRun},
    turns::{CallRecord, NewEvent, Parking, StepCommit, ToolStep},
    workspace,
};
use tokio::sync::watch;

use super::{Attempt, CallState, Stop, from_log, on_demand};

/// How often a client is told how far a call is, at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// The code of the warning that tells it.
const PROGRESS: &str = "MCP-PROGRESS";
/// Bytes of an outside tool's result that are kept.
const MAX_RESULT_BYTES: usize = 256 * 1024;

/// What to do about one call.
enum Plan<'a> {
    Run(&'a ToolDef),
    /// Answer without running anything.
    Answer(String),
    /// Tools that a search found.
    Found(String),
    /// A person decides first.
    Ask,
}

/// A call that has its result.
struct Finished {
    call_id: String,
    state: CallState,
    seq: i64,
    /// What the person was told beside it.
    warning: Option<Warning>,
}

impl Attempt {
    /// Brings every call of the open reply to its result. True: people have to decide on some, and the turn is parked.
    pub(super) async fn run_calls(&mut self) -> Result<bool, Stop> {
        let Some((reply, states)) = &self.open else { return Ok(false) };
        let mut asks = Vec::new();
        let mut groups: HashMap<String, Vec<(usize, &CallRecord, Plan<'_>)>> = HashMap::new();
        for (index, call) in reply.calls.iter().enumerate() {
            if matches!(states.get(&call.id), Some(CallState::Done { .. })) {
                continue;
            }
            let plan = self.plan(call, states.get(&call.id));
            let resource = match &plan {
                Plan::Ask => {
                    asks.push(call);
                    continue;
                }
                Plan::Run(tool) => {
                    tool.resource.as_ref().zip(call.arguments.as_ref()).and_then(|(name, args)| name(args))
                }
                Plan::Answer(_) | Plan::Found(_) => None,
            };
            groups.entry(resource.unwrap_or_else(|| call.id.clone())).or_default().push((index, call, plan));
        }
        let mut running: FuturesUnordered<_> =
            groups.into_values().map(|group| self.run_group(reply.step, group)).collect();
        let mut done = Vec::new();
        let mut stopped = None;
        // All are waited for, also when one stops: a transaction under way is never dropped.
        while let Some(finished) = running.next().await {
            match finished {
                Ok(results) => done.extend(results),
                Err(stop) => stopped = Some(worse(stopped, stop)),
            }
        }
        drop(running);
        if let Some(stop) = stopped {
            return Err(stop);
        }
        if !asks.is_empty() {
            self.check()?;
            return self.park(reply.step, asks).await;
        }
        if let Some((_, states)) = &mut self.open {
            for Finished { call_id, state, seq, warning } in done {
                states.insert(call_id, state);
                self.last_step_seq = self.last_step_seq.max(seq);
                self.warnings.extend(warning);
            }
        }
        self.close_calls();
        Ok(false)
    }

    fn plan(&self, call: &CallRecord, state: Option<&CallState>) -> Plan<'_> {
        if call.malformed.is_some() {
            let sentence = "the arguments are not valid JSON, or too long; write the call again";
            return Plan::Answer(sentence.to_owned());
        }
        if call.tool == on_demand::SEARCH_TOOLS {
            return match on_demand::search(&self.offered(), call.arguments.as_ref()) {
                Ok(found) => Plan::Found(found),
                Err(sentence) => Plan::Answer(sentence),
            };
        }
        let tool = self.tool(&call.tool);
        if state == Some(&CallState::Begun) && !tool.is_some_and(|tool| tool.effect.may_run_again()) {
            let sentence = "the outcome of this call is unknown: the process that made it died; look before you repeat it";
            return Plan::Answer(sentence.to_owned());
        }
        let Some(tool) = tool else { return Plan::Answer(self.missing(&call.tool)) };
        match self.policy(&call.tool) {
            Policy::Allow => Plan::Run(tool),
            Policy::Deny => Plan::Answer(format!("{} is not allowed in this workspace", call.tool)),
            Policy::Ask => match self.context.approvals.get(&call.id) {
                None => Plan::Ask,
                Some(approval) => match (approval.decision.as_deref(), &approval.reason) {
                    (None, _) => Plan::Ask,
                    (Some("approve"), _) => Plan::Run(tool),
                    (Some("expired"), _) => {
                        Plan::Answer("nobody approved this call in time, so it was not made".to_owned())
                    }
                    (Some(_), Some(reason)) => Plan::Answer(format!("the person denied this call: {reason}")),
                    (Some(_), None) => Plan::Answer("the person denied this call".to_owned()),
                },
            },
        }
    }

    async fn run_group(
        &self,
        step: i64,
        group: Vec<(usize, &CallRecord, Plan<'_>)>,
    ) -> Result<Vec<Finished>, Stop> {
        let mut done = Vec::with_capacity(group.len());
        for (index, call, plan) in group {
            self.check()?;
            let begun = Instant::now();
            let index = i64::try_from(index).unwrap_or(0);
            let (output, seq) = match plan {
                Plan::Answer(sentence) => {
                    self.write(step, index, call, ToolOutput::error(sentence), begun).await?
                }
                Plan::Found(found) => {
                    let output = ToolOutput { content: found, ..ToolOutput::default() };
                    self.write(step, index, call, output, begun).await?
                }
                Plan::Run(ToolDef { run: ToolRun::Workspace(run), .. }) => {
                    self.run_inside(step, index, call, run).await?
                }
                Plan::Run(ToolDef { run: ToolRun::Outside(tool), .. }) => {
                    let mut output = self.run_outside(step, call, tool.as_ref()).await?;
                    // Once a turn is enough.
                    output.warning = output.warning.filter(|warning| !self.warnings.contains(warning));
                    self.write(step, index, call, output, begun).await?
                }
                Plan::Ask => continue,
            };
            done.push(Finished {
                call_id: call.id.clone(),
                state: CallState::Done { result: output.content, is_error: output.is_error },
                seq,
                warning: output.warning,
            });
        }
        Ok(done)
    }

    /// A built-in tool: its effect and its result are one transaction under the lease, exactly once.
    async fn run_inside(
        &self,
        step: i64,
        index: i64,
        call: &CallRecord,
        run: &WorkspaceRun,
    ) -> Result<(ToolOutput, i64), Stop> {
        let null = serde_json::Value::Null;
        let arguments = call.arguments.as_ref().unwrap_or(&null);
        let begun = Instant::now();
        // Before the transaction begins, which must not wait for a model.
        let asked = workspace::meaning_of_call(self.engine.embedder.as_ref(), &call.tool, arguments);
        let meaning = match self.interruptible(asked).await? {
            Ok(meaning) => meaning,
            Err(error) => {
                let sentence = format!("cannot search by meaning now ({}); mode text works", error.message);
                return self.write(step, index, call, ToolOutput::error(sentence), begun).await;
            }
        };
        loop {
            let begun = Instant::now();
            let ran = async {
                let mut tx = self.engine.turns.tenants().begin(&self.claimed.actor).await?;
                if let Some(meaning) = &meaning {
                    tx.bring(meaning.clone());
                }
                let output = run(&mut tx, arguments).await?;
                Ok::<_, Error>((tx, output))
            };
            let (tx, output) = match ran.await {
                Ok(ran) => ran,
                // The database did not take a value that the model gave: nothing was done, and the model can do better.
                Err(error) if error.is_about_a_value() => {
                    let sentence =
                        "one of the values is out of range or cannot be stored; change it and call again";
                    return self.write(step, index, call, ToolOutput::error(sentence), begun).await;
                }
                Err(error) => {
                    self.pause_for(error).await?;
                    continue;
                }
            };
            if let Some(seq) = self.commit_result(tx, step, index, call, &output, begun).await? {
                return Ok((output, seq));
            }
        }
    }

    /// A tool beyond the database: its intent is written first, so that a successor knows that it may have happened.
    async fn run_outside(
        &self,
        step: i64,
        call: &CallRecord,
        tool: &dyn OutsideTool,
    ) -> Result<ToolOutput, Stop> {
        self.interruptible(self.engine.contact.regained()).await?;
        let begun_before =
            self.open.as_ref().is_some_and(|(_, states)| states.get(&call.id) == Some(&CallState::Begun));
        if !begun_before {
            match self.engine.turns.begin_call(&self.claimed, step, call).await {
                Ok(StepCommit::Written) => {}
                Ok(StepCommit::Fenced) => return Err(Stop::Fenced),
                Err(error) => return Err(Stop::Failed(error)),
            }
        }
        shared::resilience::failpoint("outside_tool_after_intent").await;
        let key = format!("{}:{}", self.claimed.lease.turn, call.id);
        let null = serde_json::Value::Null;
        let (progress, told) = watch::channel(String::new());
        let outside = OutsideCall {
            actor: &self.claimed.actor,
            session: self.claimed.session,
            turn: self.claimed.lease.turn,
            arguments: call.arguments.as_ref().unwrap_or(&null),
            idempotency_key: &key,
            force_refresh: self.claimed.force_refresh,
            request_id: &self.claimed.request_id,
            progress: &progress,
        };
        let called = self.interruptible(self.telling(tool.call(outside), told)).await?;
        shared::resilience::failpoint("outside_tool_after_call").await;
        // A tool that fails costs the turn a sentence, not its life.
        Ok(storable(
            called.unwrap_or_else(|error| ToolOutput::error(format!("the tool failed: {}", error.message))),
        ))
    }

    /// Passes on what a call says about its progress, while it lasts: the newest, and not too often.
    async fn telling<T>(&self, calling: impl Future<Output = T>, mut told: watch::Receiver<String>) -> T {
        let mut calling = pin!(calling);
        loop {
            let news = async {
                tokio::time::sleep(PROGRESS_EVERY).await;
                told.changed().await
            };
            tokio::select! {
                biased;
                called = &mut calling => return called,
                Ok(()) = news => {}
            }
            let detail = told.borrow_and_update().clone();
            let _one_at_a_time = self.writing.lock().await;
            // When the turn was stopped, the next step finds that out.
            if self.log.append(EventKind::Warning, data::warning(PROGRESS, &detail)).await.is_err() {
                return calling.await;
            }
        }
    }

    async fn write(
        &self,
        step: i64,
        index: i64,
        call: &CallRecord,
        output: ToolOutput,
        begun: Instant,
    ) -> Result<(ToolOutput, i64), Stop> {
        loop {
            match self.engine.turns.tenants().begin(&self.claimed.actor).await {
                Ok(tx) => {
                    if let Some(seq) = self.commit_result(tx, step, index, call, &output, begun).await? {
                        return Ok((output, seq));
                    }
                }
                Err(error) => self.pause_for(error).await?,
            }
        }
    }

    /// Commits a result with its event; none: nothing was written and the caller tries again.
    async fn commit_result(
        &self,
        tx: shared::db::TenantTx,
        step: i64,
        index: i64,
        call: &CallRecord,
        output: &ToolOutput,
        begun: Instant,
    ) -> Result<Option<i64>, Stop> {
        let message_id = match tx.next_id("chat_message").await {
            Ok(id) => id,
            Err(error) => {
                self.pause_for(error).await?;
                return Ok(None);
            }
        };
        let elapsed_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        let result = ToolStep {
            step,
            index,
            call,
            result: &output.content,
            is_error: output.is_error,
            elapsed_ms,
            cache: output.cache.as_ref(),
        };
        let hit = output.cache.as_ref().filter(|facts| facts.hit);
        let told = data::ToolResult {
            id: &call.id,
            tool: &call.tool,
            cache_hit: hit.is_some(),
            elapsed_ms,
            is_error: output.is_error,
        };
        let _one_at_a_time = self.writing.lock().await;
        self.log.flushed().await.map_err(from_log)?;
        let warned = output.warning.as_ref();
        let told: Vec<_> = [
            warned.map(|warning| (EventKind::Warning, data::warning(&warning.code, &warning.detail))),
            hit.map(|hit| (EventKind::CacheHit, data::cache_hit(&call.tool, &hit.key, hit.ttl_remaining))),
            Some((EventKind::ToolResult, data::tool_result(told))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let count = i64::try_from(told.len()).unwrap_or(1);
        let first = self.log.take(count).await;
        let seq = first + count - 1;
        let events: Vec<_> =
            (first..).zip(told).map(|(seq, (kind, data))| NewEvent { seq, kind, data }).collect();
        let committed =
            self.engine.turns.commit_tool_step(&self.claimed, tx, &result, message_id, &events).await;
        let outcome = match committed {
            Ok(outcome) => Some(outcome),
            Err(error) if error.is_transient() => {
                self.engine.turns.step_result(&self.claimed, step, &call.id).await
            }
            // Refused, so rolled back: another call's result is the next event.
            Err(error) => {
                self.log.give_back(first);
                return Err(Stop::Failed(error));
            }
        };
        match outcome {
            Some(StepCommit::Written) => {
                self.log.committed(seq);
                Ok(Some(seq))
            }
            Some(StepCommit::Fenced) => Err(Stop::Fenced),
            None => {
                self.log.give_back(first);
                Ok(None)
            }
        }
    }

    /// Waits a moment when the database is away; anything else fails the attempt.
    async fn pause_for(&self, error: Error) -> Result<(), Stop> {
        if !error.is_transient() {
            return Err(Stop::Failed(error));
        }
        self.interruptible(tokio::time::sleep(std::time::Duration::from_millis(100))).await
    }

    async fn park(&self, step: i64, calls: Vec<&CallRecord>) -> Result<bool, Stop> {
        self.log.flushed().await.map_err(from_log)?;
        let count = i64::try_from(calls.len()).unwrap_or(0);
        let first = self.log.take(count).await;
        let expires_at = Utc::now() + self.engine.turns.settings().approval_timeout;
        let events = (first..).zip(&calls).map(|(seq, call)| NewEvent {
            seq,
            kind: EventKind::ApprovalRequired,
            data: data::approval_required(&call.id, &call.tool, &call.arguments, expires_at),
        });
        let parking = Parking { step, events: events.collect(), calls, expires_at };
        match self.engine.turns.park(&self.claimed, &parking).await {
            Ok(StepCommit::Written) => {
                self.log.committed(first + count - 1);
                Ok(true)
            }
            Ok(StepCommit::Fenced) => Err(Stop::Fenced),
            Err(error) => Err(Stop::Failed(error)),
        }
    }
}

/// What the database takes and a model can read: without U+0000, and not longer than [`MAX_RESULT_BYTES`].
fn storable(mut output: ToolOutput) -> ToolOutput {
    if output.content.contains('\0') {
        output.content = output.content.replace('\0', "\u{fffd}");
    }
    let length = output.content.len();
    if length > MAX_RESULT_BYTES {
        let mut end = MAX_RESULT_BYTES;
        while !output.content.is_char_boundary(end) {
            end -= 1;
        }
        output.content.truncate(end);
        output.content.push_str(&format!("\n[cut off after {end} of {length} bytes]"));
    }
    output
}

/// Of two reasons to stop, the one that allows less.
fn worse(former: Option<Stop>, stop: Stop) -> Stop {
    let rank = |stop: &Stop| match stop {
        Stop::Fenced => 4,
        Stop::Cancelled => 3,
        Stop::Fatal(_) => 2,
        Stop::Failed(_) => 1,
        Stop::HandOver => 0,
    };
    match former {
        Some(former) if rank(&former) >= rank(&stop) => former,
        _ => stop,
    }
}
