//! The one judge of every end-to-end and chaos run. It reads the database, what clients were told and what the fakes
//! logged, and knows nothing of how the product works inside; each rule is numbered as in the design's last section.
//!
//! (1) every accepted turn has exactly one terminal event and nothing after it; (2) event ids ascend, dense within an
//! attempt, jumping only onto `resumed`; (3) what any client saw equals the log, byte for byte; (4) at most one running
//! turn per conversation; (5) every tool call has exactly one result; (6) every built-in write took effect exactly once,
//! every outside one at most once or was reported as unknown; (7) settled model calls equal what the provider reported,
//! the others are marked estimated; (8) progress; (9) nothing of one tenant reaches another; (10) nothing stays with a
//! dead worker or in a slot without an owner.

mod log;
mod store;
#[cfg(test)]
mod tests;
mod usage;
mod writes;

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Result;
use sqlx::PgPool;

pub use self::store::{
    CallRow, EventRow, ItemRow, Picture, SessionRow, SlotRow, StepRow, TurnRow, WorkerRow,
};
use crate::client::Ledger;

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule's number.
    pub rule: u8,
    /// What is wrong, with the ids needed to look.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) {}", self.rule, self.what)
    }
}

/// What a model stand-in says it did.
#[derive(Debug, Clone, Default)]
pub struct ProviderLog {
    /// Input and output tokens of every reply that was sent in whole or in part, in any order.
    pub reported: Vec<(i64, i64)>,
}

/// A call that an outside tool received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideCall {
    /// The idempotency key that came with it.
    pub key: String,
    /// The tool's name.
    pub tool: String,
}

/// What this run in particular must have come to.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// The least share of accepted turns that succeeded.
    pub succeeded: f64,
    /// Most takeovers over all turns.
    pub takeovers_at_most: Option<i64>,
    /// Least takeovers over all turns, to know that the fault hit something.
    pub takeovers_at_least: i64,
    /// The model stand-in's log, when one was used; the offline model has none.
    pub provider: Option<ProviderLog>,
    /// What outside tools received.
    pub outside: Vec<OutsideCall>,
    /// Names of outside tools that may run again after a crash.
    pub outside_repeatable: Vec<String>,
    /// How long unfinished work may still take before the rules are judged.
    pub settle_within: Duration,
    /// Turns that are parked or otherwise meant to be unfinished at the end.
    pub unfinished: Vec<String>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            succeeded: 1.0,
            takeovers_at_most: None,
            takeovers_at_least: 0,
            provider: None,
            outside: Vec::new(),
            outside_repeatable: Vec::new(),
            settle_within: Duration::from_secs(10),
            unfinished: Vec::new(),
        }
    }
}

/// The judge.
pub struct Oracle;

impl Oracle {
    /// Waits until no turn is unfinished (within the expected time); gives the picture to be judged. What fakes logged
    /// must be read after this.
    ///
    /// # Errors
    /// The database's.
    pub async fn settle(admin: &PgPool, expected: &Expectations) -> Result<Picture> {
        let deadline = tokio::time::Instant::now() + expected.settle_within;
        loop {
            // The database may be on its way back.
            let picture = Picture::of(admin).await;
            let open = picture.as_ref().map_or(1, |picture| unsettled(picture, expected));
            if open == 0 || tokio::time::Instant::now() > deadline {
                return Ok(picture?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Judges one picture.
    #[must_use]
    pub fn judge(picture: &Picture, ledger: &Ledger, expected: &Expectations) -> Vec<Violation> {
        let mut found = Vec::new();
        log::terminal_events(picture, ledger, expected, &mut found);
        log::event_ids(picture, &mut found);
        log::transcripts(picture, ledger, &mut found);
        log::replies(picture, &mut found);
        one_at_a_time(picture, &mut found);
        writes::tool_results(picture, &mut found);
        writes::built_in(picture, &mut found);
        writes::outside(picture, expected, &mut found);
        usage::calls(picture, expected, &mut found);
        usage::totals(picture, &mut found);
        progress(picture, ledger, expected, &mut found);
        tenants_apart(picture, ledger, &mut found);
        slots_and_workers(picture, expected, &mut found);
        found
    }
}

fn unsettled(picture: &Picture, expected: &Expectations) -> usize {
    let turns = picture
        .turns
        .iter()
        .filter(|turn| turn.finished_at.is_none() && !expected.unfinished.contains(&turn.id.to_string()));
    // A call whose worker died is settled by whoever cleans up after it, which may be a moment later.
    let calls = picture.calls.values().flatten().filter(|call| call.settled_at.is_none() && !call.estimated);
    // What a worker that lost its turn settles late finds its way into the turn's totals a moment after.
    let totals =
        picture.turns.iter().filter(|turn| turn.finished_at.is_some() && !usage::adds_up(picture, turn));
    turns.count() + calls.count() + totals.count()
}

/// (4) Turns of a conversation run one after the other, in the order of their numbers.
fn one_at_a_time(picture: &Picture, found: &mut Vec<Violation>) {
    let mut conversations: BTreeMap<_, Vec<&TurnRow>> = BTreeMap::new();
    for turn in &picture.turns {
        conversations.entry((turn.tenant_id, turn.conversation_id)).or_default().push(turn);
    }
    for ((_, conversation), turns) in conversations {
        let ran: Vec<_> = turns.iter().filter(|turn| turn.started_at.is_some()).collect();
        for pair in ran.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.finished_at.is_none() || second.started_at < first.finished_at {
                found.push(Violation {
                    rule: 4,
                    what: format!(
                        "conversation {conversation}: turn {} started at {:?}, before turn {} ended at {:?}",
                        second.id, second.started_at, first.id, first.finished_at
                    ),
                });
            }
        }
        for (expected, turn) in (1..).zip(&turns) {
            if turn.turn_no != expected {
                found.push(Violation {
                    rule: 4,
                    what: format!(
                        "conversation {conversation}: turn {} has number {}",
                        turn.id, turn.turn_no
                    ),
                });
            }
        }
    }
}

/// (8) Enough of them succeeded.
fn progress(picture: &Picture, ledger: &Ledger, expected: &Expectations, found: &mut Vec<Violation>) {
    let accepted = ledger.accepted();
    let succeeded = accepted
        .iter()
        .filter(|accepted| {
            picture.turns.iter().any(|turn| turn.id.to_string() == accepted.job && turn.state == "succeeded")
        })
        .count();
    #[expect(clippy::cast_precision_loss, reason = "counts of turns are small")]
    let share = if accepted.is_empty() { 1.0 } else { succeeded as f64 / accepted.len() as f64 };
    if share < expected.succeeded {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for turn in &picture.turns {
            *states.entry(&turn.state).or_default() += 1;
        }
        found.push(Violation {
            rule: 8,
            what: format!(
                "{succeeded} of {} accepted turns succeeded, expected a share of {}; states: {states:?}",
                accepted.len(),
                expected.succeeded
            ),
        });
    }
    let takeovers: i64 = picture.turns.iter().map(|turn| turn.takeovers_total).sum();
    if expected.takeovers_at_most.is_some_and(|most| takeovers > most)
        || takeovers < expected.takeovers_at_least
    {
        found.push(Violation {
            rule: 8,
            what: format!(
                "{takeovers} takeovers, expected {} to {:?}",
                expected.takeovers_at_least, expected.takeovers_at_most
            ),
        });
    }
}

/// (9) Neither a tenant's name, which its messages carry, nor the id of one of its turns is in an answer or stream of
/// another tenant.
fn tenants_apart(picture: &Picture, ledger: &Ledger, found: &mut Vec<Violation>) {
    let accepted = ledger.accepted();
    let mut heard: BTreeMap<String, Vec<String>> = ledger
        .answers()
        .into_iter()
        .map(|(tenant, answers)| (tenant, answers.into_iter().collect()))
        .collect();
    for transcript in ledger.transcripts() {
        let text = String::from_utf8_lossy(&transcript.bytes()).into_owned();
        heard.entry(transcript.tenant).or_default().push(text);
    }
    if heard.len() < 2 {
        return;
    }
    let names: Vec<String> = heard.keys().cloned().collect();
    for (tenant, texts) in &heard {
        let foreign: Vec<&str> = names
            .iter()
            .filter(|name| *name != tenant)
            .map(String::as_str)
            .chain(accepted.iter().filter(|turn| turn.tenant != *tenant).map(|turn| turn.job.as_str()))
            .collect();
        for text in texts {
            if let Some(foreign) = foreign.iter().find(|foreign| text.contains(**foreign)) {
                let start: String = text.chars().take(200).collect();
                found.push(Violation { rule: 9, what: format!("{tenant} was told of {foreign}: {start}") });
            }
        }
    }
    for turn in accepted {
        let owners: Vec<_> = picture.turns.iter().filter(|row| row.id.to_string() == turn.job).collect();
        if owners.len() > 1 {
            found.push(Violation {
                rule: 9,
                what: format!("the job {} is in {} tenants", turn.job, owners.len()),
            });
        }
    }
}

/// (10) What is held is held by somebody who lives, and what waits waits for something.
fn slots_and_workers(picture: &Picture, expected: &Expectations, found: &mut Vec<Violation>) {
    let mut say = |what: String| found.push(Violation { rule: 10, what });
    for turn in &picture.turns {
        let holder = turn.process_id.filter(|_| turn.state == "running");
        if let Some(process) = holder
            && picture.workers.iter().all(|worker| worker.id != process || worker.dead)
        {
            say(format!("turn {} runs in process {process}, which is dead or unknown", turn.id));
        }
        if let Some(slot) = turn.slot
            && !picture
                .slots
                .iter()
                .any(|row| row.tenant_id == turn.tenant_id && row.n == slot && row.turn_id == Some(turn.id))
        {
            say(format!("turn {} holds slot {slot}, which does not know it", turn.id));
        }
        if matches!(turn.state.as_str(), "queued" | "waiting" | "ready")
            && !expected.unfinished.contains(&turn.id.to_string())
        {
            say(format!("turn {} is stranded as {}", turn.id, turn.state));
        }
    }
    for slot in &picture.slots {
        let Some(held) = slot.turn_id else { continue };
        let holder = picture.turns.iter().find(|turn| turn.id == held && turn.tenant_id == slot.tenant_id);
        if holder.and_then(|turn| turn.slot) != Some(slot.n) {
            say(format!(
                "slot {} is held by turn {held}, which is {:?}",
                slot.n,
                holder.map(|turn| &turn.state)
            ));
        }
    }
}
