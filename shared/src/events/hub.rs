//! The reading end: everybody in this process who follows a turn or waits for a conversation's next.
//!
//! A follower is a cursor and nothing else: no task, no buffer. The hub reads once for all of them, into a bounded tail
//! for each turn; who lags behind the tail reads chunks from the table, so that resume, late join, a slow reader and a
//! lost bell are one code path. The bell only says when to look. Interest is registered before the first look.
//!
//! Invariant: what followers are given is the log, in order, each event once, and nothing before it is durable.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};

use super::{
    Event,
    followed::{Followed, Step},
    read,
};
use crate::{
    bell::Bell,
    ids::{ConversationId, TenantId, TurnId},
};

/// Statements at a time that read for followers who are behind.
const CATCH_UP_CONNECTIONS: usize = 4;
/// A new follower of a turn that was looked at longer ago has it looked at again.
const FRESH: Duration = Duration::from_millis(250);

/// Reads for all followers of a process. The tasks end with the last clone; followers then wait for ever.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// What the hub's tasks and its followers share.
pub(super) struct Shared {
    pub(super) engine: PgPool,
    turns: Mutex<HashMap<(TenantId, TurnId), Entry>>,
    conversations: Mutex<HashMap<(TenantId, ConversationId), Watched>>,
    line: Mutex<Line>,
    pub(super) wake: Notify,
    pub(super) catch_up: Semaphore,
    /// Bytes of all tails.
    pub(super) tail_bytes: AtomicUsize,
    /// Statements that read the log.
    pub(super) reads: AtomicUsize,
    trouble_since: Mutex<Option<Instant>>,
}

struct Entry {
    followers: usize,
    followed: Arc<Followed>,
}

struct Watched {
    watchers: usize,
    latest: watch::Sender<i64>,
}

/// What to look at next.
#[derive(Default)]
struct Line {
    turns: Vec<Arc<Followed>>,
    conversations: Vec<(TenantId, ConversationId)>,
}

struct Tasks {
    handles: [JoinHandle<()>; 2],
    /// Kept, because the bell ends with its last clone.
    _bell: Bell,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.abort();
        }
    }
}

/// Somebody who follows a turn.
pub struct Follower {
    shared: Arc<Shared>,
    followed: Arc<Followed>,
    cursor: i64,
}

/// Somebody who waits for the next turn of a conversation.
pub struct TurnPosted {
    shared: Arc<Shared>,
    key: (TenantId, ConversationId),
    latest: watch::Receiver<i64>,
}

impl Hub {
    /// Starts the reading task over the engine's pool, and the one that listens. The bell must hear
    /// [`Channel::Events`](crate::bell::Channel) and `Turns`.
    #[must_use]
    pub fn start(engine: PgPool, bell: Bell) -> Self {
        let hearing = bell.subscribe();
        let shared = Arc::new(Shared {
            engine,
            turns: Mutex::default(),
            conversations: Mutex::default(),
            line: Mutex::default(),
            wake: Notify::new(),
            catch_up: Semaphore::new(CATCH_UP_CONNECTIONS),
            tail_bytes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            trouble_since: Mutex::default(),
        });
        let reading = tokio::spawn(read::run(Arc::clone(&shared)));
        let listening = tokio::spawn(read::hear(Arc::clone(&shared), hearing));
        Self { shared, _tasks: Arc::new(Tasks { handles: [reading, listening], _bell: bell }) }
    }

    /// Follows a turn from after this event (0 for all). The turn need not exist yet. Authorise first: the hub reads
    /// as the engine.
    #[must_use]
    pub fn follow(&self, tenant: TenantId, turn: TurnId, after_seq: i64) -> Follower {
        let cursor = after_seq.max(0);
        let followed = {
            let mut turns = lock(&self.shared.turns);
            let entry = turns.entry((tenant, turn)).or_insert_with(|| Entry {
                followers: 0,
                followed: Arc::new(Followed::new(tenant, turn, cursor)),
            });
            entry.followers += 1;
            Arc::clone(&entry.followed)
        };
        if !followed.was_looked_at_within(FRESH) {
            self.shared.line_up(&followed);
        }
        Follower { shared: Arc::clone(&self.shared), followed, cursor }
    }

    /// Watches for turns posted to a conversation. Authorise first.
    #[must_use]
    pub fn turn_posted(&self, tenant: TenantId, conversation: ConversationId) -> TurnPosted {
        let key = (tenant, conversation);
        let latest = {
            let mut conversations = lock(&self.shared.conversations);
            let watched = conversations
                .entry(key)
                .or_insert_with(|| Watched { watchers: 0, latest: watch::Sender::new(0) });
            watched.watchers += 1;
            watched.latest.subscribe()
        };
        self.shared.line_up_conversations([key]);
        TurnPosted { shared: Arc::clone(&self.shared), key, latest }
    }

    /// Since when the database has not answered the hub, if it does not. Streams hold out for a while, then close.
    #[must_use]
    pub fn trouble_since(&self) -> Option<Instant> {
        *lock(&self.shared.trouble_since)
    }

    /// Bytes of the tails that are kept for followers.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.shared.tail_bytes.load(Ordering::Relaxed)
    }

    /// Statements that have read the log since the start.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::Relaxed)
    }
}

impl Follower {
    /// The next events in order; waits for them. Empty when there are no more: after `done` was given (or if the log
    /// was removed). Cancel-safe: what was not answered comes again.
    pub async fn next(&mut self) -> Vec<Arc<Event>> {
        loop {
            let changed = self.followed.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let events = match Followed::serve(&self.followed, &self.shared, self.cursor) {
                Step::Events(events) => events,
                Step::Ended => return Vec::new(),
                Step::Wait => {
                    changed.await;
                    continue;
                }
                Step::Read(flight) => {
                    let chunk = flight.await;
                    let start = chunk.partition_point(|event| event.seq <= self.cursor);
                    chunk[start..].to_vec()
                }
            };
            match events.last() {
                Some(last) => self.cursor = last.seq,
                // Only a chunk can be empty here: what lay behind the tail is no longer in the table.
                None => {
                    tracing::warn!(turn_id = %self.followed.turn, after = self.cursor, "the log was removed under a follower")
                }
            }
            return events;
        }
    }

    /// Id of the last event given.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut turns = lock(&self.shared.turns);
        let key = (self.followed.tenant, self.followed.turn);
        if let Some(entry) = turns.get_mut(&key) {
            entry.followers -= 1;
            if entry.followers == 0 {
                turns.remove(&key);
                self.followed.forget(&self.shared.tail_bytes);
            }
        }
    }
}

impl TurnPosted {
    /// The latest turn number known; 0 before the first look.
    #[must_use]
    pub fn latest(&self) -> i64 {
        *self.latest.borrow()
    }

    /// Waits until the conversation's latest turn is above `turn_no`, and answers its number. Cancel-safe.
    pub async fn after(&mut self, turn_no: i64) -> i64 {
        // Copied out at once: the watch's own value holds a lock, which must not be held while waiting.
        let latest = self.latest.wait_for(|latest| *latest > turn_no).await.map(|latest| *latest);
        match latest {
            Ok(latest) => latest,
            // The sender lives in the map for as long as this watcher is counted there.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for TurnPosted {
    fn drop(&mut self) {
        let mut conversations = lock(&self.shared.conversations);
        if let Some(watched) = conversations.get_mut(&self.key) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                conversations.remove(&self.key);
            }
        }
    }
}

impl Shared {
    /// Has a turn looked at, unless it stands in line.
    pub(super) fn line_up(&self, followed: &Arc<Followed>) {
        if followed.join_line() {
            lock(&self.line).turns.push(Arc::clone(followed));
            self.wake.notify_one();
        }
    }

    pub(super) fn line_up_conversations(&self, keys: impl IntoIterator<Item = (TenantId, ConversationId)>) {
        let mut line = lock(&self.line);
        line.conversations.extend(keys);
        if !line.conversations.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Up to `max` turns out of the line.
    pub(super) fn take_turns(&self, max: usize) -> Vec<Arc<Followed>> {
        let mut line = lock(&self.line);
        let n = line.turns.len().min(max);
        line.turns.drain(..n).collect()
    }

    pub(super) fn take_conversations(&self) -> Vec<(TenantId, ConversationId)> {
        let mut taken = std::mem::take(&mut lock(&self.line).conversations);
        taken.sort_unstable();
        taken.dedup();
        taken
    }

    /// The bell says that these logs grew.
    pub(super) fn grown(&self, tails: &[(TenantId, TurnId, i64)]) {
        let turns = lock(&self.turns);
        if turns.is_empty() {
            return;
        }
        for (tenant, turn, tail) in tails {
            if let Some(entry) = turns.get(&(*tenant, *turn))
                && entry.followed.is_behind(*tail)
            {
                self.line_up(&entry.followed);
            }
        }
    }

    /// Tells the watchers of a conversation of its latest turn.
    pub(super) fn posted(&self, latest: &[(TenantId, ConversationId, i64)]) {
        let conversations = lock(&self.conversations);
        for (tenant, conversation, turn_no) in latest {
            if let Some(watched) = conversations.get(&(*tenant, *conversation)) {
                watched.latest.send_if_modified(|known| {
                    let is_news = turn_no > known;
                    *known = (*known).max(*turn_no);
                    is_news
                });
            }
        }
    }

    pub(super) fn all_turns(&self) -> Vec<Arc<Followed>> {
        lock(&self.turns).values().map(|entry| Arc::clone(&entry.followed)).collect()
    }

    pub(super) fn all_conversations(&self) -> Vec<(TenantId, ConversationId)> {
        lock(&self.conversations).keys().copied().collect()
    }

    /// A statement that began at `started` has failed. Answers whether this is the first.
    pub(super) fn in_trouble(&self, started: Instant) -> bool {
        let mut since = lock(&self.trouble_since);
        let is_first = since.is_none();
        since.get_or_insert(started);
        is_first
    }

    pub(super) fn out_of_trouble(&self) {
        *lock(&self.trouble_since) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
