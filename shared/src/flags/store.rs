//! SQL of feature flags, as the engine: they are no tenant's.

use sqlx::{PgConnection, PgPool};

use super::Flag;
use crate::{error::Result, ids::UserId};

pub(super) async fn all(engine: &PgPool) -> Result<Vec<Flag>> {
    Ok(sqlx::query_as(
        "select name, enabled, percent, updated_at, updated_by from feature_flags order by name",
    )
    .fetch_all(engine)
    .await?)
}

pub(super) async fn set(
    connection: &mut PgConnection,
    name: &str,
    enabled: bool,
    percent: i64,
    by: UserId,
) -> Result<Option<Flag>> {
    Ok(sqlx::query_as(
        "update feature_flags set enabled = $2, percent = $3, updated_at = now(), updated_by = $4
         where name = $1 returning name, enabled, percent, updated_at, updated_by",
    )
    .bind(name)
    .bind(enabled)
    .bind(percent)
    .bind(by)
    .fetch_optional(connection)
    .await?)
}

/// Where the database says that a subject stands.
#[cfg(test)]
pub(super) async fn place(engine: &PgPool, flag: &str, subject: &str) -> Result<i64> {
    Ok(sqlx::query_scalar("select flag_place($1, $2)").bind(flag).bind(subject).fetch_one(engine).await?)
}
