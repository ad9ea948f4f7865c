//! SQL of agents' breakers as admins see them.

use std::time::Duration;

use super::AgentBreaker;
use crate::{agents::AgentName, db::TenantTx, error::Result};

pub(super) async fn get(tx: &mut TenantTx, agent: &AgentName) -> Result<AgentBreaker> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select coalesce(b.failures, 0) as failures, b.open_until, b.updated_at,
                coalesce(b.open_until > clock_timestamp(), false) as is_open,
                flag_is_on('CIRCUIT_BREAKER_ENABLED', a.name) as is_heeded
         from agents a left join agent_breakers b on b.tenant_id = a.tenant_id and b.agent = a.name
         where a.tenant_id = $1 and a.name = $2",
    )
    .bind(tenant)
    .bind(agent)
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn reset(tx: &mut TenantTx, agent: &AgentName) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update agent_breakers set failures = 0, open_until = null, probing_until = null, updated_at = now()
         where tenant_id = $1 and agent = $2",
    )
    .bind(tenant)
    .bind(agent)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn open(tx: &mut TenantTx, agent: &AgentName, time: Duration) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "insert into agent_breakers (tenant_id, agent, open_until)
         values ($1, $2, clock_timestamp() + make_interval(secs => $3))
         on conflict (tenant_id, agent) do update
           set open_until = excluded.open_until, probing_until = null, updated_at = now()",
    )
    .bind(tenant)
    .bind(agent)
    .bind(time.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(())
}
