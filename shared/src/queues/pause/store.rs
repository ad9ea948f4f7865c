//! SQL of pausing, as the engine: queues are no tenant's.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::Paused;
use crate::{error::Result, ids::UserId};

pub(super) async fn all(engine: &PgPool) -> Result<Vec<Paused>> {
    Ok(sqlx::query_as(
        "select name as queue, paused_at as since, paused_by as by, paused_because as because from queues
         where paused_at is not null order by name",
    )
    .fetch_all(engine)
    .await?)
}

pub(in crate::queues) async fn since(engine: &PgPool, queue: &str) -> Result<Option<DateTime<Utc>>> {
    let since: Option<Option<DateTime<Utc>>> =
        sqlx::query_scalar("select paused_at from queues where name = $1")
            .bind(queue)
            .fetch_optional(engine)
            .await?;
    Ok(since.flatten())
}

pub(super) async fn pause(
    connection: &mut PgConnection,
    queue: &str,
    by: UserId,
    because: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query(
        "update queues set paused_at = clock_timestamp(), paused_by = $2, paused_because = $3
         where name = $1 and paused_at is null",
    )
    .bind(queue)
    .bind(by)
    .bind(because)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn resume(connection: &mut PgConnection, queue: &str) -> Result<bool> {
    let done = sqlx::query(
        "update queues set paused_at = null, paused_by = null, paused_because = null
         where name = $1 and paused_at is not null",
    )
    .bind(queue)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}
