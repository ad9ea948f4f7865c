//! SQL of tenant settings.

use super::{Policies, Policy};
use crate::{db::TenantTx, error::Result};

pub(super) async fn policies(tx: &mut TenantTx) -> Result<Policies> {
    let tenant = tx.actor().tenant;
    let rows: Vec<(String, String)> =
        sqlx::query_as("select tool, policy from tool_policies where tenant_id = $1")
            .bind(tenant)
            .fetch_all(tx.connection())
            .await?;
    Ok(rows.into_iter().map(|(tool, policy)| (tool, Policy::from_word(&policy))).collect())
}

pub(super) async fn set_policy(tx: &mut TenantTx, tool: &str, policy: Policy) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "insert into tool_policies (tenant_id, tool, policy) values ($1, $2, $3)
         on conflict (tenant_id, tool) do update set policy = excluded.policy, updated_at = now()",
    )
    .bind(tenant)
    .bind(tool)
    .bind(policy.as_str())
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn clear_policy(tx: &mut TenantTx, tool: &str) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query("delete from tool_policies where tenant_id = $1 and tool = $2")
        .bind(tenant)
        .bind(tool)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn name(tx: &mut TenantTx) -> Result<Option<String>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select name from tenants where id = $1")
        .bind(tenant)
        .fetch_optional(tx.connection())
        .await?)
}

pub(super) async fn system_prompt(tx: &mut TenantTx) -> Result<Option<String>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select system_prompt from tenants where id = $1")
        .bind(tenant)
        .fetch_one(tx.connection())
        .await?)
}

pub(super) async fn set_system_prompt(tx: &mut TenantTx, prompt: Option<&str>) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("update tenants set system_prompt = $2 where id = $1")
        .bind(tenant)
        .bind(prompt)
        .execute(tx.connection())
        .await?;
    Ok(())
}
