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
    db::OwnConnection,
    error::{Error, Result},
    events::Event,
    ids::{ConversationId, TenantId},
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
    let mut connection = OwnConnection::like(&shared.engine);
    loop {
        shared.wake.notified().await;
        loop {
            let turns = shared.take_turns(MAX_TURNS);
            let conversations = shared.take_conversations();
            if turns.is_empty() && conversations.is_empty() {
                break;
            }
            if !turns.is_empty() {
                look(&shared, &mut connection, &turns).await;
            }
            for keys in conversations.chunks(MAX_TURNS) {
                shared.posted(&latest_turns(&shared, keys).await);
            }
        }
    }
}

async fn look(shared: &Arc<Shared>, connection: &mut OwnConnection, turns: &[Arc<Followed>]) {
    turns.iter().for_each(|turn| turn.leave_line());
    let unknown: Vec<&Arc<Followed>> = turns.iter().filter(|turn| turn.is_unknown()).collect();
    if !unknown.is_empty() {
        let wanted: Vec<Wanted> = unknown.iter().map(|turn| turn.wanted()).collect();
        let tails = tails(shared, &wanted).await;
        unknown.iter().zip(tails).for_each(|(turn, tail)| turn.begin(tail));
    }
    let wanted: Vec<Wanted> = turns.iter().map(|turn| turn.wanted()).collect();
    let limit = (ROWS / wanted.len()).clamp(16, 256);
    let rows = next_events(shared, connection, &wanted, limit as i64).await;
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

/// Asks again and again until the database answers; meanwhile the hub says that it is in trouble.
struct Asking<'a> {
    shared: &'a Shared,
    backoff: Duration,
}

impl<'a> Asking<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, backoff: Duration::from_millis(20) }
    }

    /// One try. Without an answer it waits a while before the next.
    async fn once<T>(&mut self, ask: impl Future<Output = Result<T>>) -> Option<T> {
        let started = Instant::now();
        let error = match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(answer)) => {
                self.shared.out_of_trouble();
                return Some(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::internal("no answer within 5 s"),
        };
        if self.shared.in_trouble(started) {
            tracing::warn!(%error, source = ?error.database(), "cannot read events; trying again");
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(Duration::from_secs(1));
        None
    }
}

async fn next_events(
    shared: &Shared,
    connection: &mut OwnConnection,
    wanted: &[Wanted],
    limit: i64,
) -> Vec<(usize, Event)> {
    let mut asking = Asking::new(shared);
    loop {
        let ask = async {
            let mut engine = connection.take().await?;
            let rows = store::read(&mut engine, wanted, limit).await?;
            connection.keep(engine);
            Ok(rows)
        };
        if let Some(rows) = asking.once(ask).await {
            return rows;
        }
    }
}

async fn tails(shared: &Shared, wanted: &[Wanted]) -> Vec<i64> {
    let mut asking = Asking::new(shared);
    loop {
        if let Some(tails) = asking.once(store::tails(&shared.engine, wanted)).await {
            return tails;
        }
    }
}

async fn latest_turns(
    shared: &Shared,
    keys: &[(TenantId, ConversationId)],
) -> Vec<(TenantId, ConversationId, i64)> {
    let mut asking = Asking::new(shared);
    loop {
        if let Some(latest) = asking.once(store::latest_turns(&shared.engine, keys)).await {
            return latest;
        }
    }
}

/// All events after `begin` that were read before, at most [`CHUNK_ROWS`]. Shared by all who wait for it.
pub(super) async fn chunk(shared: Arc<Shared>, followed: Arc<Followed>, begin: i64) -> Chunk {
    let wanted = [Wanted { tenant: followed.tenant, turn: followed.turn, after: begin }];
    let mut asking = Asking::new(&shared);
    let permit = shared.catch_up.acquire().await;
    let rows = loop {
        if let Some(rows) = asking.once(store::read(&shared.engine, &wanted, CHUNK_ROWS)).await {
            break rows;
        }
    };
    drop(permit);
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
                Heard::Work
                | Heard::Cancel(_)
                | Heard::Changes(_)
                | Heard::Cache(_)
                | Heard::Contexts(_)
                | Heard::Deliveries
                | Heard::Switches => {}
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
