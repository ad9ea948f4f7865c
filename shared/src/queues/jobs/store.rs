//! SQL of jobs as admins see them. Pages are built from their filter, so that each is planned for what it asks: the words that are
//! pushed into a statement are ours, everything else is bound.

use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Attempt, Facts, Filter, Job, Status};
use crate::{
    error::Result,
    ids::TenantId,
    queues::{QueueDef, Source, View},
};

const COLUMNS: &str = "j.tenant_id, j.id, j.kind, j.state, j.status, j.user_id, j.subject, j.created_at, j.due_at, j.started_at,
    j.finished_at, j.attempts, j.max_attempts, j.error_code, j.error, j.worker,
    exists (select from queue_discards x where x.tenant_id = j.tenant_id and x.queue = j.queue and x.id = j.id) as is_discarded";

/// What to select.
pub(in crate::queues) struct Wanted<'a> {
    /// What the reader may read of the queue.
    pub(in crate::queues) view: View,
    pub(in crate::queues) queue: &'a QueueDef,
    pub(in crate::queues) filter: &'a Filter,
    /// Beside the filter's: one of these. All of them when it is empty.
    pub(in crate::queues) statuses: &'a [Status],
    /// Only those that come after this one.
    pub(in crate::queues) after: Option<Uuid>,
}

pub(super) async fn page(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Job>> {
    let mut query = QueryBuilder::new("");
    wanted.push(&mut query, before, "desc", limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// The oldest of these jobs.
pub(in crate::queues) async fn oldest(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    limit: i64,
) -> Result<Vec<Job>> {
    let mut query = QueryBuilder::new("");
    wanted.push(&mut query, None, "asc", limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// How many there are, counted up to a number.
pub(in crate::queues) async fn count(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    most: i64,
) -> Result<i64> {
    let mut query = QueryBuilder::new("select count(*) from (select from ");
    query.push(wanted.view.name).push(" j where true");
    wanted.push_conditions(&mut query, None);
    query.push(" limit ").push(most.to_string()).push(") counted");
    Ok(query.build_query_scalar().fetch_one(connection).await?)
}

pub(in crate::queues) async fn one(
    connection: &mut PgConnection,
    view: View,
    queue: &QueueDef,
    id: Uuid,
) -> Result<Vec<Job>> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(COLUMNS).push(" from ").push(view.name).push(" j where j.queue = ").push(quoted(queue.name));
    query.push(" and j.id = ").push_bind(id);
    if view.is_of_all && queue.has_tenants() {
        // Their keys begin with the tenant.
        query.push(" and j.tenant_id in (select n.id from tenants n)");
    }
    query.push(" limit 1");
    Ok(query.build_query_as().fetch_all(connection).await?)
}

impl Wanted<'_> {
    /// A tenant's jobs lie together, in the order of their ids. Of all tenants as many are read as the page has, so that no
    /// page sorts a whole table.
    fn push(
        &self,
        query: &mut QueryBuilder<Postgres>,
        before: Option<Uuid>,
        direction: &'static str,
        limit: i64,
    ) {
        let is_of_all = self.view.is_of_all && self.queue.has_tenants() && self.filter.tenant.is_none();
        query.push("select ").push(COLUMNS).push(" from ");
        if is_of_all {
            query.push("tenants n cross join lateral (select * from ").push(self.view.name);
            query.push(" j where j.tenant_id = n.id");
        } else {
            query.push(self.view.name).push(" j where true");
        }
        self.push_conditions(query, before);
        query.push(" order by j.id ").push(direction).push(" limit ").push(limit.to_string());
        if is_of_all {
            query.push(") j order by j.id ").push(direction).push(" limit ").push(limit.to_string());
        }
    }

    fn push_conditions(&self, query: &mut QueryBuilder<Postgres>, before: Option<Uuid>) {
        let Self { queue, filter, .. } = self;
        query.push(" and j.queue = ").push(quoted(queue.name));
        if let Some(tenant) = filter.tenant {
            query.push(" and j.tenant_id = ").push_bind(tenant);
        }
        if let Some(status) = filter.status {
            push_status(query, queue.source, &[status]);
        }
        if !self.statuses.is_empty() {
            push_status(query, queue.source, self.statuses);
        }
        if let Some(kind) = &filter.kind {
            query.push(" and j.kind = ").push_bind(kind.as_str());
        }
        if let Some(subject) = &filter.subject {
            query.push(" and j.subject = ").push_bind(subject.as_str());
        }
        if let Some(since) = filter.since {
            query.push(" and j.created_at >= ").push_bind(since);
        }
        if let Some(until) = filter.until {
            query.push(" and j.created_at < ").push_bind(until);
        }
        if let Some(first) = filter.first_id(queue.source) {
            query.push(" and j.id >= ").push_bind(first);
        }
        if let Some(last) = filter.last_id(queue.source) {
            query.push(" and j.id < ").push_bind(last);
        }
        if let Some(error) = &filter.error {
            query.push(" and strpos(lower(j.error), lower(").push_bind(error.as_str()).push(")) > 0");
        }
        if !filter.with_discarded {
            query.push(
                " and not exists (select from queue_discards x where x.tenant_id = j.tenant_id and x.queue = j.queue and x.id = j.id)",
            );
        }
        if let Some(after) = self.after {
            query.push(" and j.id > ").push_bind(after);
        }
        if let Some(before) = before {
            query.push(" and j.id < ").push_bind(before);
        }
    }
}

/// By the states that indexes are made for, and where one state may be several statuses by those: what Postgres cannot estimate
/// it takes for rare. State by state, because several partial indexes are put together for an OR, and not for an IN.
fn push_status(query: &mut QueryBuilder<Postgres>, source: Source, statuses: &[Status]) {
    let states = statuses.iter().flat_map(|status| status.states(source));
    let states: Vec<String> = states.map(|state| format!("j.state = {}", quoted(state))).collect();
    let words: Vec<String> = statuses.iter().map(|status| quoted(status.as_str())).collect();
    query.push(" and (").push(states.join(" or ")).push(")");
    if source != Source::Turns {
        query.push(" and j.status in (").push(words.join(", ")).push(")");
    }
}

/// Of our own words, which have no quotes in them.
fn quoted(word: &str) -> String {
    format!("'{word}'")
}

fn columns(jobs: &[(TenantId, Uuid)]) -> (Vec<Uuid>, Vec<Uuid>) {
    (jobs.iter().map(|(tenant, _)| tenant.0).collect(), jobs.iter().map(|(_, id)| *id).collect())
}

pub(super) async fn facts_of_turns(
    connection: &mut PgConnection,
    turns: &[(TenantId, Uuid)],
) -> Result<Vec<Facts>> {
    let (tenants, ids) = columns(turns);
    Ok(sqlx::query_as(
        "select t.id, null::timestamptz as open_until, false as is_off, false as is_suspended,
                (select b.id from turns b
                 where b.tenant_id = t.tenant_id and b.conversation_id = t.conversation_id and b.turn_no < t.turn_no
                   and b.state in ('queued', 'waiting', 'ready', 'running', 'awaiting_approval')
                 order by b.turn_no desc limit 1) as behind
         from unnest($1::uuid[], $2::uuid[]) k (tenant_id, id)
         join turns t on t.tenant_id = k.tenant_id and t.id = k.id",
    )
    .bind(tenants)
    .bind(ids)
    .fetch_all(connection)
    .await?)
}

pub(super) async fn facts_of_deliveries(
    connection: &mut PgConnection,
    deliveries: &[(TenantId, Uuid)],
) -> Result<Vec<Facts>> {
    let (tenants, ids) = columns(deliveries);
    Ok(sqlx::query_as(
        "select d.id, t.state <> 'active' as is_suspended, not coalesce(a.enabled, false) as is_off,
                case when b.open_until is not null and flag_is_on('CIRCUIT_BREAKER_ENABLED', d.target_agent)
                     then greatest(b.open_until, b.probing_until) end as open_until,
                (select e.id from agent_notification_events e
                 where e.tenant_id = d.tenant_id and e.target_agent = d.target_agent and e.user_id = d.user_id
                   and e.status in ('pending', 'retry') and e.seq < d.seq
                 order by e.seq desc limit 1) as behind
         from unnest($1::uuid[], $2::uuid[]) k (tenant_id, id)
         join agent_notification_events d on d.tenant_id = k.tenant_id and d.id = k.id
         join tenants t on t.id = d.tenant_id
         left join agents a on a.tenant_id = d.tenant_id and a.name = d.target_agent
         left join agent_breakers b on b.tenant_id = d.tenant_id and b.agent = d.target_agent",
    )
    .bind(tenants)
    .bind(ids)
    .fetch_all(connection)
    .await?)
}

type Known = (Value, Vec<Attempt>);

pub(super) async fn turn(connection: &mut PgConnection, tenant: TenantId, id: Uuid) -> Result<Known> {
    let payload = sqlx::query_scalar(
        "select jsonb_build_object('turn', t.id, 'conversationId', t.conversation_id, 'sessionId', t.session_id, 'turnNo', t.turn_no,
                  'requestId', t.request_id, 'forceRefresh', t.force_refresh, 'retryOf', t.retry_of, 'slot', t.slot,
                  'takeovers', t.takeovers_total, 'ranMs', t.ran_ms, 'cancelReason', t.cancel_reason, 'model', t.model,
                  'tokens', jsonb_build_object('input', t.input_tokens, 'output', t.output_tokens), 'warnings', t.warnings,
                  'retriedBy', (select r.id from turns r where r.tenant_id = t.tenant_id and r.conversation_id = t.conversation_id
                                and r.retry_of = t.id order by r.turn_no desc limit 1),
                  'approvals', coalesce((select jsonb_agg(jsonb_build_object('callId', a.call_id, 'tool', a.tool, 'decision', a.decision,
                                           'requestedAt', a.requested_at, 'expiresAt', a.expires_at) order by a.requested_at)
                                         from approvals a where a.tenant_id = t.tenant_id and a.turn_id = t.id), '[]'),
                  'tools', coalesce((select jsonb_agg(jsonb_build_object('step', s.step, 'callId', s.call_id, 'isError', s.is_error,
                                       'elapsedMs', s.elapsed_ms, 'finishedAt', s.finished_at) order by s.step, s.call_id)
                                     from turn_steps s where s.tenant_id = t.tenant_id and s.turn_id = t.id and s.kind = 'tool'), '[]'))
         from turns t where t.tenant_id = $1 and t.id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    let attempts = sqlx::query_as(
        "select sent_at as at, provider || ':' || model as what, outcome, null as answer,
                (extract(epoch from settled_at - sent_at) * 1000)::bigint as duration_ms
         from model_calls where tenant_id = $1 and turn_id = $2 order by sent_at limit 200",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(connection)
    .await?;
    Ok((payload, attempts))
}

pub(super) async fn delivery(connection: &mut PgConnection, tenant: TenantId, id: Uuid) -> Result<Known> {
    let payload = sqlx::query_scalar(
        "select jsonb_build_object('eventId', d.event_id, 'agent', d.target_agent, 'eventType', d.event_type, 'data', d.payload,
                                   'correlationId', d.correlation_id, 'aliveSince', d.alive_since, 'leasedUntil', d.leased_until)
         from agent_notification_events d where d.tenant_id = $1 and d.id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    // The last try is kept.
    let attempts = sqlx::query_as(
        "select coalesce(d.processed_at, d.due_at) as at, d.target_agent as what, d.duration_ms, d.response_body as answer,
                coalesce(d.response_status::text, d.error_message) as outcome
         from agent_notification_events d
         where d.tenant_id = $1 and d.id = $2 and (d.duration_ms is not null or d.error_message is not null)",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(connection)
    .await?;
    Ok((payload, attempts))
}

pub(super) async fn item(engine: &PgPool, tenant: TenantId, id: Uuid) -> Result<Known> {
    let payload: Option<Value> = sqlx::query_scalar(
        "select jsonb_build_object('uid', uid, 'kind', kind, 'seq', seq) from embedding_outbox where tenant_id = $1 and uid = $2 limit 1",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(engine)
    .await?;
    Ok((payload.unwrap_or_default(), Vec::new()))
}

pub(super) async fn ticket(engine: &PgPool, queue: &str, id: Uuid) -> Result<Known> {
    let payload: Option<Value> = sqlx::query_scalar(
        "select ticket_body(job) || jsonb_build_object('ticket', id, 'priority', priority, 'key', idempotency_key) from apalis.jobs
         where job_type = $1 and job_type in ('connection-refresh', 'maintenance') and ulid_uuid(id) = $2",
    )
    .bind(queue)
    .bind(id)
    .fetch_optional(engine)
    .await?;
    let attempts = sqlx::query_as(
        "select lock_at as at, lock_by as what, coalesce(last_result ->> 'Err', status) as outcome, null as answer,
                (extract(epoch from done_at - lock_at) * 1000)::bigint as duration_ms
         from apalis.jobs
         where job_type = $1 and job_type in ('connection-refresh', 'maintenance') and ulid_uuid(id) = $2 and lock_at is not null",
    )
    .bind(queue)
    .bind(id)
    .fetch_all(engine)
    .await?;
    Ok((payload.unwrap_or_default(), attempts))
}
