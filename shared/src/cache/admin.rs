//! What admins see of the cache, and how they empty it.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::store;
use crate::{
    bell::{Bell, CachePlace, Ring},
    db::TenantDb,
    error::Result,
    tenancy::{AdminActor, audit},
};

/// What the cache did for one tool, and what it holds of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedTool {
    pub server: String,
    pub tool: String,
    pub hits: i64,
    pub misses: i64,
    /// Reads that wanted a fresh answer.
    pub refreshes: i64,
    /// Reads that the cache had no part in, because of a write under way or a database that was away.
    pub passed_by: i64,
    /// Answers that are good now, and how often they were given.
    pub entries: i64,
    pub entry_hits: i64,
    pub last_accessed: Option<DateTime<Utc>>,
}

/// What the cache did for the tenant's tools in the last days.
///
/// # Errors
/// The database's.
pub async fn tools(engine: &PgPool, admin: &AdminActor, days: i32) -> Result<Vec<CachedTool>> {
    store::tools(engine, admin.actor().tenant, days).await
}

/// Removes the tenant's answers, of one server or one tool if they are named; answers how many. What other processes hold
/// in memory goes when they hear the bell.
///
/// # Errors
/// The database's.
pub async fn purge(
    tenants: &TenantDb,
    engine: &PgPool,
    bell: &Bell,
    admin: &AdminActor,
    server: Option<&str>,
    tool: Option<&str>,
) -> Result<u64> {
    let mut tx = tenants.begin(admin.actor()).await?;
    let details = serde_json::json!({ "server": server, "tool": tool });
    audit::record(
        &mut tx,
        admin,
        audit::Entry::new("cache.purged", tool.or(server).unwrap_or_default()).with(details),
    )
    .await?;
    tx.commit().await?;
    let removed = store::purge(engine, admin.actor().tenant, server, tool).await?;
    bell.ring(Ring::Cache(CachePlace::EVERYTHING));
    Ok(removed)
}
