//! SQL of signing keys.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::error::Result;

/// Only one process makes a key at a time; any number will do.
const MAKING: i64 = 7043;

#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    pub(super) kid: String,
    pub(super) public_key: Vec<u8>,
    pub(super) sealed_private_key: String,
    pub(super) signs_from: DateTime<Utc>,
}

/// The database's time, and the keys that are published at it.
pub(super) async fn published(engine: &PgPool) -> Result<(DateTime<Utc>, Vec<KeyRow>)> {
    let mut connection = engine.acquire().await?;
    let now = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *connection).await?;
    Ok((now, published_in(&mut connection).await?))
}

pub(super) async fn published_in(connection: &mut PgConnection) -> Result<Vec<KeyRow>> {
    Ok(sqlx::query_as(
        "select kid, public_key, sealed_private_key, signs_from from signing_keys
         where ends_at is null or ends_at > clock_timestamp() order by signs_from desc",
    )
    .fetch_all(connection)
    .await?)
}

pub(super) async fn lock(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(MAKING).execute(connection).await?;
    Ok(())
}

/// The keys before the newest are published until then; those whose time is up go.
pub(super) async fn retire_others(connection: &mut PgConnection, until: DateTime<Utc>) -> Result<()> {
    sqlx::query("update signing_keys set ends_at = $1 where ends_at is null")
        .bind(until)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from signing_keys where ends_at < clock_timestamp()").execute(connection).await?;
    Ok(())
}

pub(super) async fn insert(connection: &mut PgConnection, key: &KeyRow) -> Result<()> {
    sqlx::query(
        "insert into signing_keys (kid, public_key, sealed_private_key, signs_from) values ($1, $2, $3, $4)",
    )
    .bind(&key.kid)
    .bind(&key.public_key)
    .bind(&key.sealed_private_key)
    .bind(key.signs_from)
    .execute(connection)
    .await?;
    Ok(())
}
