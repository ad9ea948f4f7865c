//! The appender.
use crate::{
    bell::Bell,
    error::Error,
    events::{EventKind, Lease},
};
use sqlx::PgPool;

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

/// Appends for all running turns of a process.
#[derive(Clone)]
pub struct EventLog {}
/// One attempt's end of the log. All methods take `&self`; tools that run at the same time may append.
pub struct TurnLog {}

impl EventLog {
    /// Starts the appending task.
    #[must_use]
    pub fn start(_engine: PgPool, _bell: Bell) -> Self {
        unimplemented!()
    }
    /// Opens the log for one attempt, whose first event gets `next_seq`; `elapsed_ms` since the turn was created, by
    /// the database's clock.
    #[must_use]
    pub fn open(&self, _lease: Lease, _next_seq: i64, _elapsed_ms: i64) -> TurnLog {
        unimplemented!()
    }
}

impl TurnLog {
    /// Queues one event and answers its id; waits only while 256 KiB of this turn are not yet written.
    pub async fn append(&self, _kind: EventKind, _data: String) -> Result<i64, Stopped> {
        unimplemented!()
    }
    /// Waits until all that was appended is durable; answers the last durable id.
    pub async fn flushed(&self) -> Result<i64, Stopped> {
        unimplemented!()
    }
    /// The first of `n` ids for events that ride in another transaction. Only after [`Self::flushed`].
    pub async fn take(&self, _n: i64) -> i64 {
        unimplemented!()
    }
    /// The transaction that carries taken ids has committed: tells the followers. `last` is the last id written.
    pub fn committed(&self, _last: i64) {
        unimplemented!()
    }
    /// The transaction that was to carry them was rolled back: the ids from `first` on are free again.
    pub fn give_back(&self, _first: i64) {
        unimplemented!()
    }
    /// Waits until somebody asks to cancel the turn.
    pub async fn cancelled(&self) {
        unimplemented!()
    }
    /// Whether somebody asked to cancel the turn.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        unimplemented!()
    }
    /// Waits until this log takes no more (another attempt took the turn, or the process ends).
    pub async fn stopped(&self) -> Stopped {
        unimplemented!()
    }
}
