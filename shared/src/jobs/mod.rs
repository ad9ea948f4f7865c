//! The queues, on apalis over Postgres. A ticket says "there is work in this queue" and carries ids only; the truth
//! (state, attempts, results, order) is in our own tables, so a ticket may be lost, doubled or stolen without harm.

mod schedules;

use std::time::Duration;

use apalis_core::task::{builder::TaskBuilder, task_id::TaskId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use ulid::Ulid;

pub use self::schedules::{SCHEDULES, Schedule};
use crate::{
    error::{Error, Result},
    ids::{ConnectionId, ConversationId, TenantId, TurnId, UserId},
};

/// Telling agents of users.
pub const AGENT_DELIVERIES: &str = "agent-deliveries";
/// Tickets for turns that are ready to run.
pub const CHAT_TURNS: &str = "chat-turns";
/// Refreshing the tokens of connections, and finding out which are due.
pub const CONNECTION_REFRESH: &str = "connection-refresh";
/// Items whose meaning a model has to tell.
pub const EMBEDDINGS: &str = "embeddings";
/// Retention, partitions, roll-ups.
pub const MAINTENANCE: &str = "maintenance";

/// Every queue, sorted.
pub const QUEUES: &[&str] = &[AGENT_DELIVERIES, CHAT_TURNS, CONNECTION_REFRESH, EMBEDDINGS, MAINTENANCE];

/// What a chat-turns ticket says. Which turn it was written for is for people who look; any ready turn may be claimed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TurnTicket {
    /// The turn that became ready.
    pub turn: TurnId,
}

/// What a connection-refresh ticket says: whose connection is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTicket {
    pub tenant: TenantId,
    pub user: UserId,
    pub connection: ConnectionId,
}

/// What a ticket of a schedule says, in whatever queue: one firing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceTicket {
    /// The schedule's name.
    pub task: String,
}

/// A maintenance ticket that asks for a summary of a conversation's old turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionTicket {
    pub tenant: TenantId,
    pub user: UserId,
    /// The conversation to be compacted.
    #[serde(rename = "compact")]
    pub conversation: ConversationId,
}

/// Writes a ticket for a turn that became ready, in the caller's transaction.
///
/// # Errors
/// The database's.
pub async fn push_turn(connection: &mut PgConnection, turn: TurnId) -> Result<()> {
    push(connection, CHAT_TURNS, TaskBuilder::new(serde_json::to_vec(&TurnTicket { turn })?)).await
}

/// Writes a ticket for a turn that may be claimed after `delay` (rounded up to whole seconds by apalis).
///
/// # Errors
/// The database's.
pub async fn push_turn_later(connection: &mut PgConnection, turn: TurnId, delay: Duration) -> Result<()> {
    let ticket =
        TaskBuilder::new(serde_json::to_vec(&TurnTicket { turn })?).run_after(delay + Duration::from_secs(1));
    push(connection, CHAT_TURNS, ticket).await
}

/// Writes a ticket for a connection that is due; false when this tick has one already.
///
/// # Errors
/// The database's.
pub async fn push_refresh(connection: &mut PgConnection, ticket: &RefreshTicket, tick: i64) -> Result<bool> {
    let task = TaskBuilder::new(serde_json::to_vec(ticket)?)
        .max_attempts(1)
        .idempotency_key(format!("{}:{tick}", ticket.connection));
    push_once(connection, CONNECTION_REFRESH, task).await
}

/// Writes one firing of a schedule of this queue; false when another process has written this tick already.
///
/// # Errors
/// The database's.
pub async fn push_tick(connection: &mut PgConnection, queue: &str, task: &str, tick: i64) -> Result<bool> {
    let ticket = MaintenanceTicket { task: task.to_owned() };
    let ticket = TaskBuilder::new(serde_json::to_vec(&ticket)?)
        .max_attempts(1)
        .idempotency_key(format!("{task}:{tick}"));
    push_once(connection, queue, ticket).await
}

async fn push_once(connection: &mut PgConnection, queue: &str, ticket: TaskBuilder<Vec<u8>>) -> Result<bool> {
    match push(connection, queue, ticket).await {
        Ok(()) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a ticket for a compaction; false when this turn has asked for it already.
///
/// # Errors
/// The database's.
pub async fn push_compaction(
    connection: &mut PgConnection,
    ticket: &CompactionTicket,
    turn_no: i64,
) -> Result<bool> {
    let key = format!("compaction:{}:{}:{turn_no}", ticket.tenant, ticket.conversation);
    let ticket = TaskBuilder::new(serde_json::to_vec(ticket)?).max_attempts(1).idempotency_key(key);
    match push(connection, MAINTENANCE, ticket).await {
        Ok(()) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn push(connection: &mut PgConnection, queue: &str, ticket: TaskBuilder<Vec<u8>>) -> Result<()> {
    let ticket = ticket.task_id(TaskId::from_ulid(Ulid::generate())).build();
    apalis_sql::queries::push_tasks(connection, queue, vec![ticket]).await.map_err(from_apalis)
}

fn is_duplicate(error: &Error) -> bool {
    matches!(error.database(), Some(sqlx::Error::Database(database)) if database.is_unique_violation())
}

fn from_apalis(error: apalis_sql::Error) -> Error {
    match error {
        apalis_sql::Error::Database(database) => database.into(),
        other => Error::internal(other),
    }
}
