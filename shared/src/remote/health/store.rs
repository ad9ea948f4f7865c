//! SQL of servers' health.

use sqlx::PgPool;
use uuid::Uuid;

use super::{Found, Health};
use crate::{db::TenantTx, error::Result, ids::TenantId};

pub(super) async fn of(tx: &mut TenantTx, owners: &[Uuid]) -> Result<Vec<Health>> {
    Ok(sqlx::query_as(
        "select tenant_id, name, checked_at, is_well, latency_ms, detail, since from mcp_server_health
         where tenant_id = any($1)",
    )
    .bind(owners)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn write(engine: &PgPool, owner: TenantId, name: &str, found: &Found) -> Result<()> {
    sqlx::query(
        "insert into mcp_server_health (tenant_id, name, is_well, latency_ms, detail) values ($1, $2, $3, $4, $5)
         on conflict (tenant_id, name) do update
         set checked_at = now(), is_well = excluded.is_well, latency_ms = excluded.latency_ms, detail = excluded.detail,
             since = case when mcp_server_health.is_well = excluded.is_well then mcp_server_health.since else now() end",
    )
    .bind(owner)
    .bind(name)
    .bind(found.is_well)
    .bind(found.latency_ms)
    .bind(&found.detail)
    .execute(engine)
    .await?;
    Ok(())
}

/// Nobody has asked these for a day: they are gone.
pub(super) async fn forget_gone(engine: &PgPool) -> Result<()> {
    sqlx::query("delete from mcp_server_health where checked_at < now() - interval '1 day'")
        .execute(engine)
        .await?;
    Ok(())
}
