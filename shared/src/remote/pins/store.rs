//! SQL of what was approved of tools.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Described;
use crate::{db::TenantTx, error::Result, ids::UserId};

#[derive(sqlx::FromRow)]
pub(super) struct PinRow {
    pub(super) tool: String,
    pub(super) fingerprint: String,
    pub(super) definition: Value,
    pub(super) approved_at: DateTime<Utc>,
    pub(super) approved_by: Option<UserId>,
}

#[derive(sqlx::FromRow)]
pub(super) struct ChangeRow {
    pub(super) tool: String,
    pub(super) fingerprint: String,
    pub(super) definition: Value,
    pub(super) seen_at: DateTime<Utc>,
}

pub(super) async fn pins(tx: &mut TenantTx, server: &str) -> Result<Vec<PinRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select tool, fingerprint, definition, approved_at, approved_by from mcp_tools
         where tenant_id = $1 and server = $2 order by tool",
    )
    .bind(tenant)
    .bind(server)
    .fetch_all(tx.connection())
    .await?)
}

/// Pins tools that were not seen before, as long as there is room.
pub(super) async fn pin(tx: &mut TenantTx, server: &str, tools: &[&Described], most: i64) -> Result<()> {
    let tenant = tx.actor().tenant;
    let (names, fingerprints, definitions) = columns(tools);
    sqlx::query(
        "insert into mcp_tools (tenant_id, server, tool, fingerprint, definition)
         select $1, $2, t.tool, t.fingerprint, t.definition
         from unnest($3::text[], $4::text[], $5::jsonb[]) t (tool, fingerprint, definition)
         where (select count(*) from mcp_tools o where o.tenant_id = $1 and o.server = $2) + cardinality($3::text[]) <= $6
         order by t.tool
         on conflict (tenant_id, server, tool) do nothing",
    )
    .bind(tenant)
    .bind(server)
    .bind(names)
    .bind(fingerprints)
    .bind(definitions)
    .bind(most)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn note_changes(tx: &mut TenantTx, server: &str, tools: &[&Described]) -> Result<()> {
    let tenant = tx.actor().tenant;
    let (names, fingerprints, definitions) = columns(tools);
    sqlx::query(
        "insert into mcp_tool_changes (tenant_id, server, tool, fingerprint, definition)
         select $1, $2, t.tool, t.fingerprint, t.definition
         from unnest($3::text[], $4::text[], $5::jsonb[]) t (tool, fingerprint, definition)
         order by t.tool
         on conflict (tenant_id, server, tool) do update
         set fingerprint = excluded.fingerprint, definition = excluded.definition, seen_at = now()
         where mcp_tool_changes.fingerprint <> excluded.fingerprint",
    )
    .bind(tenant)
    .bind(server)
    .bind(names)
    .bind(fingerprints)
    .bind(definitions)
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn columns(tools: &[&Described]) -> (Vec<String>, Vec<String>, Vec<Value>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for tool in tools {
        columns.0.push(tool.tool.clone());
        columns.1.push(tool.fingerprint.clone());
        columns.2.push(tool.definition.clone());
    }
    columns
}

pub(super) async fn changes(tx: &mut TenantTx, server: &str) -> Result<Vec<ChangeRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select tool, fingerprint, definition, seen_at from mcp_tool_changes
         where tenant_id = $1 and server = $2 order by tool",
    )
    .bind(tenant)
    .bind(server)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn accept(tx: &mut TenantTx, server: &str, change: &ChangeRow, by: UserId) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update mcp_tools set fingerprint = $4, definition = $5, approved_at = now(), approved_by = $6
         where tenant_id = $1 and server = $2 and tool = $3",
    )
    .bind(tenant)
    .bind(server)
    .bind(&change.tool)
    .bind(&change.fingerprint)
    .bind(&change.definition)
    .bind(by)
    .execute(tx.connection())
    .await?;
    sqlx::query("delete from mcp_tool_changes where tenant_id = $1 and server = $2 and tool = $3")
        .bind(tenant)
        .bind(server)
        .bind(&change.tool)
        .execute(tx.connection())
        .await?;
    Ok(())
}
