//! The event log of a turn: the product that clients see.
//!
//! [`log`] appends for the workers of a process (one flush in flight), [`hub`] reads for the followers of a process,
//! [`data`] makes the JSON of each kind, `store` holds the SQL. Invariants: ids are dense within an attempt and jump
//! only onto `resumed`; nobody is told of an event before it is durable; who lost the lease inserts nothing.

mod append;
pub mod data;
mod followed;
pub mod hub;
pub mod log;
mod read;
mod store;
#[cfg(test)]
mod tests;

use std::{str::FromStr, sync::OnceLock};

use bytes::Bytes;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, TurnId},
};

pub use hub::{Follower, Hub, TurnPosted};
pub use log::{EventLog, Stopped, TurnLog};

/// Bytes of one event's data at most.
pub const MAX_DATA_BYTES: usize = 64 * 1024;

/// The right to write for one attempt at a turn. Whoever holds the value took the lease; the database checks with
/// every write that nobody took it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The turn's tenant.
    pub tenant: TenantId,
    /// The turn.
    pub turn: TurnId,
    /// What `turns.lease` holds while this attempt may write.
    pub token: Uuid,
}

impl Lease {
    /// A lease that was just written to the turn's row.
    pub(crate) fn new(tenant: TenantId, turn: TurnId, token: Uuid) -> Self {
        Self { tenant, turn, token }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What happened, in the words of [S2].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// The word on the wire and in the table.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl FromStr for EventKind {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(Error::internal(format!("the log holds an event of the unknown kind {text:?}"))),
                }
            }
        }
    };
}

kinds! {
    /// The turn was accepted; always the first event.
    Queued = "queued";
    /// A piece of the reply's text, as the model gave it.
    Token = "token";
    /// A tool is called.
    ToolCall = "tool_call";
    /// A tool answered.
    ToolResult = "tool_result";
    /// A tool's answer came from the cache.
    CacheHit = "cache_hit";
    /// Something the person may want to know.
    Warning = "warning";
    /// A call waits for a person's decision.
    ApprovalRequired = "approval_required";
    /// Another attempt goes on; text after the named event is void. The only event that ids may jump onto.
    Resumed = "resumed";
    /// The turn failed.
    Error = "error";
    /// The turn ended; always the last event.
    Done = "done";
}

/// One row of the log.
#[derive(Debug)]
pub struct Event {
    /// Its id within the turn, ascending from 1.
    pub seq: i64,
    /// What happened.
    pub kind: EventKind,
    /// The members of this kind as JSON text on one line.
    pub data: String,
    frame: OnceLock<Bytes>,
}

impl Event {
    /// An event as stored.
    #[must_use]
    pub fn new(seq: i64, kind: EventKind, data: String) -> Self {
        Self { seq, kind, data, frame: OnceLock::new() }
    }

    /// The event as it goes over a `text/event-stream`, made once for all who follow the turn. The id is
    /// `turn_no.seq`, the same on the job's and the session's stream.
    pub fn frame(&self, turn_no: i64) -> Bytes {
        let render = || {
            format!("id: {turn_no}.{}\nevent: {}\ndata: {}\n\n", self.seq, self.kind.as_str(), self.data)
                .into()
        };
        self.frame.get_or_init(render).clone()
    }

    /// Bytes of memory, roughly, counting the frame.
    fn weight(&self) -> usize {
        2 * self.data.len() + 192
    }
}

/// Data as the log takes it: one line, without U+0000 (which Postgres refuses in text), at most [`MAX_DATA_BYTES`].
///
/// JSON text has control characters only as white space between tokens, so a space may stand for them.
fn admit(data: String) -> Result<String> {
    if data.len() > MAX_DATA_BYTES {
        return Err(Error::unacceptable(format!(
            "an event of {} bytes is larger than the {MAX_DATA_BYTES} that the event log takes",
            data.len()
        )));
    }
    if !data.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Ok(data);
    }
    let clean = |letter| match letter {
        '\0' => '\u{fffd}',
        '\n' | '\r' => ' ',
        other => other,
    };
    Ok(data.chars().map(clean).collect())
}

/// Writes events in the caller's transaction: the first event of a turn, or the end of one. The caller holds the
/// turn's row locked by lease or has just inserted it, and rings after its commit.
///
/// # Errors
/// The database's; 422 for data over [`MAX_DATA_BYTES`].
pub async fn insert(tx: &mut TenantTx, turn: TurnId, events: &[(i64, EventKind, String)]) -> Result<()> {
    let tenant = tx.actor().tenant;
    insert_as_engine(tx.connection(), tenant, turn, events).await
}

/// [`insert`] on an engine's connection, for what happens to turns outside of any request.
///
/// # Errors
/// As [`insert`].
pub async fn insert_as_engine(
    connection: &mut PgConnection,
    tenant: TenantId,
    turn: TurnId,
    events: &[(i64, EventKind, String)],
) -> Result<()> {
    let mut rows = Vec::with_capacity(events.len());
    for (seq, kind, data) in events {
        rows.push((*seq, *kind, admit(data.clone())?));
    }
    store::insert(connection, tenant, turn, &rows).await
}
