//! The hub's tasks: one reads for all turns that stand in line, one statement at a time; one listens and keeps the slow
//! timer. Catch-up reads for those who are behind the tail run apart, a few at a time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use super::{
    followed::{After, Chunk, Followed},
    hub::Shared,
    store::{self, Wanted},
};
use crate::{
    bell::{Heard, Hearing},
    error::{Error, Result},
    events::Event,
};

/// How far apart catch-up reads begin, in ids.
pub(super) const CHUNK_STRIDE: i64 = 256;
/// Rows of a catch-up read: from the multiple below a cursor, this many always reach beyond the cursor.
const CHUNK_ROWS: i64 = 2 * CHUNK_STRIDE;
/// Turns of one statement.
const MAX_TURNS: usize = 2000;
/// Rows of one statement, shared out over its turns.
const ROWS: usize = 4096;
/// Bytes of all tails; above, the longest are dropped until a quarter is free.
const MAX_TAIL_BYTES: usize = 64 * 1024 * 1024;
/// How often followed turns are looked at without a bell.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A turn that was looked at within this time before the timer is left out of that round.
const JUST_NOW: Duration = Duration::from_secs(1);
/// How long a statement may take before it counts as trouble.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        loop {
            let turns = shared.take_turns(MAX_TURNS);
            let conversations = shared.take_conversations();
            if turns.is_empty() && conversations.is_empty() {
                break;
            }
            if !turns.is_empty() {
                look(&shared, &turns).await;
            }
            for keys in conversations.chunks(MAX_TURNS) {
                let latest = persist(&shared, || store::latest_turns(&shared.engine, keys)).await;
                shared.posted(&latest);
            }
        }
    }
}

async fn look(shared: &Arc<Shared>, turns: &[Arc<Followed>]) {
    let wanted: Vec<Wanted> = turns.iter().map(|turn| turn.leave_line()).collect();
    let limit = (ROWS / wanted.len()).clamp(16, 256);
    let rows = persist(shared, || store::read(&shared.engine, &wanted, limit as i64)).await;
    shared.reads.fetch_add(1, Ordering::Relaxed);
    let mut found: Vec<Vec<Event>> = Vec::new();
    found.resize_with(turns.len(), Vec::new);
    for (position, event) in rows {
        found[position].push(event);
    }
    for (turn, events) in turns.iter().zip(found) {
        let is_full = events.len() >= limit;
        match turn.accept(events, &shared.tail_bytes) {
            After::Rest if is_full => shared.line_up(turn),
            After::Rest => {}
            After::Again(wait) => {
                let (shared, turn) = (Arc::clone(shared), Arc::clone(turn));
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    shared.line_up(&turn);
                });
            }
        }
    }
    if shared.tail_bytes.load(Ordering::Relaxed) > MAX_TAIL_BYTES {
        evict(shared);
    }
}

/// Drops tails, the longest first.
fn evict(shared: &Shared) {
    let mut turns: Vec<(usize, Arc<Followed>)> =
        shared.all_turns().into_iter().map(|turn| (turn.tail_bytes(), turn)).collect();
    turns.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    for (_, turn) in turns {
        if shared.tail_bytes.load(Ordering::Relaxed) <= MAX_TAIL_BYTES / 4 * 3 {
            break;
        }
        turn.drop_tail(&shared.tail_bytes);
    }
}

/// Asks until the database answers; meanwhile the hub says that it is in trouble.
async fn persist<T, F>(shared: &Shared, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T>>,
{
    let mut backoff = Duration::from_millis(20);
    loop {
        let started = Instant::now();
        let error = match tokio::time::timeout(PATIENCE, ask()).await {
            Ok(Ok(answer)) => {
                shared.out_of_trouble();
                return answer;
            }
            Ok(Err(error)) => error,
            Err(_) => Error::internal("no answer within 5 s"),
        };
        if shared.in_trouble(started) {
            tracing::warn!(%error, source = ?error.database(), "cannot read events; trying again");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(Duration::from_secs(1));
    }
}

/// All events after `begin` that were read before, at most [`CHUNK_ROWS`]. Shared by all who wait for it.
pub(super) async fn chunk(shared: Arc<Shared>, followed: Arc<Followed>, begin: i64) -> Chunk {
    let wanted =
        [Wanted { tenant: followed.tenant, turn: followed.turn, after: begin, not_beyond_tail: false }];
    let rows = {
        let _permit = shared.catch_up.acquire().await;
        persist(&shared, || store::read(&shared.engine, &wanted, CHUNK_ROWS)).await
    };
    shared.reads.fetch_add(1, Ordering::Relaxed);
    followed.extend_back(
        begin,
        rows.into_iter().map(|(_, event)| Arc::new(event)).collect(),
        &shared.tail_bytes,
    )
}

/// Listens to the bell and keeps the slow timer.
pub(super) async fn hear(shared: Arc<Shared>, mut hearing: Hearing) {
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = hearing.next() => match heard {
                Heard::Events(tails) => shared.grown(&tails),
                Heard::Turns(latest) => shared.posted(&latest),
                Heard::Reconnected => {
                    for turn in shared.all_turns() {
                        turn.drop_tail(&shared.tail_bytes);
                        shared.line_up(&turn);
                    }
                    shared.line_up_conversations(shared.all_conversations());
                }
                Heard::Work | Heard::Cancel(_) => {}
            },
            _ = timer.tick() => {
                for turn in shared.all_turns() {
                    // What the bell has just had looked at need not be.
                    if !turn.was_looked_at_within(JUST_NOW) {
                        shared.line_up(&turn);
                    }
                }
                shared.line_up_conversations(shared.all_conversations());
            }
        }
    }
}
