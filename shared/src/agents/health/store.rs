//! SQL of the health of agents.

use sqlx::PgPool;

use super::Check;
use crate::{agents::AgentName, db::TenantTx, error::Result, ids::TenantId};

/// Those that are to be asked, first those that were asked longest ago.
pub(super) async fn enabled(engine: &PgPool) -> Result<Vec<(TenantId, AgentName, String)>> {
    Ok(sqlx::query_as(
        "select a.tenant_id, a.name, a.endpoint
         from agents a join tenants t on t.id = a.tenant_id and t.state = 'active'
         left join lateral (select h.at from agent_health h where h.tenant_id = a.tenant_id and h.agent = a.name
                            order by h.id desc limit 1) h on true
         where a.enabled and flag_is_on('AGENT_PERFORMANCE_MONITORING', a.name)
         order by h.at nulls first, a.tenant_id, a.name",
    )
    .fetch_all(engine)
    .await?)
}

/// Keeps the checks of agents that are still there, and a day of those before.
pub(super) async fn keep(engine: &PgPool, checks: &[(TenantId, AgentName, Check)]) -> Result<()> {
    let tenants: Vec<TenantId> = checks.iter().map(|(tenant, ..)| *tenant).collect();
    let agents: Vec<&str> = checks.iter().map(|(_, agent, _)| agent.as_str()).collect();
    let healthy: Vec<bool> = checks.iter().map(|(.., check)| check.healthy).collect();
    let statuses: Vec<Option<i64>> = checks.iter().map(|(.., check)| check.status).collect();
    let durations: Vec<i64> = checks.iter().map(|(.., check)| check.duration_ms).collect();
    let errors: Vec<Option<&str>> = checks.iter().map(|(.., check)| check.error.as_deref()).collect();
    sqlx::query(
        "with old as (delete from agent_health where at < now() - interval '1 day')
         insert into agent_health (tenant_id, agent, healthy, status, duration_ms, error)
         select c.tenant_id, c.agent, c.healthy, c.status, c.duration_ms, c.error
         from unnest($1::uuid[], $2::text[], $3::boolean[], $4::bigint[], $5::bigint[], $6::text[])
              c (tenant_id, agent, healthy, status, duration_ms, error)
         join agents a on a.tenant_id = c.tenant_id and a.name = c.agent",
    )
    .bind(&tenants)
    .bind(&agents)
    .bind(&healthy)
    .bind(&statuses)
    .bind(&durations)
    .bind(&errors)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn history(tx: &mut TenantTx, agent: &AgentName, most: i64) -> Result<Vec<Check>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select at, healthy, status, duration_ms, error from agent_health
         where tenant_id = $1 and agent = $2 order by id desc limit $3",
    )
    .bind(tenant)
    .bind(agent)
    .bind(most)
    .fetch_all(tx.connection())
    .await?)
}
