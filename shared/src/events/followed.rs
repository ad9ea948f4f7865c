//! One turn that somebody follows: how far its log was read, and the tail of what was read.
//!
//! Ids are dense except for jumps onto `resumed`. Any other gap is read again for up to a second, because a row that
//! comes later must not be passed over; an id that is missing longer was never given to a committed row (its writer
//! rolled back), and the log goes on without it. Both are counted.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared as SharedFuture, WeakShared},
};
use tokio::sync::Notify;

use super::{Event, EventKind, hub::Shared, read, store::Wanted};
use crate::ids::{TenantId, TurnId};

/// Bytes of one turn's tail.
const MAX_TAIL_BYTES: usize = 256 * 1024;
/// Events and bytes that a follower is given at once.
const MAX_GIVEN: usize = 256;
const MAX_GIVEN_BYTES: usize = 64 * 1024;
/// How long an id may be missing before the log goes on without it.
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// Events of a catch-up read, shared by all who wait for it.
pub(super) type Chunk = Arc<[Arc<Event>]>;
type Flight = SharedFuture<BoxFuture<'static, Chunk>>;

pub(super) struct Followed {
    pub(super) tenant: TenantId,
    pub(super) turn: TurnId,
    /// Wakes followers: there is more, or the turn ended.
    pub(super) changed: Notify,
    state: Mutex<State>,
}

struct State {
    /// Where the first follower wants to begin, until it is known that this is not beyond the log.
    begin: i64,
    /// Id up to which the log was read; none while that is not known.
    head: Option<i64>,
    /// All events after `tail_after` and up to `head`.
    tail: VecDeque<Arc<Event>>,
    tail_after: i64,
    tail_bytes: usize,
    in_line: bool,
    ended: bool,
    /// Nobody follows any more; nothing is kept.
    gone: bool,
    gap_since: Option<Instant>,
    looked_at: Option<Instant>,
    /// Catch-up reads under way, by where they begin.
    flights: Vec<(i64, WeakShared<BoxFuture<'static, Chunk>>)>,
}

/// What a follower is to do next.
pub(super) enum Step {
    Events(Vec<Arc<Event>>),
    Read(Flight),
    Wait,
    Ended,
}

/// What to do with a turn after a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing until the bell or the timer.
    Rest,
    /// Look again when this time has passed: an id is missing.
    Again(Duration),
}

impl Followed {
    pub(super) fn new(tenant: TenantId, turn: TurnId, begin: i64) -> Self {
        let state = State {
            begin,
            head: (begin == 0).then_some(0),
            tail: VecDeque::new(),
            tail_after: 0,
            tail_bytes: 0,
            in_line: false,
            ended: false,
            gone: false,
            gap_since: None,
            looked_at: None,
            flights: Vec::new(),
        };
        Self { tenant, turn, changed: Notify::new(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a follower with this cursor is to do. A catch-up read that somebody else began is shared.
    pub(super) fn serve(this: &Arc<Self>, hub: &Arc<Shared>, cursor: i64) -> Step {
        let mut state = this.state();
        let Some(head) = state.head else { return Step::Wait };
        if cursor >= head {
            return if state.ended { Step::Ended } else { Step::Wait };
        }
        if cursor >= state.tail_after {
            let start = state.tail.partition_point(|event| event.seq <= cursor);
            let mut bytes = 0;
            let fits = |event: &&Arc<Event>| {
                let first = bytes == 0;
                bytes += event.weight();
                first || bytes <= MAX_GIVEN_BYTES
            };
            return Step::Events(
                state.tail.range(start..).take(MAX_GIVEN).take_while(fits).cloned().collect(),
            );
        }
        // Reads begin at multiples, so that followers who are behind differently share them.
        let begin = cursor - cursor % read::CHUNK_STRIDE;
        state.flights.retain(|(_, flight)| flight.upgrade().is_some());
        if let Some(flight) =
            state.flights.iter().find(|(at, _)| *at == begin).and_then(|(_, flight)| flight.upgrade())
        {
            return Step::Read(flight);
        }
        let flight = read::chunk(Arc::clone(hub), Arc::clone(this), begin).boxed().shared();
        if let Some(weak) = flight.downgrade() {
            state.flights.push((begin, weak));
        }
        Step::Read(flight)
    }

    /// Whether a bell that speaks of this tail is news.
    pub(super) fn is_behind(&self, tail: i64) -> bool {
        self.state().head.is_none_or(|head| head < tail)
    }

    pub(super) fn was_looked_at_within(&self, time: Duration) -> bool {
        self.state().looked_at.is_some_and(|looked_at| looked_at.elapsed() < time)
    }

    /// Joins the line of turns to look at; false when it stands there, or when there is nothing to look for.
    pub(super) fn join_line(&self) -> bool {
        let mut state = self.state();
        !state.ended && !state.gone && !std::mem::replace(&mut state.in_line, true)
    }

    /// Whether it must first be seen where the log ends.
    pub(super) fn is_unknown(&self) -> bool {
        self.state().head.is_none()
    }

    /// The log ends here. A cursor from outside may lie beyond it. The event at the cursor is read too, because it
    /// may be the one that ends the turn.
    pub(super) fn begin(&self, tail: i64) {
        let mut state = self.state();
        let head = (state.begin.min(tail) - 1).max(0);
        (state.head, state.tail_after) = (Some(head), head);
    }

    /// What to read next.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { tenant: self.tenant, turn: self.turn, after: self.state().head.unwrap_or(0) }
    }

    /// Leaves the line; a bell from now on has the turn looked at once more.
    pub(super) fn leave_line(&self) {
        self.state().in_line = false;
    }

    /// Takes in what a look has found.
    pub(super) fn accept(&self, events: Vec<Event>, tail_bytes: &AtomicUsize) -> After {
        let mut after = After::Rest;
        {
            let mut state = self.state();
            if state.gone {
                return after;
            }
            state.looked_at = Some(Instant::now());
            let before = state.tail_bytes;
            for event in events {
                if let Err(patience) = state.check_gap(&event, self.turn) {
                    after = After::Again(patience);
                    break;
                }
                state.head = Some(event.seq);
                state.ended = event.kind == EventKind::Done;
                state.tail_bytes += event.weight();
                state.tail.push_back(Arc::new(event));
            }
            state.trim();
            account(tail_bytes, before, state.tail_bytes);
        }
        self.changed.notify_waiters();
        after
    }

    /// Puts the events of a catch-up read, which holds all from after `begin`, before the tail if there is room.
    /// Answers those that followers may have: no further than the log was checked.
    pub(super) fn extend_back(
        &self,
        begin: i64,
        mut events: Vec<Arc<Event>>,
        tail_bytes: &AtomicUsize,
    ) -> Chunk {
        let mut state = self.state();
        let head = state.head.unwrap_or(0);
        events.truncate(events.partition_point(|event| event.seq <= head));
        let joins =
            begin < state.tail_after && events.last().is_some_and(|last| last.seq >= state.tail_after);
        if joins && !state.gone {
            let older = &events[..events.partition_point(|event| event.seq <= state.tail_after)];
            let bytes: usize = older.iter().map(|event| event.weight()).sum();
            if state.tail_bytes + bytes <= MAX_TAIL_BYTES {
                older.iter().rev().for_each(|event| state.tail.push_front(Arc::clone(event)));
                state.tail_after = begin;
                state.tail_bytes += bytes;
                tail_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        events.into()
    }

    /// Drops the tail, for memory or because it cannot be trusted; followers read from the table.
    pub(super) fn drop_tail(&self, tail_bytes: &AtomicUsize) {
        let mut state = self.state();
        let before = state.tail_bytes;
        state.tail = VecDeque::new();
        state.tail_bytes = 0;
        state.tail_after = state.head.unwrap_or(0);
        account(tail_bytes, before, 0);
    }

    pub(super) fn tail_bytes(&self) -> usize {
        self.state().tail_bytes
    }

    /// The last follower left.
    pub(super) fn forget(&self, tail_bytes: &AtomicUsize) {
        self.drop_tail(tail_bytes);
        self.state().gone = true;
    }
}

impl State {
    /// Whether the event may follow; else how long to wait before looking again.
    fn check_gap(&mut self, event: &Event, turn: TurnId) -> Result<(), Duration> {
        let head = self.head.unwrap_or(0);
        if event.seq == head + 1 || event.kind == EventKind::Resumed {
            self.gap_since = None;
            return Ok(());
        }
        match self.gap_since {
            None => {
                metrics::counter!("event_gaps_total").increment(1);
                self.gap_since = Some(Instant::now());
                Err(Duration::from_millis(20))
            }
            Some(since) if since.elapsed() < GAP_PATIENCE => {
                Err(since.elapsed().clamp(Duration::from_millis(20), Duration::from_millis(200)))
            }
            Some(_) => {
                metrics::counter!("event_gaps_passed_over_total").increment(1);
                tracing::error!(turn_id = %turn, after = head, next = event.seq, "event ids are missing; going on without them");
                self.gap_since = None;
                Ok(())
            }
        }
    }

    /// Drops the oldest events of a tail that is too long.
    fn trim(&mut self) {
        while self.tail_bytes > MAX_TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.weight();
            self.tail_after = oldest.seq;
        }
    }
}

fn account(total: &AtomicUsize, before: usize, now: usize) {
    if now >= before {
        total.fetch_add(now - before, Ordering::Relaxed);
    } else {
        total.fetch_sub(before - now, Ordering::Relaxed);
    }
}
