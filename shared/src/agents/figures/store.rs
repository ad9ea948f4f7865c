//! SQL of agents' figures.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{EXCHANGE_BOUNDS, EndedDeliveries};
use crate::error::Result;

pub(super) async fn ended(
    engine: &PgPool,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<EndedDeliveries>> {
    Ok(sqlx::query_as(
        "select agent, status, class, count(*) as count, sum(seconds)::float8 as seconds, sum(retries)::bigint as retries,
                flag_is_on('AGENT_PERFORMANCE_MONITORING', agent) as is_timed
         from (
           select target_agent as agent, status, coalesce(duration_ms, 0) / 1000.0 as seconds, retry_count as retries,
                  (select count(*) from unnest($3::float8[]) bound where bound < coalesce(duration_ms, 0) / 1000.0) as class
           from agent_notification_events where processed_at > $1 and processed_at <= $2
         ) classed
         group by agent, status, class",
    )
    .bind(after)
    .bind(until)
    .bind(EXCHANGE_BOUNDS.as_slice())
    .fetch_all(engine)
    .await?)
}

pub(super) async fn breakers(engine: &PgPool) -> Result<Vec<(String, bool)>> {
    Ok(sqlx::query_as(
        "select b.agent, bool_or(b.open_until is not null) and flag_is_on('CIRCUIT_BREAKER_ENABLED', b.agent)
         from agent_breakers b join agents a on a.tenant_id = b.tenant_id and a.name = b.agent and a.enabled
         join tenants t on t.id = a.tenant_id and t.state = 'active'
         group by b.agent order by b.agent limit 500",
    )
    .fetch_all(engine)
    .await?)
}
