//! SQL of remote servers.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use super::DEPLOYMENT;
use crate::{db::TenantTx, error::Result, ids::TenantId};

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) tenant_id: TenantId,
    pub(super) definition: Value,
    pub(super) bearer_enc: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// The deployment's rows, then the tenant's.
pub(super) async fn all(tx: &mut TenantTx) -> Result<Vec<Row>> {
    let tenants = [DEPLOYMENT.0, tx.actor().tenant.0];
    Ok(sqlx::query_as(
        "select tenant_id, definition, bearer_enc, created_at, updated_at from mcp_servers
         where tenant_id = any($1) order by tenant_id, name",
    )
    .bind(&tenants[..])
    .fetch_all(tx.connection())
    .await?)
}

/// When an admin last approved a change of each server's tools.
pub(super) async fn approvals(tx: &mut TenantTx) -> Result<Vec<(String, DateTime<Utc>)>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select server, max(approved_at) from mcp_tools
         where tenant_id = $1 and approved_by is not null group by server",
    )
    .bind(tenant)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn page_of_all(
    engine: &PgPool,
    after: Option<(TenantId, String)>,
    limit: i64,
) -> Result<Vec<Row>> {
    let (tenant, name) = after.unzip();
    Ok(sqlx::query_as(
        "select s.tenant_id, s.definition, s.bearer_enc, s.created_at, s.updated_at from mcp_servers s
         where ($1::uuid is null or (s.tenant_id, s.name) > ($1, $2)) and s.definition->>'enabled' = 'true'
         order by s.tenant_id, s.name limit $3",
    )
    .bind(tenant)
    .bind(name)
    .bind(limit)
    .fetch_all(engine)
    .await?)
}

/// The row, locked for a change.
pub(super) async fn locked(
    connection: &mut PgConnection,
    owner: TenantId,
    name: &str,
) -> Result<Option<Row>> {
    Ok(sqlx::query_as(
        "select tenant_id, definition, bearer_enc, created_at, updated_at from mcp_servers
         where tenant_id = $1 and name = $2 for update",
    )
    .bind(owner)
    .bind(name)
    .fetch_optional(connection)
    .await?)
}

/// False when there is one of that name.
pub(super) async fn insert(
    connection: &mut PgConnection,
    owner: TenantId,
    name: &str,
    definition: &Value,
    bearer: Option<&str>,
    bearer_for: &str,
) -> Result<bool> {
    let done = sqlx::query(
        "insert into mcp_servers (tenant_id, name, definition, bearer_enc, bearer_for)
         values ($1, $2, $3, $4::text, case when $4::text is not null then $5::text end)
         on conflict (tenant_id, name) do nothing",
    )
    .bind(owner)
    .bind(name)
    .bind(definition)
    .bind(bearer)
    .bind(bearer_for)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn update(
    connection: &mut PgConnection,
    owner: TenantId,
    name: &str,
    definition: &Value,
    bearer: Option<&str>,
    bearer_for: &str,
) -> Result<()> {
    sqlx::query(
        "update mcp_servers set definition = $3, bearer_enc = $4::text,
           bearer_for = case when $4::text is not null then $5::text end, updated_at = now()
         where tenant_id = $1 and name = $2",
    )
    .bind(owner)
    .bind(name)
    .bind(definition)
    .bind(bearer)
    .bind(bearer_for)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn delete(connection: &mut PgConnection, owner: TenantId, name: &str) -> Result<bool> {
    let done = sqlx::query("delete from mcp_servers where tenant_id = $1 and name = $2")
        .bind(owner)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What was approved of a server is approved of that server at that address only. For the deployment's: in every tenant.
pub(super) async fn drop_pins(connection: &mut PgConnection, owner: TenantId, name: &str) -> Result<()> {
    sqlx::query("delete from mcp_tools where ($1::uuid = '00000000-0000-0000-0000-000000000000' or tenant_id = $1) and server = $2")
        .bind(owner)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from mcp_tool_changes where ($1::uuid = '00000000-0000-0000-0000-000000000000' or tenant_id = $1) and server = $2")
        .bind(owner)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}
