//! What tickets have done. Maintenance: partitions, retention [Q4], done tickets, header secrets, what deleted tenants leave
//! behind, and a look at other people's servers. Everything is deleted in chunks of well under a second, so
//! that no transaction holds up the change feed or vacuum.

pub(crate) mod compaction;
pub(crate) mod deliveries;
pub(crate) mod embeddings;
pub(crate) mod refresh;
pub(crate) mod store;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::{AbortError, BoxDynError};
use chrono::TimeDelta;
use futures::FutureExt;
use serde_json::Value;
use shared::{
    Error, agents,
    connections::Connections,
    outbound::Outbound,
    remote::{self, Gateway},
    tenancy::{
        control,
        secrets::{self, Rotated, SecretStore},
    },
    vault::Vault,
    workspace::{changes, search},
};
use sqlx::PgPool;

/// Days ahead for which the event log has partitions.
const PARTITION_DAYS: i32 = 7;
const LIMIT: Duration = Duration::from_secs(240);
/// Rows of one deleting statement.
const CHUNK: i64 = 2000;
/// For how long the change feed can be read from a cursor.
const FEED_DAYS: i64 = 30;

/// What maintenance works with.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) engine: PgPool,
    pub(crate) vault: Vault,
    /// Sums up old turns; none where there is no model for it.
    pub(crate) compactor: Option<compaction::Compactor>,
    pub(crate) connections: Connections,
    /// Asks other people's servers how they are.
    pub(crate) gateway: Gateway,
    pub(crate) deliveries: deliveries::Deliveries,
    pub(crate) outbound: Outbound,
    /// Where new header secrets are put; without one they wait to be fetched.
    pub(crate) secret_store: Option<Arc<dyn SecretStore>>,
    /// What embeds items; without it nothing is on that list.
    pub(crate) embedding: Option<embeddings::Embedding>,
}

/// Runs a task of a schedule.
pub(crate) async fn run_guarded(task: &str, upkeep: &Upkeep) -> Result<(), BoxDynError> {
    guarded(task, run(task, upkeep)).await
}

/// Time-outs and panics are caught in here: the queue's own layers would leave its row running for ever. A failure is in the
/// queue's row, for people who look.
pub(crate) async fn guarded(
    task: &str,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), BoxDynError> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(task, error = %error, "a task failed; its next tick tries again");
            Err(AbortError::new(error).into())
        }
        Ok(Err(_)) => Err(AbortError::new(Error::internal("the task panicked")).into()),
        Err(_) => Err(AbortError::new(Error::internal("the task took too long")).into()),
    }
}

/// Takes a compaction up; it goes on beside the queue.
pub(crate) async fn compact_guarded(ticket: Value, upkeep: &Upkeep) -> Result<(), BoxDynError> {
    let Some(compactor) = &upkeep.compactor else { return Ok(()) };
    let ticket = serde_json::from_value(ticket).map_err(AbortError::new)?;
    let work = AssertUnwindSafe(compactor.take_up(&ticket)).catch_unwind();
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = %error, "a compaction was not begun; the next long turn asks again");
            Err(AbortError::new(error).into())
        }
        Ok(Err(_)) => Err(AbortError::new(Error::internal("the task panicked")).into()),
        Err(_) => Err(AbortError::new(Error::internal("the task took too long")).into()),
    }
}

async fn run(task: &str, upkeep: &Upkeep) -> Result<(), Error> {
    let engine = &upkeep.engine;
    match task {
        "agents" => {
            agents::health::check_all(engine, &upkeep.outbound).await?;
            let dead = upkeep.deliveries.give_up_old().await?;
            if dead > 0 {
                tracing::warn!(dead, "deliveries were given up after a day");
            }
        }
        "connections" => {
            let written = refresh::write_tickets(engine).await?;
            if written > 0 {
                tracing::info!(written, "connections are due");
            }
        }
        "deleted-tenants" => {
            let rows = control::erase_deleted(engine, CHUNK).await?;
            if rows > 0 {
                tracing::info!(rows, "rows of deleted tenants were erased");
            }
        }
        "deliver" => upkeep.deliveries.run().await?,
        shared::jobs::EMBEDDINGS => {
            if let Some(embedding) = &upkeep.embedding {
                embeddings::run(engine, embedding).await?;
            }
        }
        "header-secrets" => {
            let rotated = secrets::rotate_due(engine, &upkeep.vault, upkeep.secret_store.as_deref()).await?;
            if rotated != Rotated::default() {
                tracing::info!(
                    made = rotated.made,
                    delivered = rotated.delivered,
                    sealed_again = rotated.sealed_again,
                    "header secrets were rotated"
                );
            }
        }
        "mcp-servers" => {
            let (asked, unwell) = remote::health::check_all(engine, &upkeep.gateway).await?;
            if unwell > 0 {
                tracing::warn!(asked, unwell, "MCP servers do not answer as they should");
            }
        }
        "partitions" => {
            store::make_partitions(engine, PARTITION_DAYS).await?;
            while let Some(dropped) = store::drop_partition(engine).await? {
                tracing::info!(partition = dropped, "a day of the event log was dropped");
            }
        }
        "retention" => {
            // What cannot be deleted must not keep all else; the first failure is told when the rest is done.
            let mut outcome = Ok(());
            for deletion in store::DELETIONS {
                match delete_all(engine, deletion).await {
                    Ok(0) => {}
                    Ok(rows) => tracing::info!(rows, what = deletion.what, "expired rows were deleted"),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            let age = TimeDelta::days(FEED_DAYS);
            while changes::forget(engine, age, CHUNK).await? >= u64::try_from(CHUNK).unwrap_or(u64::MAX) {}
            while store::roll_up_usage(engine, CHUNK).await? >= u64::try_from(CHUNK).unwrap_or(u64::MAX) {}
            outcome?;
        }
        // Searches catch up by themselves; this is for tenants where nobody searches.
        "search" => while search::catch_up(engine, CHUNK).await? >= CHUNK {},
        "tickets" => store::delete_tickets(engine).await?,
        other => tracing::warn!(task = other, "there is no such maintenance task"),
    }
    Ok(())
}

/// Deletes chunk by chunk; answers how many rows.
async fn delete_all(engine: &PgPool, deletion: &store::Deletion) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let deleted = store::delete(engine, deletion, CHUNK).await?;
        total += deleted;
        if deleted < u64::try_from(CHUNK).unwrap_or(u64::MAX) {
            return Ok(total);
        }
    }
}
