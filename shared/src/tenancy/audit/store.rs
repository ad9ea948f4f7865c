//! SQL of the audit log.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Entry, Recorded};
use crate::{
    db::TenantTx,
    error::Result,
    ids::{TenantId, UserId},
};

pub(super) struct By<'a> {
    pub(super) user: Option<UserId>,
    pub(super) acted_as: &'static str,
    pub(super) request_id: Option<&'a str>,
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    by: &By<'_>,
    entry: &Entry<'_>,
) -> Result<()> {
    sqlx::query(
        "insert into audit_log (tenant_id, user_id, acted_as, action, target, details, request_id)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant)
    .bind(by.user)
    .bind(by.acted_as)
    .bind(entry.action)
    .bind(entry.target)
    .bind(&entry.details)
    .bind(by.request_id)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn list(tx: &mut TenantTx, before: Option<Uuid>, limit: i64) -> Result<Vec<Recorded>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select id, at, user_id, acted_as, action, target, details, request_id from audit_log
         where tenant_id = $1 and id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
         order by id desc limit $3",
    )
    .bind(tenant)
    .bind(before)
    .bind(limit)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn forget_agents(engine: &PgPool, chunk: i64) -> Result<i64> {
    Ok(sqlx::query_scalar("select audit_log_forget_agents($1)").bind(chunk).fetch_one(engine).await?)
}
