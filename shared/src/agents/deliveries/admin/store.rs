//! SQL of deliveries as admins see them. A page is built from its filter, so that each is planned for what it asks: the words that are
//! pushed into the statement are ours, everything else is bound.

use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Delivery, Filter};
use crate::{agents::AgentName, db::TenantTx, error::Result};

const COLUMNS: &str = "id, event_id, target_agent, user_id, event_type, payload, status, error_message, retry_count, max_retries,
    correlation_id, created_at, processed_at, due_at, response_status, response_body, duration_ms, acknowledged_at";

pub(super) async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Delivery>> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query
        .push(COLUMNS)
        .push(" from agent_notification_events where tenant_id = ")
        .push_bind(tx.actor().tenant);
    if let Some(agent) = &filter.agent {
        query.push(" and target_agent = ").push_bind(agent.as_str());
    }
    if let Some(status) = filter.status {
        // As a word of the statement: what is bound does not lead to the index of dead letters.
        query.push(" and status = '").push(status.as_str()).push("'");
    }
    if let Some(user) = filter.user {
        query.push(" and user_id = ").push_bind(user);
    }
    if let Some(since) = filter.since {
        query.push(" and created_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" and created_at < ").push_bind(until);
    }
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    Ok(query.build_query_as().fetch_all(tx.connection()).await?)
}

pub(super) async fn one(tx: &mut TenantTx, id: Uuid) -> Result<Option<Delivery>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select id, event_id, target_agent, user_id, event_type, payload, status, error_message, retry_count, max_retries,
                correlation_id, created_at, processed_at, due_at, response_status, response_body, duration_ms,
                acknowledged_at
         from agent_notification_events where tenant_id = $1 and id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?)
}

/// A dead letter is as it was at first, in its old place of its line, whatever an admin has done to it in the queue. False when it is
/// none, or its agent is gone.
pub(super) async fn replay(tx: &mut TenantTx, id: Uuid) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "with taken_back as (
           delete from queue_discards where tenant_id = $1 and queue = 'agent-deliveries' and id = $2
         )
         update agent_notification_events d
           set status = 'pending', retry_count = 0, error_message = null, processed_at = null, due_at = clock_timestamp(),
               alive_since = clock_timestamp()
         where d.tenant_id = $1 and d.id = $2 and d.status = 'failed'
           and exists (select from agents a where a.tenant_id = $1 and a.name = d.target_agent)",
    )
    .bind(tenant)
    .bind(id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn count_dead(tx: &mut TenantTx, filter: &Filter) -> Result<i64> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "select count(*) from agent_notification_events d
         where d.tenant_id = $1 and d.status = 'failed' and ($2::text is null or d.target_agent = $2)
           and ($3::uuid is null or d.user_id = $3) and ($4::timestamptz is null or d.created_at >= $4)
           and ($5::timestamptz is null or d.created_at < $5)
           and exists (select from agents a where a.tenant_id = $1 and a.name = d.target_agent)
           and not exists (select from queue_discards x
                           where x.tenant_id = $1 and x.queue = 'agent-deliveries' and x.id = d.id)",
    )
    .bind(tenant)
    .bind(filter.agent.as_ref().map(AgentName::as_str))
    .bind(filter.user)
    .bind(filter.since)
    .bind(filter.until)
    .fetch_one(tx.connection())
    .await?)
}

/// As [`replay`], the oldest first and in their order, but for those that an admin has discarded.
pub(super) async fn replay_all(tx: &mut TenantTx, filter: &Filter, most: i64) -> Result<i64> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "with dead as (
           select d.id, row_number() over (order by d.seq) as place
           from agent_notification_events d
           where d.tenant_id = $1 and d.status = 'failed' and ($2::text is null or d.target_agent = $2)
             and ($3::uuid is null or d.user_id = $3) and ($4::timestamptz is null or d.created_at >= $4)
             and ($5::timestamptz is null or d.created_at < $5)
             and exists (select from agents a where a.tenant_id = $1 and a.name = d.target_agent)
             and not exists (select from queue_discards x
                             where x.tenant_id = $1 and x.queue = 'agent-deliveries' and x.id = d.id)
           order by d.seq limit $6
         )
         update agent_notification_events d
           set status = 'pending', retry_count = 0, error_message = null, processed_at = null,
               due_at = clock_timestamp() + dead.place * interval '1 microsecond', alive_since = clock_timestamp()
         from dead where d.tenant_id = $1 and d.id = dead.id and d.status = 'failed'",
    )
    .bind(tenant)
    .bind(filter.agent.as_ref().map(AgentName::as_str))
    .bind(filter.user)
    .bind(filter.since)
    .bind(filter.until)
    .bind(most)
    .execute(tx.connection())
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}
