//! Chat turns: their record, their rules and every transaction that changes them. Running one is the worker's.
//!
//! ```text
//!            post                 post, no slot          post, conversation busy
//!             │                        │                          │
//!             ▼        slot            ▼       head               ▼
//!   ┌────── ready ◄────────────── waiting ◄──────────────────── queued
//!   │ claim   ▲                        ▲
//!   ▼         │ retry, hand-over       │ decided, no slot
//! running ────┴──► awaiting_approval ──┘
//!   │
//!   └──► succeeded · failed · cancelled · dead        (any state may be cancelled)
//! ```
//!
//! Invariants: at most one turn of a conversation is waiting, ready, running or awaiting approval (a unique index says
//! so); a ready or running turn holds one of its tenant's slots; every write of a running turn goes through its lease;
//! whatever ends a turn writes its last events in the same transaction. Locks are taken in one order: idempotency key,
//! conversation, turn, slot.

mod approvals;
mod attempts;
mod cancel;
mod compaction;
mod ending;
pub mod figures;
mod history;
mod journal;
mod ledger;
mod post;
mod reading;
mod second_look;
mod store;
mod sweep;
mod transcript;
mod types;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

pub use self::{
    approvals::Decision,
    attempts::{Claimed, Claiming, Process, Released},
    compaction::{Compaction, PATIENCE as COMPACTION_PATIENCE},
    ending::{Ending, FinishedTurn, FinishedUsage},
    history::{Context, HistoryMessage, ToolCallRecord},
    journal::{CallRecord, ModelStep, OpenApproval, Parking, StepCommit, StoredStep, ToolStep},
    ledger::Settled,
    post::{MessageRole, NewMessage, NewTurn, OnBusy},
    reading::StreamStart,
    sweep::Swept,
    types::{Accepted, Status, ToolCallView, Turn, TurnError, WaitingFor},
};
use crate::{
    bell::{Bell, Ring},
    db::TenantDb,
    events::{EventKind, Hub},
    ids::{TenantId, TurnId},
    sessions::Sessions,
};
pub use crate::{idempotency::IdempotencyKey, tools::Warning};

/// What the rules of turns are parametrised with.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// Failed runs after which a turn is dead.
    pub max_attempts: i64,
    /// Time without a heartbeat after which a process is dead.
    pub lease: Duration,
    /// First wait after a failed run; doubled for each further one.
    pub retry_base: Duration,
    /// How long an approval waits for an answer.
    pub approval_timeout: Duration,
}

/// Dead processes in a row, without a finished step between them, after which a turn is dead.
pub const MAX_TAKEOVERS: i64 = 3;
/// Takeovers from which on a turn runs in a process of its own, so that a poison turn kills no neighbours again.
pub const SOLO_FROM_TAKEOVERS: i64 = 2;

/// An event that rides in a transaction of the turn's.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub seq: i64,
    pub kind: EventKind,
    /// JSON text on one line.
    pub data: String,
}

/// Events as the arrays that a statement unnests.
fn columns(events: &[NewEvent]) -> (Vec<i64>, Vec<&'static str>, Vec<&str>) {
    (
        events.iter().map(|event| event.seq).collect(),
        events.iter().map(|event| event.kind.as_str()).collect(),
        events.iter().map(|event| event.data.as_str()).collect(),
    )
}

/// The verbs of turns over one database.
#[derive(Clone)]
pub struct Turns {
    tenants: TenantDb,
    engine: PgPool,
    bell: Bell,
    hub: Option<Hub>,
    sessions: Sessions,
    settings: TurnSettings,
    ledger: ledger::Ledger,
    second_look: second_look::SecondLook,
    posted: Arc<reading::Posted>,
}

impl Turns {
    /// `hub` is there in processes that serve streams; cancelling waits on it.
    #[must_use]
    pub fn new(
        tenants: TenantDb,
        engine: PgPool,
        bell: Bell,
        hub: Option<Hub>,
        sessions: Sessions,
        settings: TurnSettings,
    ) -> Self {
        let ledger = ledger::Ledger::start(engine.clone());
        let second_look = second_look::SecondLook::start(tenants.clone(), engine.clone(), bell.clone());
        let posted = Arc::default();
        Self { tenants, engine, bell, hub, sessions, settings, ledger, second_look, posted }
    }

    /// Sessions of the same database.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Transactions on tenant rows of the same database.
    #[must_use]
    pub fn tenants(&self) -> &TenantDb {
        &self.tenants
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &TurnSettings {
        &self.settings
    }

    fn ring_events(&self, tenant: TenantId, turn: TurnId, tail: i64) {
        self.bell.ring(Ring::Events { tenant, turn, tail });
    }
}

/// Runs a transaction again for as long as Postgres asks for it: nothing of it was kept.
async fn run_again<T, F: Future<Output = crate::Result<T>>>(
    mut transaction: impl FnMut() -> F,
) -> crate::Result<T> {
    loop {
        match transaction().await {
            Err(error) if asks_to_run_again(&error) => {}
            other => return other,
        }
    }
}

/// Whether Postgres wants a transaction to be run again (deadlock, serialisation failure).
pub(crate) fn asks_to_run_again(error: &crate::Error) -> bool {
    matches!(error.database(), Some(sqlx::Error::Database(database))
        if matches!(database.code().as_deref(), Some("40001" | "40P01")))
}
