//! The writing end: what a turn's attempt appends to, and the state that it shares with the appending task.
//!
//! Nothing waits for a timer: an event that comes while no flush is under way is flushed at once, and what comes during
//! a flush goes into the next, so that a lone token is quick and load makes batches.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    bell::{Bell, Ring},
    error::Error,
    events::{EventKind, Lease, admit, append},
    ids::TurnId,
};

/// Bytes of one turn that may wait to be written; [`TurnLog::append`] waits beyond.
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// What a row costs beside its data.
const ROW_BYTES: usize = 64;

/// Why a turn's log takes no more.
#[derive(Debug)]
pub enum Stopped {
    /// Another attempt holds the turn's lease: stop, and write nothing more anywhere.
    Fenced,
    /// The database refuses an event of this turn, or it is too large.
    Refused(Error),
    /// The log was closed: the process is ending.
    Closed,
}

/// Appends for all running turns of a process. The tasks end, and every [`TurnLog`] with them, with the last clone.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// One attempt's end of the log. All methods take `&self`: tools that run at the same time may append. Dropping it
/// forgets what was not flushed.
pub struct TurnLog {
    shared: Arc<Shared>,
    turn: Arc<OpenTurn>,
}

/// What the appending task and the turns share.
pub(super) struct Shared {
    pub(super) bell: Bell,
    dirty: Mutex<VecDeque<Arc<OpenTurn>>>,
    pub(super) wake: Notify,
    open: Mutex<HashMap<TurnId, Weak<OpenTurn>>>,
}

/// One attempt that appends.
pub(super) struct OpenTurn {
    pub(super) lease: Lease,
    /// When the turn was created, by this process's monotonic clock, as milliseconds before `opened`.
    elapsed_ms: i64,
    opened: Instant,
    state: Mutex<TurnState>,
    /// Rows became durable, or the log stopped.
    changed: Notify,
    /// Cancel was asked, or the log stopped.
    signal: Notify,
}

/// One event that is not yet durable.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) kind: EventKind,
    pub(super) data: String,
}

struct TurnState {
    next_seq: i64,
    /// Waiting rows in order. The rows of a flush under way are with the appending task.
    queue: VecDeque<Row>,
    /// Bytes of all rows that are not durable.
    waiting_bytes: usize,
    /// Id of the last row appended, and of the last that is durable.
    appended: i64,
    durable: i64,
    /// Whether the turn stands in the line of the appending task.
    dirty: bool,
    cancelled: bool,
    stopped: Option<Stop>,
}

/// [`Stopped`], to be answered to everyone who asks.
#[derive(Clone)]
pub(super) enum Stop {
    Fenced,
    Refused(Arc<str>),
    Closed,
}

impl From<Stop> for Stopped {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fenced => Self::Fenced,
            Stop::Refused(why) => Self::Refused(Error::internal(&*why)),
            Stop::Closed => Self::Closed,
        }
    }
}

struct Tasks {
    shared: Arc<Shared>,
    handles: [JoinHandle<()>; 2],
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.abort();
        }
        for turn in self.shared.open_turns() {
            turn.stop(Stop::Closed);
        }
    }
}

impl EventLog {
    /// Starts the appending task over the engine's pool, and the one that listens for cancels.
    #[must_use]
    pub fn start(engine: PgPool, bell: Bell) -> Self {
        let hearing = bell.subscribe();
        let shared =
            Arc::new(Shared { bell, dirty: Mutex::default(), wake: Notify::new(), open: Mutex::default() });
        let appending = tokio::spawn(append::run(Arc::clone(&shared), engine.clone()));
        let listening = tokio::spawn(append::hear(Arc::clone(&shared), engine, hearing));
        let tasks = Tasks { shared: Arc::clone(&shared), handles: [appending, listening] };
        Self { shared, _tasks: Arc::new(tasks) }
    }

    /// Opens the log for one attempt, whose first event gets `next_seq`. `elapsed_ms` since the turn was created, by
    /// the database's clock.
    #[must_use]
    pub fn open(&self, lease: Lease, next_seq: i64, elapsed_ms: i64) -> TurnLog {
        let state = TurnState {
            next_seq,
            queue: VecDeque::new(),
            waiting_bytes: 0,
            appended: next_seq - 1,
            durable: next_seq - 1,
            dirty: false,
            cancelled: false,
            stopped: None,
        };
        let turn = Arc::new(OpenTurn {
            lease,
            elapsed_ms,
            opened: Instant::now(),
            state: Mutex::new(state),
            changed: Notify::new(),
            signal: Notify::new(),
        });
        lock(&self.shared.open).insert(lease.turn, Arc::downgrade(&turn));
        TurnLog { shared: Arc::clone(&self.shared), turn }
    }
}

impl TurnLog {
    /// Queues one event and answers its id. Waits only while 256 KiB of this turn are not yet durable.
    ///
    /// # Errors
    /// [`Stopped`]; with `Refused` for data over [`super::MAX_DATA_BYTES`] the log goes on without that event.
    pub async fn append(&self, kind: EventKind, data: String) -> Result<i64, Stopped> {
        let data = admit(data).map_err(Stopped::Refused)?;
        let bytes = data.len() + ROW_BYTES;
        loop {
            let changed = self.turn.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let too_early = {
                let mut state = self.turn.state();
                if let Some(stop) = &state.stopped {
                    return Err(stop.clone().into());
                }
                let too_early = state.next_seq > self.turn.last_id_now();
                if !too_early
                    && (state.waiting_bytes == 0 || state.waiting_bytes + bytes <= MAX_WAITING_BYTES)
                {
                    let seq = state.next_seq;
                    state.next_seq += 1;
                    state.appended = seq;
                    state.waiting_bytes += bytes;
                    state.queue.push_back(Row { seq, kind, data });
                    self.shared.line_up(&self.turn, &mut state);
                    return Ok(seq);
                }
                too_early
            };
            if too_early {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                changed.await;
            }
        }
    }

    /// Waits until all that was appended before is durable, and answers the last durable id.
    ///
    /// # Errors
    /// [`Stopped`], when it will not be.
    pub async fn flushed(&self) -> Result<i64, Stopped> {
        let target = self.turn.state().appended;
        loop {
            let changed = self.turn.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.turn.state();
                if state.durable >= target {
                    return Ok(state.durable);
                }
                if let Some(stop) = &state.stopped {
                    return Err(stop.clone().into());
                }
            }
            changed.await;
        }
    }

    /// The first of `n` ids for events that ride in another transaction, after [`Self::flushed`]. Then comes either
    /// [`Self::committed`] or [`Self::give_back`].
    pub async fn take(&self, n: i64) -> i64 {
        loop {
            {
                let mut state = self.turn.state();
                debug_assert!(state.durable >= state.appended, "ids are taken only when all is durable");
                let first = state.next_seq;
                if first + n - 1 <= self.turn.last_id_now() {
                    state.next_seq += n;
                    return first;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The transaction that carries taken ids has committed: tells the followers. `last` is the last id written.
    pub fn committed(&self, last: i64) {
        {
            let mut state = self.turn.state();
            state.durable = last.max(state.durable);
        }
        self.turn.changed.notify_waiters();
        let Lease { tenant, turn, .. } = self.turn.lease;
        self.shared.bell.ring(Ring::Events { tenant, turn, tail: last });
    }

    /// The transaction that was to carry them was rolled back: the ids from `first` on are free again. Not after a
    /// commit of unknown outcome.
    pub fn give_back(&self, first: i64) {
        let mut state = self.turn.state();
        if state.appended < first {
            state.next_seq = first.min(state.next_seq);
        }
    }

    /// Waits until somebody asks to cancel the turn. Cancel-safe.
    pub async fn cancelled(&self) {
        self.wait_for_signal(|state| state.cancelled.then_some(())).await;
    }

    /// Whether somebody asked to cancel the turn.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.turn.state().cancelled
    }

    /// Waits until this log takes no more, because another attempt has the turn or the process ends. Cancel-safe.
    pub async fn stopped(&self) -> Stopped {
        self.wait_for_signal(|state| state.stopped.clone()).await.into()
    }

    async fn wait_for_signal<T>(&self, ask: impl Fn(&TurnState) -> Option<T>) -> T {
        loop {
            let signal = self.turn.signal.notified();
            tokio::pin!(signal);
            signal.as_mut().enable();
            if let Some(answer) = ask(&self.turn.state()) {
                return answer;
            }
            signal.await;
        }
    }
}

impl Drop for TurnLog {
    fn drop(&mut self) {
        self.turn.stop(Stop::Closed);
        let mut open = lock(&self.shared.open);
        // Another attempt of this process may have opened the same turn meanwhile.
        if open.get(&self.turn.lease.turn).is_some_and(|there| there.as_ptr() == Arc::as_ptr(&self.turn)) {
            open.remove(&self.turn.lease.turn);
        }
    }
}

impl Shared {
    /// Puts a turn into the line of the appending task, unless it stands there.
    fn line_up(&self, turn: &Arc<OpenTurn>, state: &mut TurnState) {
        if !std::mem::replace(&mut state.dirty, true) {
            lock(&self.dirty).push_back(Arc::clone(turn));
            self.wake.notify_one();
        }
    }

    /// Puts a turn with waiting rows back into the line.
    pub(super) fn line_up_again(&self, turn: &Arc<OpenTurn>) {
        let mut state = turn.state();
        if !state.queue.is_empty() {
            self.line_up(turn, &mut state);
        }
    }

    /// The waiting rows of as many turns as `max_bytes` have room for, at least one, in the order they lined up.
    pub(super) fn take_batch(&self, max_bytes: usize) -> Vec<(Arc<OpenTurn>, Vec<Row>)> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes {
            let Some(turn) = lock(&self.dirty).pop_front() else { break };
            let rows: Vec<Row> = {
                let mut state = turn.state();
                state.dirty = false;
                state.queue.drain(..).collect()
            };
            bytes += rows.iter().map(|row| row.data.len() + ROW_BYTES).sum::<usize>();
            if !rows.is_empty() {
                batch.push((turn, rows));
            }
        }
        batch
    }

    /// The turn, if this process has it open.
    pub(super) fn open_turn(&self, turn: TurnId) -> Option<Arc<OpenTurn>> {
        lock(&self.open).get(&turn).and_then(Weak::upgrade)
    }

    /// All turns that this process has open.
    pub(super) fn open_turns(&self) -> Vec<Arc<OpenTurn>> {
        lock(&self.open).values().filter_map(Weak::upgrade).collect()
    }
}

impl OpenTurn {
    fn state(&self) -> MutexGuard<'_, TurnState> {
        lock(&self.state)
    }

    /// The highest id that may be given out now, so that an attempt that starts from the clock is always above.
    fn last_id_now(&self) -> i64 {
        let since_opened = i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX >> 13);
        (self.elapsed_ms + since_opened + 1) << 12
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped.is_some()
    }

    /// These rows are in the database for good.
    pub(super) fn settle(&self, rows: &[Row]) {
        {
            let mut state = self.state();
            state.waiting_bytes -= rows.iter().map(|row| row.data.len() + ROW_BYTES).sum::<usize>();
            if let Some(last) = rows.last() {
                state.durable = last.seq.max(state.durable);
            }
        }
        self.changed.notify_waiters();
    }

    /// These rows wait for the next flush, before those that were appended since.
    pub(super) fn put_back(&self, rows: Vec<Row>) {
        let mut state = self.state();
        if state.stopped.is_none() {
            let mut rows = VecDeque::from(rows);
            rows.append(&mut state.queue);
            state.queue = rows;
        }
    }

    pub(super) fn cancel(&self) {
        self.state().cancelled = true;
        self.signal.notify_waiters();
    }

    /// The log takes no more; the first reason stays.
    pub(super) fn stop(&self, stop: Stop) {
        {
            let mut state = self.state();
            state.queue.clear();
            state.stopped.get_or_insert(stop);
        }
        self.changed.notify_waiters();
        self.signal.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
