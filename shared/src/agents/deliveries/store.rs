//! SQL of deliveries, as the engine: those of all tenants are claimed together.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    DeliverySettings,
    exchange::Exchange,
    outcome::{Outcome, Settlement, Told},
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
    pub(super) seq: i64,
    pub(super) lease: Uuid,
    pub(super) breaker_was_open: bool,
    /// It may go together with others to its agent.
    pub(super) in_batch: bool,
    /// Whether its user belongs to the tenant. Otherwise it is a dead letter by now; that somebody signed out is told all the same, by
    /// their id alone.
    pub(super) belongs: bool,
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

/// What an exchange needs to know of its agent, and of the user of each delivery, as they are now.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) endpoint: String,
    /// Newest first.
    pub(super) secrets: Vec<(Uuid, String)>,
    /// As many as there are deliveries, in their order.
    pub(super) users: Vec<UserFacts>,
}

/// What a delivery needs to know of its user.
#[derive(Debug)]
pub(super) struct UserFacts {
    pub(super) email: Option<String>,
    /// What the agent may see of the user.
    pub(super) granted: Granted,
    pub(super) document: Document,
    pub(super) version: i64,
    /// The version that the agent was told of last.
    pub(super) told: Option<i64>,
    /// The user's newest sign-in, while one lasts.
    pub(super) sign_in: Option<SignInId>,
}

#[derive(sqlx::FromRow)]
struct FactsRow {
    /// The exchange's.
    exchange: i64,
    endpoint: String,
    email: Option<String>,
    #[sqlx(flatten)]
    matrix: MatrixRow,
    user_level: Option<String>,
    version: Option<i64>,
    context_data: Option<Value>,
    told: Option<i64>,
    sign_in: Option<SignInId>,
    /// The agent's, the same in each row of an exchange.
    secret_ids: Option<Vec<Uuid>>,
    secrets: Option<Vec<String>>,
}

/// How many deliveries are claimed at most.
pub(super) struct Most {
    /// Of all agents.
    pub(super) in_all: usize,
    /// Of one agent, those that go alone.
    pub(super) alone: usize,
    /// Of one agent, those that go in a batch.
    pub(super) in_batch: usize,
}

/// Claims the first delivery of each line that is due, of agents that are enabled, not full and not left alone. Those that were
/// not tried yet may go together, when their agent accepts that. Agents take turns, counted with what is under way with each, so
/// that those that are slow, whose deliveries are therefore the oldest, do not take every place. It looks agent by agent, at no more than it may claim: what waits
/// for one agent costs the others nothing, and what was delivered costs nobody anything. Whether a delivery is its line's first is
/// asked so that the planner expects a yes as a rule: otherwise it reads and sorts all that waits for the agent, and without
/// statistics all that it was ever told.
pub(super) async fn claim(
    engine: &PgPool,
    lease: Uuid,
    time: Duration,
    most: &Most,
    under_way: &HashMap<(TenantId, AgentName), usize>,
    default_tenant: TenantId,
) -> Result<Vec<Claimed>> {
    let tenants: Vec<TenantId> = under_way.keys().map(|(tenant, _)| *tenant).collect();
    let agents: Vec<&str> = under_way.keys().map(|(_, agent)| agent.as_str()).collect();
    let counts: Vec<i64> =
        under_way.values().map(|count| i64::try_from(*count).unwrap_or(i64::MAX)).collect();
    Ok(sqlx::query_as(
        "with asked as (
           select a.tenant_id, a.name, a.accepts_batches, a.left_alone_until is not null as breaker_was_open,
                  $6 - coalesce(b.under_way, 0) as room
           from agents_to_tell() a
           left join unnest($4::uuid[], $5::text[], $9::bigint[]) b (tenant_id, agent, under_way)
             on b.tenant_id = a.tenant_id and b.agent = a.name
           where (a.left_alone_until is null or a.left_alone_until <= clock_timestamp()) and $6 > coalesce(b.under_way, 0)
         ), heads as (
           select a.tenant_id, d.id, a.name as target_agent, d.due_at, a.accepts_batches and d.status = 'pending' as may_join,
                  a.breaker_was_open, a.room
           from asked a cross join lateral (
             select d.id, d.due_at, d.status from agent_notification_events d
             where d.tenant_id = a.tenant_id and d.target_agent = a.name and d.status in ('pending', 'retry')
               and d.due_at <= clock_timestamp() and (d.leased_until is null or d.leased_until < clock_timestamp())
               and (d.seq > (select e.seq from agent_notification_events e
                             where e.tenant_id = a.tenant_id and e.target_agent = a.name and e.user_id = d.user_id
                               and e.status in ('pending', 'retry') order by e.seq limit 1)) is not true
             order by d.due_at
             limit case when a.breaker_was_open then 1 when a.accepts_batches then a.room + $7::bigint else a.room end) d
         ), placed as (
           select h.tenant_id, h.id, h.breaker_was_open, h.room, h.may_join and not h.breaker_was_open as in_batch,
                  row_number() over (partition by h.tenant_id, h.target_agent, h.may_join and not h.breaker_was_open
                                     order by h.due_at) as place
           from heads h
         ), chosen as (
           select d.tenant_id, d.id, p.breaker_was_open, p.in_batch,
                  d.event_type = 'user_logout' or belongs(d.tenant_id, d.user_id, $8) as belongs
           from agent_notification_events d join placed p on p.tenant_id = d.tenant_id and p.id = d.id
           where p.place <= case when p.breaker_was_open then 1 when p.in_batch then $7 else p.room end
             and d.status in ('pending', 'retry') and (d.leased_until is null or d.leased_until < clock_timestamp())
           order by p.place + $6 - p.room, d.due_at limit $3
           for update of d skip locked
         )
         update agent_notification_events d
           set lease = case when c.belongs then $1::uuid end,
               leased_until = case when c.belongs then statement_timestamp() + make_interval(secs => $2) end,
               status = case when c.belongs then d.status else 'failed' end,
               error_message = case when c.belongs then d.error_message else 'the user left the tenant' end,
               processed_at = case when c.belongs then d.processed_at else clock_timestamp() end
         from chosen c where d.tenant_id = c.tenant_id and d.id = c.id
         returning d.tenant_id, d.id, d.event_id, d.target_agent, d.user_id, d.event_type, d.payload, d.retry_count,
                   d.correlation_id, d.created_at, d.seq, $1::uuid as lease, c.breaker_was_open, c.in_batch, c.belongs",
    )
    .bind(lease)
    .bind(time.as_secs_f64())
    .bind(i64::try_from(most.in_all).unwrap_or(i64::MAX))
    .bind(&tenants)
    .bind(&agents)
    .bind(i64::try_from(most.alone).unwrap_or(i64::MAX))
    .bind(i64::try_from(most.in_batch).unwrap_or(i64::MAX))
    .bind(default_tenant)
    .bind(&counts)
    .fetch_all(engine)
    .await?)
}

/// Claims what stands behind the deliveries of an exchange in their lines, as far as it is due and was not tried yet. The lines are
/// ours, because their first deliveries are; what another transaction is about to replace ends its line here, and so does what is
/// about somebody who left: it becomes a dead letter as its line's first.
pub(super) async fn claim_followers(
    engine: &PgPool,
    exchange: &Exchange,
    time: Duration,
    most: usize,
    default_tenant: TenantId,
) -> Result<Vec<Claimed>> {
    Ok(sqlx::query_as(
        "with free as (
           select d.id, d.user_id, d.seq from agent_notification_events d
           where d.tenant_id = $1 and d.target_agent = $2 and d.user_id = any ($3) and d.status = 'pending'
             and d.due_at <= clock_timestamp() and (d.leased_until is null or d.leased_until < clock_timestamp())
             and (d.event_type = 'user_logout' or belongs(d.tenant_id, d.user_id, $7))
           order by d.seq limit $6
           for update of d skip locked
         ), next as (
           select f.id from free f
           where not exists (select from agent_notification_events e
                             where e.tenant_id = $1 and e.target_agent = $2 and e.user_id = f.user_id
                               and e.status in ('pending', 'retry') and e.seq < f.seq and e.lease is distinct from $4
                               and not exists (select from free g where g.id = e.id))
         )
         update agent_notification_events d
           set lease = $4, leased_until = statement_timestamp() + make_interval(secs => $5)
         from next n where d.tenant_id = $1 and d.id = n.id
         returning d.tenant_id, d.id, d.event_id, d.target_agent, d.user_id, d.event_type, d.payload, d.retry_count,
                   d.correlation_id, d.created_at, d.seq, d.lease, false as breaker_was_open, true as in_batch, true as belongs",
    )
    .bind(exchange.tenant)
    .bind(&exchange.agent)
    .bind(exchange.users())
    .bind(exchange.lease)
    .bind(time.as_secs_f64())
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(default_tenant)
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

/// What cannot be told now: as if it had not been claimed.
pub(super) async fn put_back(engine: &PgPool, claimed: &[Claimed]) -> Result<()> {
    let ids: Vec<Uuid> = claimed.iter().map(|delivery| delivery.id).collect();
    let leases: Vec<Uuid> = claimed.iter().map(|delivery| delivery.lease).collect();
    let tenants: Vec<TenantId> = claimed.iter().map(|delivery| delivery.tenant_id).collect();
    sqlx::query(
        "update agent_notification_events d set lease = null, leased_until = null
         from unnest($1::uuid[], $2::uuid[], $3::uuid[]) c (tenant_id, id, lease)
         where d.tenant_id = c.tenant_id and d.id = c.id and d.lease = c.lease",
    )
    .bind(tenants)
    .bind(ids)
    .bind(leases)
    .execute(engine)
    .await?;
    Ok(())
}

/// What these exchanges need to know, one after the other; nothing of one whose agent was removed. What an agent may see is what
/// it may now; what it is told is the version that the delivery is about, so that a delivery that is tried again says the same.
pub(super) async fn facts(engine: &PgPool, exchanges: &[Exchange]) -> Result<Vec<Option<Facts>>> {
    let deliveries = || {
        (0_i64..).zip(exchanges).flat_map(|(place, one)| one.deliveries.iter().map(move |each| (place, each)))
    };
    let rows: Vec<FactsRow> = sqlx::query_as(
        "with told as materialized (
           select d.* from unnest($1::bigint[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[]) with ordinality
             d (exchange, tenant_id, agent, user_id, version, place)
         ), agent as materialized (
           select a.tenant_id, a.name, a.endpoint, a.permission_level, a.permissions_required,
                  agent_optional_permissions(a) as permissions_optional, a.permissions_forbidden,
                  k.ids as secret_ids, k.secrets
           from (select distinct tenant_id, agent from told) d
           join agents a on a.tenant_id = d.tenant_id and a.name = d.agent
           cross join lateral (
             select array_agg(k.id order by k.id desc) as ids, array_agg(k.secret_enc order by k.id desc) as secrets
             from agent_secrets k
             where k.tenant_id = a.tenant_id and k.agent = a.name and (k.expires_at is null or k.expires_at > now())) k
         )
         select d.exchange, a.endpoint, u.email, a.permission_level, a.permissions_required, a.permissions_optional,
                a.permissions_forbidden, c.context_data -> 'agent_permissions' ->> a.name as user_level,
                coalesce(h.version, c.version) as version, coalesce(h.context_data, c.context_data) as context_data,
                t.version as told, s.id as sign_in, a.secret_ids, a.secrets
         from told d join agent a on a.tenant_id = d.tenant_id and a.name = d.agent
         left join users u on u.id = d.user_id
         left join user_contexts c on c.tenant_id = d.tenant_id and c.user_id = d.user_id
         left join lateral (select version, context_data from user_context_history h
                            where h.tenant_id = d.tenant_id and h.user_id = d.user_id
                              and (d.version is null or h.version <= d.version)
                            order by h.version desc limit 1) h on true
         left join agent_context_versions t on t.tenant_id = d.tenant_id and t.agent = d.agent and t.user_id = d.user_id
         left join lateral (select id from sign_ins s
                            where s.user_id = d.user_id and s.ended_at is null and s.expires_at > now()
                            order by s.created_at desc limit 1) s on true
         order by d.place",
    )
    .bind(deliveries().map(|(place, _)| place).collect::<Vec<_>>())
    .bind(deliveries().map(|(_, one)| one.tenant_id).collect::<Vec<_>>())
    .bind(deliveries().map(|(_, one)| one.target_agent.as_str()).collect::<Vec<_>>())
    .bind(deliveries().map(|(_, one)| one.user_id).collect::<Vec<_>>())
    .bind(deliveries().map(|(_, one)| one.version()).collect::<Vec<_>>())
    .fetch_all(engine)
    .await?;
    let mut facts: Vec<Option<Facts>> = exchanges.iter().map(|_| None).collect();
    for row in rows {
        let Some(place) = usize::try_from(row.exchange).ok().and_then(|place| facts.get_mut(place)) else {
            continue;
        };
        place.get_or_insert_with(|| Facts::of_agent(&row)).users.push(row.into());
    }
    Ok(facts)
}

/// Writes what came of an exchange for each of its deliveries, and what it says about the agent, in one statement: also which
/// versions of users' contexts the agent has now. Nothing for a delivery whose lease was lost. One that the agent acknowledged
/// meanwhile is delivered, whatever it answered. A success closes a breaker whose time is over, and no other: it may have been under
/// way when the breaker opened, or when an admin opened it for longer.
pub(super) async fn settle(
    engine: &PgPool,
    exchange: &Exchange,
    told: &Told,
    each: &[Settlement],
    elapsed: Duration,
    settings: &DeliverySettings,
) -> Result<()> {
    let ids: Vec<Uuid> = exchange.deliveries.iter().map(|delivery| delivery.id).collect();
    let statuses: Vec<&str> = each.iter().map(|one| one.outcome.as_str()).collect();
    let errors: Vec<Option<&str>> = each.iter().map(|one| one.told.error.as_deref()).collect();
    let response_statuses: Vec<Option<i64>> =
        each.iter().map(|one| one.told.status.map(|status| i64::from(status.as_u16()))).collect();
    let bodies: Vec<Option<&str>> = each.iter().map(|one| one.told.body.as_deref()).collect();
    let pauses: Vec<f64> = each.iter().map(|one| one.outcome.pause().as_secs_f64()).collect();
    let used: Vec<i64> = each.iter().map(|one| i64::from(matches!(one.outcome, Outcome::Retry(_)))).collect();
    let versions: Vec<Option<i64>> = each.iter().map(|one| one.version).collect();
    sqlx::query(
        "with settled as (
           update agent_notification_events d
             set status = case when d.acknowledged_at is null then g.status else 'delivered' end,
                 error_message = g.error, response_status = g.response_status, response_body = g.response_body,
                 duration_ms = $11, max_retries = $12, lease = null, leased_until = null,
                 retry_count = d.retry_count + case when d.acknowledged_at is null then g.used else 0 end,
                 due_at = clock_timestamp() + make_interval(secs => g.pause),
                 processed_at = case when d.acknowledged_at is null and g.status = 'retry' then null else clock_timestamp() end
           from unnest($2::uuid[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::float8[], $9::bigint[], $10::bigint[])
             g (id, status, error, response_status, response_body, pause, used, version)
           where d.tenant_id = $1 and d.id = g.id and d.lease = $3
             and (d.status in ('pending', 'retry') or d.acknowledged_at is not null)
           returning d.tenant_id, d.target_agent, d.user_id, d.status, g.version
         ), agent as (
           select distinct tenant_id, target_agent from settled
         ), told as (
           insert into agent_context_versions (tenant_id, agent, user_id, version)
           select s.tenant_id, s.target_agent, s.user_id, max(s.version)
           from settled s join agents a on a.tenant_id = s.tenant_id and a.name = s.target_agent
           where s.version is not null and s.status = 'delivered'
           group by s.tenant_id, s.target_agent, s.user_id
           on conflict (tenant_id, agent, user_id) do update
             set version = excluded.version, updated_at = now() where agent_context_versions.version < excluded.version
         ), failed as (
           insert into agent_breakers (tenant_id, agent, failures, open_until)
           select a.tenant_id, a.target_agent, 1,
                  case when $14 <= 1 then clock_timestamp() + make_interval(secs => $15) end
           from agent a where $13
           on conflict (tenant_id, agent) do update
             set failures = agent_breakers.failures + 1, probing_until = null, updated_at = now(),
                 open_until = case when agent_breakers.failures + 1 >= $14 or $18
                                   then greatest(agent_breakers.open_until, clock_timestamp() + make_interval(secs => $15))
                                   else agent_breakers.open_until end
         ), well as (
           update agent_breakers b
             set failures = 0, probing_until = null, updated_at = now(),
                 open_until = case when b.open_until <= clock_timestamp() then null else b.open_until end
           from agent a where $16 and b.tenant_id = a.tenant_id and b.agent = a.target_agent
             and (b.failures > 0 or b.open_until is not null)
         ), done_probing as (
           update agent_breakers b set probing_until = null
           from agent a where not $13 and not $16 and b.tenant_id = a.tenant_id and b.agent = a.target_agent
             and b.probing_until is not null
         ), ended as (
           update agent_sessions c set is_active = false
           from agent s where $17 and c.tenant_id = s.tenant_id and c.agent_name = s.target_agent and c.is_active
         )
         update agents a set enabled = false, disabled_because = 'it answered that it is gone (410)', updated_at = now()
         from agent s where $17 and a.tenant_id = s.tenant_id and a.name = s.target_agent",
    )
    .bind(exchange.tenant)
    .bind(ids)
    .bind(exchange.lease)
    .bind(statuses)
    .bind(errors)
    .bind(response_statuses)
    .bind(bodies)
    .bind(pauses)
    .bind(used)
    .bind(versions)
    .bind(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    .bind(settings.max_retries)
    .bind(told.is_failure())
    .bind(settings.breaker_threshold)
    .bind(settings.breaker_recovery.as_secs_f64())
    .bind(told.is_well())
    .bind(told.is_gone())
    .bind(exchange.is_probe())
    .execute(engine)
    .await?;
    Ok(())
}

/// Seconds until the next delivery that may be claimed, none when none waits. The first thousand of each agent tell; should they
/// all stand behind something that is not due, the schedule finds what is. Of what somebody has claimed, the first tells when to look
/// again.
pub(super) async fn next_due(engine: &PgPool) -> Result<Option<Duration>> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(greatest(d.at, a.left_alone_until)) - clock_timestamp())::float8
         from agents_to_tell() a cross join lateral (
           (select d.due_at as at
            from (select due_at, leased_until, user_id, seq from agent_notification_events
                  where tenant_id = a.tenant_id and target_agent = a.name and status in ('pending', 'retry')
                  order by due_at limit 1000) d
            where (d.leased_until is null or d.leased_until < clock_timestamp())
              and (d.seq > (select e.seq from agent_notification_events e
                            where e.tenant_id = a.tenant_id and e.target_agent = a.name and e.user_id = d.user_id
                              and e.status in ('pending', 'retry') order by e.seq limit 1)) is not true
            order by d.due_at limit 1)
           union all
           (select d.leased_until
            from (select due_at, leased_until from agent_notification_events
                  where tenant_id = a.tenant_id and target_agent = a.name and status in ('pending', 'retry')
                  order by due_at limit 200) d
            where d.leased_until >= clock_timestamp()
            order by d.due_at limit 1)) d",
    )
    .fetch_one(engine)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// How many are given up in one statement.
const CHUNK: u64 = 5000;

pub(super) async fn give_up_old(engine: &PgPool) -> Result<u64> {
    let mut given_up = 0;
    loop {
        let done = sqlx::query(
            "with old as (
               select tenant_id, id from agent_notification_events
               where status in ('pending', 'retry') and alive_since < now() - interval '24 hours'
                 and (leased_until is null or leased_until < now())
               limit $1 for update skip locked
             )
             update agent_notification_events d
               set status = 'failed', error_message = coalesce(error_message, 'it could not be delivered within a day'),
                   processed_at = now(), lease = null, leased_until = null
             from old where d.tenant_id = old.tenant_id and d.id = old.id",
        )
        .bind(i64::try_from(CHUNK).unwrap_or(i64::MAX))
        .execute(engine)
        .await?
        .rows_affected();
        given_up += done;
        if done < CHUNK {
            return Ok(given_up);
        }
    }
}

impl Facts {
    fn of_agent(row: &FactsRow) -> Self {
        let ids = row.secret_ids.iter().flatten().copied();
        let sealed = row.secrets.iter().flatten().cloned();
        Self { endpoint: row.endpoint.clone(), secrets: ids.zip(sealed).collect(), users: Vec::new() }
    }
}

impl From<FactsRow> for UserFacts {
    fn from(row: FactsRow) -> Self {
        Self {
            email: row.email,
            granted: row.matrix.granted().narrowed(row.user_level.as_deref()),
            document: row.context_data.map(Document::stored).unwrap_or_default(),
            version: row.version.unwrap_or(FIRST_VERSION),
            told: row.told,
            sign_in: row.sign_in,
        }
    }
}
