//! Tokens and cost, per tenant or user and day, from the ledger of model calls. Days that are no longer kept call by
//! call are read from their roll-up.

mod store;

use chrono::{DateTime, NaiveDate, Utc};

use crate::{
    db::TenantDb,
    error::Result,
    identity::{Actor, Role},
};

/// What one model used on one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageDay {
    pub day: DateTime<Utc>,
    pub provider: String,
    pub model: String,
    pub calls: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    /// Millionths of a dollar.
    pub cost_micros: i64,
}

/// Usage from the first to the last day, both included: the caller's own, or for an admin the tenant's.
///
/// # Errors
/// The database's.
pub async fn by_day(
    tenants: &TenantDb,
    actor: &Actor,
    first: NaiveDate,
    last: NaiveDate,
) -> Result<Vec<UsageDay>> {
    let own = match actor.role {
        Role::Admin => None,
        Role::Member => Some(actor.user),
    };
    let mut tx = tenants.begin(actor).await?;
    let days = store::by_day(&mut tx, own, first, last).await?;
    tx.commit().await?;
    Ok(days)
}
