//! SQL of maintenance. As the engine; partitions go through audited functions of the owner.

use shared::{
    Error,
    jobs::{self, RefreshTicket},
};
use sqlx::PgPool;

/// One sort of row that expires.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deletion {
    pub(crate) what: &'static str,
    sql: &'static str,
}

/// In an order that foreign keys and readers allow: what hangs on a turn goes before the turn.
pub(crate) const DELETIONS: &[Deletion] = &[
    Deletion {
        what: "idempotency keys over 24 hours old",
        sql: "delete from idempotency_keys where (tenant_id, user_id, route, key) in (
                select tenant_id, user_id, route, key from idempotency_keys
                where created_at < now() - interval '24 hours' limit $1)",
    },
    Deletion {
        what: "expired sessions",
        sql: "delete from user_sessions where (tenant_id, id) in (
                select tenant_id, id from user_sessions where expires_at < now() - interval '1 day' limit $1)",
    },
    Deletion {
        what: "ways to authorization servers that nobody came back from",
        sql: "delete from oauth_flows where (tenant_id, id) in (
                select tenant_id, id from oauth_flows where expires_at < now() limit $1)",
    },
    Deletion {
        what: "steps of turns that ended over 30 days ago",
        sql: "delete from turn_steps where (tenant_id, turn_id, step, call_id) in (
                select s.tenant_id, s.turn_id, s.step, s.call_id from turns t
                join turn_steps s on s.tenant_id = t.tenant_id and s.turn_id = t.id
                where t.finished_at < now() - interval '30 days' limit $1)",
    },
    Deletion {
        what: "approvals of turns that ended over 30 days ago",
        sql: "delete from approvals where (tenant_id, turn_id, call_id) in (
                select a.tenant_id, a.turn_id, a.call_id from turns t
                join approvals a on a.tenant_id = t.tenant_id and a.turn_id = t.id
                where t.finished_at < now() - interval '30 days' limit $1)",
    },
    Deletion {
        what: "turns that ended over 30 days ago",
        sql: "delete from turns where (tenant_id, id) in (
                select t.tenant_id, t.id from turns t
                where t.finished_at < now() - interval '30 days'
                  and not exists (select 1 from turn_steps s where s.tenant_id = t.tenant_id and s.turn_id = t.id) limit $1)",
    },
    Deletion {
        what: "cached answers whose time is up",
        sql: "delete from agent_cache where (tenant_id, scope, owner_id, cache_key) in (
                select tenant_id, scope, owner_id, cache_key from agent_cache where expires_at < now() limit $1
                for update skip locked)",
    },
    Deletion {
        what: "cached answers that a write outdated",
        sql: "delete from agent_cache where (tenant_id, scope, owner_id, cache_key) in (
                select c.tenant_id, c.scope, c.owner_id, c.cache_key from agent_cache_generations g
                join agent_cache c on c.tenant_id = g.tenant_id and c.scope = g.scope and c.owner_id = g.owner_id
                     and c.server = g.server and c.generation < g.generation
                limit $1 for update of c skip locked)",
    },
    Deletion {
        what: "fetches that nobody ended",
        sql: "delete from agent_cache_flights where (tenant_id, scope, owner_id, cache_key) in (
                select tenant_id, scope, owner_id, cache_key from agent_cache_flights
                where expires_at < now() - interval '1 minute' limit $1)",
    },
    Deletion {
        what: "counts of the cache over 90 days old",
        sql: "delete from agent_cache_days where (tenant_id, day, server, tool) in (
                select tenant_id, day, server, tool from agent_cache_days where day < now() - interval '90 days' limit $1)",
    },
    Deletion {
        what: "deliveries to agents over 90 days old",
        sql: "delete from agent_notification_events where (tenant_id, id) in (
                select tenant_id, id from agent_notification_events
                where created_at < now() - interval '90 days' and status in ('delivered', 'failed') limit $1)",
    },
    Deletion {
        what: "versions of contexts over 90 days old, but for the newest",
        sql: "delete from user_context_history where (tenant_id, user_id, version) in (
                select h.tenant_id, h.user_id, h.version from user_context_history h
                join user_contexts c on c.tenant_id = h.tenant_id and c.user_id = h.user_id
                where h.created_at < now() - interval '90 days' and h.version < c.version limit $1)",
    },
    Deletion {
        what: "versions of contexts before the newest 500 of each",
        sql: "delete from user_context_history where (tenant_id, user_id, version) in (
                select h.tenant_id, h.user_id, h.version from user_contexts c
                join user_context_history h on h.tenant_id = c.tenant_id and h.user_id = c.user_id and h.version <= c.version - 500
                limit $1)",
    },
    Deletion {
        what: "events of sign-ins over a year old",
        sql: "delete from authentication_events where (tenant_id, id) in (
                select tenant_id, id from authentication_events where created_at < now() - interval '1 year' limit $1)",
    },
    Deletion {
        what: "sessions of agents that were over 30 days ago",
        sql: "delete from agent_sessions where (tenant_id, id) in (
                select tenant_id, id from agent_sessions where expires_at < now() - interval '30 days' limit $1)",
    },
    Deletion {
        what: "secrets of agents that were replaced",
        sql: "delete from agent_secrets where (tenant_id, agent, id) in (
                select tenant_id, agent, id from agent_secrets where expires_at < now() limit $1)",
    },
    Deletion {
        what: "looks at agents over a day old",
        sql: "delete from agent_health where (tenant_id, agent, id) in (
                select tenant_id, agent, id from agent_health where at < now() - interval '1 day' limit $1)",
    },
    Deletion {
        what: "counts of queues by the minute over 25 hours old, and by the day over 90 days",
        sql: "delete from queue_counts where (tenant_id, queue, span, at, status, wait_class, run_class) in (
                select tenant_id, queue, span, at, status, wait_class, run_class from queue_counts
                where (span = 'minute' and at < now() - interval '25 hours') or (span = 'day' and at < now() - interval '90 days')
                limit $1)",
    },
    Deletion {
        what: "notes of failed jobs that were dealt with over 90 days ago",
        sql: "delete from queue_discards where (tenant_id, queue, id) in (
                select tenant_id, queue, id from queue_discards where at < now() - interval '90 days' limit $1)",
    },
    Deletion {
        what: "rows of processes that died over an hour ago",
        sql: "delete from workers where id in (
                select w.id from workers w
                where coalesce(w.dead_at, w.seen_at) < now() - interval '1 hour'
                  and (w.dead_at is not null or w.seen_at < now() - interval '1 day')
                  and not exists (select 1 from turns t where t.process_id = w.id and t.state = 'running') limit $1)",
    },
];

pub(crate) async fn push_tick(engine: &PgPool, queue: &str, task: &str, tick: i64) -> Result<bool, Error> {
    let mut connection = engine.acquire().await?;
    jobs::push_tick(&mut connection, queue, task, tick).await
}

pub(crate) async fn push_refresh(engine: &PgPool, ticket: &RefreshTicket, tick: i64) -> Result<bool, Error> {
    let mut connection = engine.acquire().await?;
    jobs::push_refresh(&mut connection, ticket, tick).await
}

pub(crate) async fn make_partitions(engine: &PgPool, days: i32) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("select turn_events_make_partitions($1)").bind(days).fetch_one(engine).await?)
}

pub(crate) async fn drop_partition(engine: &PgPool) -> Result<Option<String>, Error> {
    match sqlx::query_scalar("select turn_events_drop_partition()").fetch_one(engine).await {
        Ok(dropped) => Ok(dropped),
        // Somebody reads the day; the next tick tries again.
        Err(sqlx::Error::Database(database)) if database.code().as_deref() == Some("55P03") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn delete(engine: &PgPool, deletion: &Deletion, chunk: i64) -> Result<u64, Error> {
    Ok(sqlx::query(deletion.sql).bind(chunk).execute(engine).await?.rows_affected())
}

/// Calls of more than 30 days ago become one row a day, user and model, a chunk at a time; answers how many did. By
/// tenant, because that is how the index on the day begins.
pub(crate) async fn roll_up_usage(engine: &PgPool, chunk: i64) -> Result<u64, Error> {
    let rolled: i64 = sqlx::query_scalar(
        "with old as (
           delete from model_calls where (tenant_id, id) in (
             select c.tenant_id, c.id from tenants t
             cross join lateral (select m.tenant_id, m.id from model_calls m
                                 where m.tenant_id = t.id and m.sent_at < date_trunc('day', now() - interval '30 days', 'UTC')
                                 order by m.sent_at limit $1) c
             limit $1)
           returning *
         ), rolled as (
           insert into usage_days (tenant_id, user_id, day, provider, model, calls, input_tokens, output_tokens,
                                   cache_read_tokens, cache_write_tokens, cost_micros)
           select tenant_id, user_id, date_trunc('day', sent_at, 'UTC'), provider, model, count(*), sum(input_tokens),
                  sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(cost_micros)
           from old group by 1, 2, 3, 4, 5
           on conflict (tenant_id, user_id, day, provider, model) do update
             set calls = usage_days.calls + excluded.calls, input_tokens = usage_days.input_tokens + excluded.input_tokens,
                 output_tokens = usage_days.output_tokens + excluded.output_tokens,
                 cache_read_tokens = usage_days.cache_read_tokens + excluded.cache_read_tokens,
                 cache_write_tokens = usage_days.cache_write_tokens + excluded.cache_write_tokens,
                 cost_micros = usage_days.cost_micros + excluded.cost_micros
         )
         select count(*) from old",
    )
    .bind(chunk)
    .fetch_one(engine)
    .await?;
    Ok(u64::try_from(rolled).unwrap_or(0))
}

/// Tickets that ended: where the jobs are rows of ours, at once; where the ticket is the job, those that went well after two
/// days and the others after 30.
pub(crate) const TICKETS: Deletion = Deletion {
    what: "tickets that ended",
    sql: "delete from apalis.jobs where id in (
            select id from apalis.jobs
            where (status in ('Done', 'Killed') or (status = 'Failed' and attempts >= max_attempts))
              and done_at < now() - case when job_type in ('chat-turns', 'agent-deliveries', 'embeddings') then interval '30 seconds'
                                         when status = 'Done' then interval '2 days' else interval '30 days' end
            limit $1)",
};

/// Workers of the queues that were not seen for an hour and hold no ticket.
pub(crate) const QUEUE_WORKERS: Deletion = Deletion {
    what: "workers of queues that were not seen for an hour",
    sql: "delete from apalis.workers where id in (
            select w.id from apalis.workers w where w.last_seen < now() - interval '1 hour'
              and not exists (select 1 from apalis.jobs j where j.lock_by = w.id) limit $1)",
};
