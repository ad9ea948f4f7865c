//! SQL of deliveries, as the engine: those of all tenants are claimed together.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    DeliverySettings,
    outcome::{Outcome, Told},
};
use crate::{
    agents::{
        AgentName, EventType,
        contexts::{Document, FIRST_VERSION},
        permissions::Granted,
        store::MatrixRow,
    },
    error::Result,
    ids::{SignInId, TenantId, UserId},
};

/// A delivery that is ours for a while.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Claimed {
    pub(super) tenant_id: TenantId,
    pub(super) id: Uuid,
    pub(super) event_id: Uuid,
    pub(super) target_agent: AgentName,
    pub(super) user_id: UserId,
    pub(super) event_type: String,
    pub(super) payload: Value,
    pub(super) retry_count: i64,
    pub(super) correlation_id: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) lease: Uuid,
    pub(super) breaker_was_open: bool,
}

impl Claimed {
    pub(super) fn agent(&self) -> (TenantId, AgentName) {
        (self.tenant_id, self.target_agent.clone())
    }

    pub(super) fn event(&self) -> EventType {
        EventType::from_word(&self.event_type).unwrap_or(EventType::ContextUpdate)
    }

    /// The version that a change of a context made; a sign-in tells of the newest one.
    fn version(&self) -> Option<i64> {
        match self.event() {
            EventType::ContextUpdate => self.payload.get("version").and_then(Value::as_i64),
            EventType::UserLogin | EventType::UserLogout => None,
        }
    }
}

/// What a delivery needs to know of its agent and its user, as they are now.
pub(super) struct Facts {
    pub(super) endpoint: String,
    pub(super) email: Option<String>,
    /// What the agent may see of its user.
    pub(super) granted: Granted,
    pub(super) document: Document,
    pub(super) version: i64,
    /// The version that the agent was told of last.
    pub(super) told: Option<i64>,
    /// The user's newest sign-in, while one lasts.
    pub(super) sign_in: Option<SignInId>,
    /// Newest first.
    pub(super) secrets: Vec<(Uuid, String)>,
}

#[derive(sqlx::FromRow)]
struct FactsRow {
    endpoint: String,
    email: Option<String>,
    #[sqlx(flatten)]
    matrix: MatrixRow,
    user_level: Option<String>,
    version: Option<i64>,
    context_data: Option<Value>,
    told: Option<i64>,
    sign_in: Option<SignInId>,
}

/// Claims the first delivery of each line that is due, of agents that are enabled, not full and not left alone.
pub(super) async fn claim(
    engine: &PgPool,
    lease: Uuid,
    time: Duration,
    most: usize,
    most_to_one: usize,
    full: &[&(TenantId, AgentName)],
) -> Result<Vec<Claimed>> {
    let full_tenants: Vec<TenantId> = full.iter().map(|(tenant, _)| *tenant).collect();
    let full_agents: Vec<&str> = full.iter().map(|(_, agent)| agent.as_str()).collect();
    Ok(sqlx::query_as(
        "with heads as (
           select d.tenant_id, d.id,
                  b.open_until is not null and flag_is_on('CIRCUIT_BREAKER_ENABLED', d.target_agent) as breaker_was_open,
                  row_number() over (partition by d.tenant_id, d.target_agent order by d.due_at) as place
           from agent_notification_events d
           join agents a on a.tenant_id = d.tenant_id and a.name = d.target_agent and a.enabled
           left join agent_breakers b on b.tenant_id = d.tenant_id and b.agent = d.target_agent
           where d.status in ('pending', 'retry') and d.due_at <= clock_timestamp()
             and (d.leased_until is null or d.leased_until < clock_timestamp())
             and not exists (select from queues where name = 'agent-deliveries' and paused_at is not null)
             and (b.open_until is null or not flag_is_on('CIRCUIT_BREAKER_ENABLED', d.target_agent)
                  or b.open_until <= clock_timestamp()
                     and (b.probing_until is null or b.probing_until < clock_timestamp()))
             and not exists (select from unnest($4::uuid[], $5::text[]) f (tenant_id, agent)
                             where f.tenant_id = d.tenant_id and f.agent = d.target_agent)
             and not exists (select from agent_notification_events e
                             where e.tenant_id = d.tenant_id and e.target_agent = d.target_agent and e.user_id = d.user_id
                               and e.status in ('pending', 'retry') and e.seq < d.seq)
         ), chosen as (
           select d.tenant_id, d.id, h.breaker_was_open
           from agent_notification_events d join heads h on h.tenant_id = d.tenant_id and h.id = d.id
           where h.place <= case when h.breaker_was_open then 1 else $6 end
             and d.status in ('pending', 'retry') and (d.leased_until is null or d.leased_until < clock_timestamp())
           order by d.due_at limit $3
           for update of d skip locked
         )
         update agent_notification_events d
           set lease = $1, leased_until = clock_timestamp() + make_interval(secs => $2)
         from chosen c where d.tenant_id = c.tenant_id and d.id = c.id
         returning d.tenant_id, d.id, d.event_id, d.target_agent, d.user_id, d.event_type, d.payload, d.retry_count,
                   d.correlation_id, d.created_at, d.lease, c.breaker_was_open",
    )
    .bind(lease)
    .bind(time.as_secs_f64())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(&full_tenants)
    .bind(&full_agents)
    .bind(i64::try_from(most_to_one).unwrap_or(i64::MAX))
    .fetch_all(engine)
    .await?)
}

/// Whether this delivery is the one that finds out how an agent is whose breaker was open.
pub(super) async fn probe(engine: &PgPool, claimed: &Claimed, time: Duration) -> Result<bool> {
    let done = sqlx::query(
        "update agent_breakers set probing_until = clock_timestamp() + make_interval(secs => $3), updated_at = now()
         where tenant_id = $1 and agent = $2 and open_until <= clock_timestamp()
           and (probing_until is null or probing_until < clock_timestamp())",
    )
    .bind(claimed.tenant_id)
    .bind(&claimed.target_agent)
    .bind(time.as_secs_f64())
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Somebody else probes the agent: as if it had not been claimed.
pub(super) async fn put_back(engine: &PgPool, claimed: &Claimed) -> Result<()> {
    sqlx::query(
        "update agent_notification_events set lease = null, leased_until = null
         where tenant_id = $1 and id = $2 and lease = $3",
    )
    .bind(claimed.tenant_id)
    .bind(claimed.id)
    .bind(claimed.lease)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn facts(engine: &PgPool, claimed: &Claimed) -> Result<Facts> {
    // What an agent may see is what it may now; what it is told is the version that the delivery is about, so that a delivery
    // that is tried again says the same.
    let row: FactsRow = sqlx::query_as(
        "select a.endpoint, u.email, a.permission_level, a.permissions_required,
                agent_optional_permissions(a) as permissions_optional, a.permissions_forbidden,
                c.context_data -> 'agent_permissions' ->> a.name as user_level,
                coalesce(h.version, c.version) as version, coalesce(h.context_data, c.context_data) as context_data,
                t.version as told, s.id as sign_in
         from agents a left join users u on u.id = $3
         left join user_contexts c on c.tenant_id = $1 and c.user_id = $3
         left join lateral (select version, context_data from user_context_history h
                            where h.tenant_id = $1 and h.user_id = $3 and ($4::bigint is null or h.version <= $4)
                            order by h.version desc limit 1) h on true
         left join agent_context_versions t on t.tenant_id = $1 and t.agent = a.name and t.user_id = $3
         left join lateral (select id from sign_ins s where s.user_id = $3 and s.ended_at is null and s.expires_at > now()
                            order by s.created_at desc limit 1) s on true
         where a.tenant_id = $1 and a.name = $2",
    )
    .bind(claimed.tenant_id)
    .bind(&claimed.target_agent)
    .bind(claimed.user_id)
    .bind(claimed.version())
    .fetch_one(engine)
    .await?;
    let secrets = sqlx::query_as(
        "select id, secret_enc from agent_secrets
         where tenant_id = $1 and agent = $2 and (expires_at is null or expires_at > now()) order by id desc",
    )
    .bind(claimed.tenant_id)
    .bind(&claimed.target_agent)
    .fetch_all(engine)
    .await?;
    Ok(Facts {
        endpoint: row.endpoint,
        email: row.email,
        granted: row.matrix.granted().narrowed(row.user_level.as_deref()),
        document: row.context_data.map(Document::stored).unwrap_or_default(),
        version: row.version.unwrap_or(FIRST_VERSION),
        told: row.told,
        sign_in: row.sign_in,
        secrets,
    })
}

/// Writes what came of a try, and what it says about the agent, in one statement: also which version of the user's context
/// the agent has now. Nothing when the lease was lost.
pub(super) async fn settle(
    engine: &PgPool,
    claimed: &Claimed,
    told: &Told,
    version: Option<i64>,
    outcome: &Outcome,
    elapsed: Duration,
    settings: &DeliverySettings,
) -> Result<()> {
    let pause = match outcome {
        Outcome::Retry(pause) => pause.as_secs_f64(),
        Outcome::Delivered | Outcome::Dead => 0.0,
    };
    sqlx::query(
        "with settled as (
           update agent_notification_events
             set status = $4, error_message = $5, response_status = $6, response_body = $7, duration_ms = $8,
                 retry_count = retry_count + case when $4 = 'retry' then 1 else 0 end, max_retries = $9,
                 due_at = clock_timestamp() + make_interval(secs => $10), lease = null, leased_until = null,
                 processed_at = case when $4 = 'retry' then null else clock_timestamp() end
           where tenant_id = $1 and id = $2 and lease = $3 and status in ('pending', 'retry')
           returning tenant_id, target_agent, user_id
         ), told as (
           insert into agent_context_versions (tenant_id, agent, user_id, version)
           select s.tenant_id, s.target_agent, s.user_id, $15
           from settled s join agents a on a.tenant_id = s.tenant_id and a.name = s.target_agent
           where $15::bigint is not null and $4 = 'delivered'
           on conflict (tenant_id, agent, user_id) do update
             set version = excluded.version, updated_at = now() where agent_context_versions.version < excluded.version
         ), failed as (
           insert into agent_breakers (tenant_id, agent, failures, open_until)
           select s.tenant_id, s.target_agent, 1,
                  case when $12 <= 1 then clock_timestamp() + make_interval(secs => $13) end
           from settled s where $11
           on conflict (tenant_id, agent) do update
             set failures = agent_breakers.failures + 1, probing_until = null, updated_at = now(),
                 open_until = case when agent_breakers.failures + 1 >= $12
                                   then clock_timestamp() + make_interval(secs => $13) end
         ), well as (
           update agent_breakers b set failures = 0, open_until = null, probing_until = null, updated_at = now()
           from settled s where $4 = 'delivered' and b.tenant_id = s.tenant_id and b.agent = s.target_agent
             and (b.failures > 0 or b.open_until is not null)
         ), done_probing as (
           update agent_breakers b set probing_until = null
           from settled s where not $11 and $4 <> 'delivered' and b.tenant_id = s.tenant_id and b.agent = s.target_agent
             and b.probing_until is not null
         )
         update agents a set enabled = false, disabled_because = 'it answered that it is gone (410)', updated_at = now()
         from settled s where $14 and a.tenant_id = s.tenant_id and a.name = s.target_agent",
    )
    .bind(claimed.tenant_id)
    .bind(claimed.id)
    .bind(claimed.lease)
    .bind(outcome.as_str())
    .bind(&told.error)
    .bind(told.status.map(|status| i64::from(status.as_u16())))
    .bind(&told.body)
    .bind(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    .bind(settings.max_retries)
    .bind(pause)
    .bind(told.is_failure())
    .bind(settings.breaker_threshold)
    .bind(settings.breaker_recovery.as_secs_f64())
    .bind(told.is_gone())
    .bind(version)
    .execute(engine)
    .await?;
    Ok(())
}

/// Seconds until the next delivery that may be claimed, none when none waits.
pub(super) async fn next_due(engine: &PgPool) -> Result<Option<Duration>> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(greatest(d.due_at, d.leased_until, case when b.open_until is not null
                  and flag_is_on('CIRCUIT_BREAKER_ENABLED', d.target_agent) then greatest(b.open_until, b.probing_until) end))
                  - clock_timestamp())::float8
         from agent_notification_events d
         join agents a on a.tenant_id = d.tenant_id and a.name = d.target_agent and a.enabled
         left join agent_breakers b on b.tenant_id = d.tenant_id and b.agent = d.target_agent
         where d.status in ('pending', 'retry')
           and not exists (select from queues where name = 'agent-deliveries' and paused_at is not null)
           and not exists (select from agent_notification_events e
                           where e.tenant_id = d.tenant_id and e.target_agent = d.target_agent and e.user_id = d.user_id
                             and e.status in ('pending', 'retry') and e.seq < d.seq)",
    )
    .fetch_one(engine)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

pub(super) async fn give_up_old(engine: &PgPool) -> Result<u64> {
    let done = sqlx::query(
        "update agent_notification_events
           set status = 'failed', error_message = coalesce(error_message, 'it could not be delivered within a day'),
               processed_at = now(), lease = null, leased_until = null
         where status in ('pending', 'retry') and alive_since < now() - interval '24 hours'
           and (leased_until is null or leased_until < now())",
    )
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}
