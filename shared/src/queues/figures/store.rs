//! SQL of figures.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};

use super::{BOUNDS, Ended, LastRun, LevelRow, Worker};
use crate::{error::Result, ids::TenantId};

/// A worker that was not heard of for longer is of no use. An idle one beats once a minute.
const HEARD_OF: f64 = 150.0;

pub(super) async fn levels(connection: &mut PgConnection, tenant: Option<TenantId>) -> Result<Vec<LevelRow>> {
    Ok(sqlx::query_as(
        "select queue, level, sum(jobs)::bigint, min(oldest_at) from queue_levels
         where $1::uuid is null or tenant_id = $1 group by queue, level",
    )
    .bind(tenant)
    .fetch_all(connection)
    .await?)
}

pub(super) async fn days(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
) -> Result<Vec<(String, String, i64)>> {
    Ok(sqlx::query_as(
        "select queue, status, sum(jobs)::bigint from queue_counts
         where span = 'day' and at > now() - interval '30 days' and ($1::uuid is null or tenant_id = $1)
         group by queue, status",
    )
    .bind(tenant)
    .fetch_all(connection)
    .await?)
}

pub(super) async fn minutes(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    since: DateTime<Utc>,
) -> Result<Vec<Ended>> {
    Ok(sqlx::query_as(
        "select queue, status, wait_class, run_class, sum(jobs)::bigint as jobs, sum(wait_ms)::bigint as wait_ms,
                sum(run_ms)::bigint as run_ms
         from queue_counts
         where span = 'minute' and at >= $2 and ($1::uuid is null or tenant_id = $1)
         group by queue, status, wait_class, run_class",
    )
    .bind(tenant)
    .bind(since)
    .fetch_all(connection)
    .await?)
}

/// What ended after a moment and is not counted yet.
pub(super) async fn ended_since(
    connection: &mut PgConnection,
    view: &'static str,
    tenant: Option<TenantId>,
    since: DateTime<Utc>,
) -> Result<Vec<Ended>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select queue, status, wait_class, run_class, count(*) as jobs, sum(wait_ms)::bigint as wait_ms, sum(run_ms)::bigint as run_ms
         from (
           select queue, status, wait_ms, run_ms, width_bucket(wait_ms::float8, ",
    );
    query
        .push_bind(BOUNDS.as_slice())
        .push("::float8[])::bigint as wait_class, width_bucket(run_ms::float8, ");
    query.push_bind(BOUNDS.as_slice()).push(
        "::float8[])::bigint as run_class
           from (
             select queue, status,
                    greatest(0, extract(epoch from coalesce(started_at, finished_at) - created_at) * 1000)::bigint as wait_ms,
                    greatest(0, extract(epoch from finished_at - coalesce(started_at, finished_at)) * 1000)::bigint as run_ms
             from ",
    );
    query.push(view).push(" where finished_at > ").push_bind(since);
    if let Some(tenant) = tenant {
        query.push(" and tenant_id = ").push_bind(tenant);
    }
    query.push(") timed) classed group by queue, status, wait_class, run_class");
    Ok(query.build_query_as().fetch_all(connection).await?)
}

pub(super) async fn counted_until(engine: &PgPool) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select counted_until from queue_clock").fetch_one(engine).await?)
}

/// None when somebody else is counting.
pub(super) async fn lock_counting(connection: &mut PgConnection) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar("select counted_until from queue_clock for update skip locked")
        .fetch_optional(connection)
        .await?)
}

pub(super) async fn add_up(
    connection: &mut PgConnection,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "insert into queue_counts (tenant_id, queue, span, at, status, wait_class, run_class, jobs, wait_ms, run_ms)
         select tenant_id, queue, span, date_trunc(span, finished_at, 'UTC'), status, width_bucket(wait_ms::float8, $3::float8[]),
                width_bucket(run_ms::float8, $3::float8[]), count(*), sum(wait_ms), sum(run_ms)
         from (
           select coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') as tenant_id, queue, status, finished_at,
                  greatest(0, extract(epoch from coalesce(started_at, finished_at) - created_at) * 1000)::bigint as wait_ms,
                  greatest(0, extract(epoch from finished_at - coalesce(started_at, finished_at)) * 1000)::bigint as run_ms
           from queue_jobs where finished_at > $1 and finished_at <= $2
         ) ended
         cross join (values ('minute'), ('day')) spans (span)
         where span = 'day' or finished_at > now() - interval '25 hours'
         group by 1, 2, 3, 4, 5, 6, 7
         on conflict (tenant_id, queue, span, at, status, wait_class, run_class) do update
           set jobs = queue_counts.jobs + excluded.jobs, wait_ms = queue_counts.wait_ms + excluded.wait_ms,
               run_ms = queue_counts.run_ms + excluded.run_ms",
    )
    .bind(after)
    .bind(until)
    .bind(BOUNDS.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn counted(connection: &mut PgConnection, until: DateTime<Utc>) -> Result<()> {
    sqlx::query("update queue_clock set counted_until = $1").bind(until).execute(connection).await?;
    Ok(())
}

/// When the last measure was, how long it took, and how old it is, in milliseconds.
pub(super) async fn measured(engine: &PgPool) -> Result<(Option<DateTime<Utc>>, i64, Option<i64>)> {
    Ok(sqlx::query_as(
        "select measured_at, measured_ms, (extract(epoch from clock_timestamp() - measured_at) * 1000)::bigint from queue_clock",
    )
    .fetch_one(engine)
    .await?)
}

/// Each part reads one partial index. None when somebody else is measuring.
pub(super) async fn measure(engine: &PgPool) -> Result<Option<DateTime<Utc>>> {
    let mut tx = crate::db::begin(engine).await?;
    let is_ours: bool =
        sqlx::query_scalar("select pg_try_advisory_xact_lock(7042)").fetch_one(&mut *tx).await?;
    if !is_ours {
        return Ok(None);
    }
    sqlx::query("delete from queue_levels").execute(&mut *tx).await?;
    sqlx::query(
        "insert into queue_levels (tenant_id, queue, level, jobs, oldest_at)
         select tenant_id, queue, level, count(*), min(since)
         from (
           select tenant_id, 'chat-turns' as queue, 'due' as level, created_at as since from turns where state = 'queued'
           union all
           select tenant_id, 'chat-turns', 'due', created_at from turns where state = 'waiting'
           union all
           select tenant_id, 'chat-turns', case when ready_at > clock_timestamp() then 'delayed' else 'due' end, created_at
           from turns where state = 'ready'
           union all
           select tenant_id, 'chat-turns', 'running', started_at from turns where state = 'running'
           union all
           select tenant_id, 'chat-turns', 'parked', created_at from turns where state = 'awaiting_approval'
           union all
           select d.tenant_id, 'agent-deliveries',
                  case when d.leased_until > clock_timestamp() then 'running'
                       when a.enabled is not true or t.state is distinct from 'active' then 'parked'
                       when d.due_at > clock_timestamp() or l.until > clock_timestamp() then 'delayed' else 'due' end,
                  greatest(d.alive_since, d.due_at)
           from agent_notification_events d
           left join agents a on a.tenant_id = d.tenant_id and a.name = d.target_agent
           left join (select b.tenant_id, b.agent, greatest(b.open_until, b.probing_until) as until from agent_breakers b
                      where b.open_until is not null and flag_is_on('CIRCUIT_BREAKER_ENABLED', b.agent)) l
             on l.tenant_id = d.tenant_id and l.agent = d.target_agent
           left join tenants t on t.id = d.tenant_id
           where d.status in ('pending', 'retry')
           union all
           select tenant_id, 'embeddings', case when due_at > clock_timestamp() then 'delayed' else 'due' end, due_at
           from embedding_outbox
           union all
           select coalesce((ticket_body(job) ->> 'tenant')::uuid, '00000000-0000-0000-0000-000000000000'), job_type,
                  case when run_at > clock_timestamp() then 'delayed' else 'due' end, run_at
           from apalis.jobs
           where job_type in ('connection-refresh', 'maintenance')
             and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
           union all
           select coalesce((ticket_body(job) ->> 'tenant')::uuid, '00000000-0000-0000-0000-000000000000'), job_type, 'running', lock_at
           from apalis.jobs
           where job_type in ('connection-refresh', 'maintenance') and status in ('Queued', 'Running')
         ) levels
         group by tenant_id, queue, level",
    )
    .execute(&mut *tx)
    .await?;
    let at = sqlx::query_scalar(
        "update queue_clock set measured_at = clock_timestamp(),
                                measured_ms = (extract(epoch from clock_timestamp() - now()) * 1000)::bigint
         returning measured_at",
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some(at))
}

/// Whether a worker was heard of lately.
pub(in crate::queues) async fn is_worked_on(engine: &PgPool) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from workers where dead_at is null and seen_at > clock_timestamp() - make_interval(secs => $1))",
    )
    .bind(HEARD_OF)
    .fetch_one(engine)
    .await?)
}

pub(super) async fn workers(engine: &PgPool) -> Result<Vec<Worker>> {
    Ok(sqlx::query_as(
        "select w.id, w.host, w.pid, w.started_at, w.seen_at, w.dead_at,
                (select count(*) from turns t where t.process_id = w.id and t.state = 'running') as running_turns
         from workers w order by w.started_at desc limit 1000",
    )
    .fetch_all(engine)
    .await?)
}

pub(super) async fn runs(engine: &PgPool) -> Result<Vec<LastRun>> {
    Ok(sqlx::query_as("select task, started_at, finished_at, error from schedule_runs")
        .fetch_all(engine)
        .await?)
}

pub(super) async fn note_run(
    engine: &PgPool,
    task: &str,
    queue: &str,
    started_at: DateTime<Utc>,
    error: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "insert into schedule_runs (task, queue, started_at, finished_at, error) values ($1, $2, $3, clock_timestamp(), $4)
         on conflict (task) do update
           set queue = excluded.queue, started_at = excluded.started_at, finished_at = excluded.finished_at, error = excluded.error",
    )
    .bind(task)
    .bind(queue)
    .bind(started_at)
    .bind(error)
    .execute(engine)
    .await?;
    Ok(())
}
