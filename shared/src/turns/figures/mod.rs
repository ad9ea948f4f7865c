//! Figures over all tenants, for monitoring: how turns ended, and what their models used.

mod store;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::Status;
use crate::error::Result;

/// Upper bounds of the classes that durations are counted in, in seconds.
pub const DURATION_BOUNDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Turns that ended within a span of time, by how and by how long they took.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTurns {
    /// How they ended.
    pub status: Status,
    /// Index of the first of [`DURATION_BOUNDS`] that they did not exceed; its length when they exceeded all.
    pub class: usize,
    /// How many.
    pub count: i64,
    /// From acceptance to the end, in seconds, summed up.
    pub seconds: f64,
}

/// What the models of turns that ended within a span of time used, by provider.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct UsedTokens {
    pub provider: String,
    pub input: i64,
    pub output: i64,
    /// Of the input.
    pub cache_read: i64,
    /// Of the input.
    pub cache_write: i64,
}

/// The database's time.
///
/// # Errors
/// The database's.
pub async fn now(engine: &PgPool) -> Result<DateTime<Utc>> {
    store::now(engine).await
}

/// Sessions that have not ended, of all users.
///
/// # Errors
/// The database's.
pub async fn active_sessions(engine: &PgPool) -> Result<i64> {
    store::active_sessions(engine).await
}

/// Turns that ended after `after` and not after `until`.
///
/// # Errors
/// The database's.
pub async fn ended(engine: &PgPool, after: DateTime<Utc>, until: DateTime<Utc>) -> Result<Vec<EndedTurns>> {
    store::ended(engine, after, until).await
}

/// What the models of turns used that ended after `after` and not after `until`.
///
/// # Errors
/// The database's.
pub async fn tokens(engine: &PgPool, after: DateTime<Utc>, until: DateTime<Utc>) -> Result<Vec<UsedTokens>> {
    store::tokens(engine, after, until).await
}
