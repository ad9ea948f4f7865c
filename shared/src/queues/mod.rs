//! The queues as admins see them: how long the lines are, what is in them and why it waits, and what can be done about it.
//!
//! Jobs stay where they live (turns, deliveries, the list of items to embed, tickets); a view of each makes them look alike, so
//! that reading knows one kind of job, and `queue_jobs` is all of them together. What an action means is each source's own.
//!
//! Invariants: an admin reads through a transaction that Postgres knows the tenant of, an operator as the engine; whoever acts
//! leaves a row in the audit log; no look costs more because a line is long.

mod actions;
mod figures;
mod jobs;
mod pause;
mod redact;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

pub use self::{
    actions::{Action, Batch, Bulk, Refused},
    figures::{
        Count, Firing, LastRun, Levels, Line, Processes, Spread, Totals, Worker, levels, note_run, roll_up,
    },
    jobs::{Attempt, Detail, Filter, Job, Status, Waiting},
    pause::Paused,
};
use crate::{
    bell::Bell,
    db::{self, TenantDb, TenantTx},
    error::{Error, Result},
    identity::Actor,
    ids::TenantId,
    jobs::{AGENT_DELIVERIES, CHAT_TURNS, CONNECTION_REFRESH, EMBEDDINGS, MAINTENANCE},
    tenancy::{AdminActor, OperatorActor},
    turns::Turns,
};

/// The tenant of what belongs to the deployment.
const NOBODY: TenantId = TenantId(uuid::Uuid::nil());

/// What a queue's jobs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Turns,
    Deliveries,
    /// Items that wait to be embedded; they are gone from the list when they are.
    Items,
    /// apalis's own rows, where no table of ours knows better.
    Tickets,
}

/// A queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueDef {
    /// Its name, in paths and in tables.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    source: Source,
}

impl QueueDef {
    /// Whether its jobs' key begins with their tenant, and every job has one.
    fn has_tenants(&self) -> bool {
        matches!(self.source, Source::Turns | Source::Deliveries)
    }
}

/// Every queue, sorted.
pub const QUEUES: &[QueueDef] = &[
    QueueDef { name: AGENT_DELIVERIES, about: "Telling agents of users", source: Source::Deliveries },
    QueueDef { name: CHAT_TURNS, about: "Chat turns", source: Source::Turns },
    QueueDef {
        name: CONNECTION_REFRESH,
        about: "Refreshing the tokens of connections",
        source: Source::Tickets,
    },
    QueueDef { name: EMBEDDINGS, about: "Items whose meaning a model has to tell", source: Source::Items },
    QueueDef {
        name: MAINTENANCE,
        about: "Retention, health checks, roll-ups, summaries of old turns",
        source: Source::Tickets,
    },
];

/// The queue of this name.
///
/// # Errors
/// 404.
pub fn queue(name: &str) -> Result<&'static QueueDef> {
    QUEUES.iter().find(|queue| queue.name == name).ok_or_else(|| Error::not_found("there is no such queue"))
}

/// Who looks, and so what they may see.
pub enum Viewer {
    /// The jobs of their own tenant.
    Admin(AdminActor),
    /// Everybody's.
    Operator(OperatorActor),
}

impl Viewer {
    fn actor(&self) -> &Actor {
        match self {
            Self::Admin(admin) => admin.actor(),
            Self::Operator(operator) => operator.actor(),
        }
    }
}

/// The verbs over one database.
#[derive(Clone)]
pub struct Queues {
    engine: PgPool,
    tenants: TenantDb,
    turns: Turns,
    bell: Bell,
    /// `MCP_AGENT_NOTIFICATION_ENABLED`
    tells_agents: bool,
}

impl Queues {
    /// Over the engine's pool, for what crosses tenants, and that of tenants; `tells_agents` as the deployment does.
    #[must_use]
    pub fn new(engine: PgPool, tenants: TenantDb, turns: Turns, bell: Bell, tells_agents: bool) -> Self {
        Self { engine, tenants, turns, bell, tells_agents }
    }

    async fn reach(&self, viewer: &Viewer) -> Result<Reach> {
        Ok(match viewer {
            Viewer::Admin(admin) => Reach::Tenant(Box::new(self.tenants.begin(admin.actor()).await?)),
            Viewer::Operator(_) => Reach::All(db::begin(&self.engine).await?),
        })
    }
}

/// Where jobs are read.
#[derive(Debug, Clone, Copy)]
struct View {
    name: &'static str,
    /// Not of the transaction's tenant alone.
    is_of_all: bool,
}

/// A transaction that sees what its viewer may see.
enum Reach {
    Tenant(Box<TenantTx>),
    All(Transaction<'static, Postgres>),
}

impl Reach {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Tenant(tx) => tx.connection(),
            Self::All(tx) => tx,
        }
    }

    /// The view of all jobs that this one may read.
    fn jobs(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "queue_jobs_of_tenant",
            Self::All(_) => "queue_jobs",
        }
    }

    /// The view of a queue's jobs that this one may read: a list of them reads one table, in the order of an index.
    fn jobs_of(&self, queue: &QueueDef) -> View {
        let (of_all, of_tenant) = match queue.source {
            Source::Turns => ("queue_turns", "queue_turns_of_tenant"),
            Source::Deliveries => ("queue_deliveries", "queue_deliveries_of_tenant"),
            Source::Items => ("queue_items", "queue_items_of_tenant"),
            Source::Tickets => ("queue_tickets", "queue_tickets_of_tenant"),
        };
        match self {
            Self::Tenant(_) => View { name: of_tenant, is_of_all: false },
            Self::All(_) => View { name: of_all, is_of_all: true },
        }
    }

    async fn commit(self) -> Result<()> {
        match self {
            Self::Tenant(tx) => tx.commit().await,
            Self::All(tx) => Ok(tx.commit().await?),
        }
    }
}
