//! Figures of agents over all tenants, for monitoring: how deliveries ended, how long they took, and which agents are left
//! alone. Agents of one name are counted together, whosoever they are.

mod store;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::error::Result;

/// Upper bounds of the classes that the time of an exchange is counted in, in seconds.
pub const EXCHANGE_BOUNDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Deliveries that ended within a span of time.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EndedDeliveries {
    pub agent: String,
    /// delivered or failed.
    pub status: String,
    /// Index of the first of [`EXCHANGE_BOUNDS`] that their last exchange did not exceed; its length when it exceeded all.
    pub class: i64,
    pub count: i64,
    /// Of their last exchanges, summed up.
    pub seconds: f64,
    /// Tries before the last, summed up.
    pub retries: i64,
    /// How long they took is recorded.
    pub is_timed: bool,
}

/// Deliveries that ended after `after` and not after `until`.
///
/// # Errors
/// The database's.
pub async fn ended(
    engine: &PgPool,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<EndedDeliveries>> {
    store::ended(engine, after, until).await
}

/// Agents that are told and have failed, and whether each is left alone, or is still to show that it is well again.
///
/// # Errors
/// The database's.
pub async fn breakers(engine: &PgPool) -> Result<Vec<(String, bool)>> {
    store::breakers(engine).await
}
