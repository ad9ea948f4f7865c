//! SQL of the sweeper. As the engine: it sees every tenant's turns; ending one goes through that tenant's TenantTx.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::{
    error::Result,
    ids::{ConversationId, TenantId, TurnId, UserId},
};

/// A turn that has to be ended or unparked.
#[derive(sqlx::FromRow)]
pub(super) struct Stuck {
    #[sqlx(rename = "tenant_id")]
    pub(super) tenant: TenantId,
    #[sqlx(rename = "id")]
    pub(super) turn: TurnId,
    #[sqlx(rename = "user_id")]
    pub(super) user: UserId,
    #[sqlx(rename = "conversation_id")]
    pub(super) conversation: ConversationId,
    pub(super) cancel_reason: Option<String>,
}

pub(super) async fn try_lock(guard: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("select pg_try_advisory_xact_lock(7042)").fetch_one(guard).await?)
}

pub(super) async fn unfinished(engine: &PgPool) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from turns where state = 'running') or exists (select 1 from turns where state = 'ready')
             or exists (select 1 from turns where state = 'waiting') or exists (select 1 from turns where state = 'queued')
             or exists (select 1 from turns where state = 'awaiting_approval')
             or exists (select 1 from tenant_slots where turn_id is not null)",
    )
    .fetch_one(engine)
    .await?)
}

/// Committed by itself, before any turn is freed: a process that beats again afterwards touches no row and knows.
pub(super) async fn mark_dead(engine: &PgPool, lease: Duration) -> Result<u64> {
    let done = sqlx::query(
        "update workers w set dead_at = clock_timestamp()
         where w.dead_at is null and w.seen_at < clock_timestamp() - make_interval(secs => $1)
           and exists (select 1 from turns t where t.process_id = w.id and t.state = 'running')",
    )
    .bind(lease.as_secs_f64())
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}

/// Frees the turns of dead processes. The lease is replaced, not removed: ids that the dead process issued may never
/// arrive, and the next holder must start above them. One that a stalled transaction holds is left for the next sweep.
pub(super) async fn free_dead(engine: &PgPool, max_takeovers: i64) -> Result<u64> {
    let done = sqlx::query(
        "update turns t set state = 'ready', process_id = null, lease = gen_random_uuid(), ready_at = clock_timestamp(),
                takeovers = t.takeovers + 1, takeovers_total = t.takeovers_total + 1
         from (select d.tenant_id, d.id from turns d
               where d.state = 'running' and d.cancel_requested_at is null and d.takeovers + 1 < $1
                 and not exists (select 1 from workers w where w.id = d.process_id and w.dead_at is null)
               for no key update of d skip locked) dead
         where t.tenant_id = dead.tenant_id and t.id = dead.id",
    )
    .bind(max_takeovers)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}

/// Turns of dead processes that are not tried again, and cancelled ones that nobody ended within a second.
pub(super) async fn to_end(engine: &PgPool, max_takeovers: i64) -> Result<Vec<Stuck>> {
    Ok(sqlx::query_as(
        "select t.tenant_id, t.id, t.user_id, t.conversation_id,
                case when t.cancel_requested_at is not null then coalesce(t.cancel_reason, 'cancelled') end as cancel_reason
         from turns t
         where t.state in ('running', 'ready', 'waiting', 'awaiting_approval')
           and (t.cancel_requested_at < clock_timestamp() - interval '1 second'
                or (t.state = 'running' and (t.takeovers + 1 >= $1 or t.cancel_requested_at is not null)
                    and not exists (select 1 from workers w where w.id = t.process_id and w.dead_at is null)))
         order by t.tenant_id, t.id limit 200",
    )
    .bind(max_takeovers)
    .fetch_all(engine)
    .await?)
}

pub(super) async fn expired(engine: &PgPool) -> Result<Vec<Stuck>> {
    Ok(sqlx::query_as(
        "select distinct t.tenant_id, t.id, t.user_id, t.conversation_id, null::text as cancel_reason
         from approvals a join turns t on t.tenant_id = a.tenant_id and t.id = a.turn_id
         where a.decision is null and a.expires_at < clock_timestamp() and t.state = 'awaiting_approval' limit 200",
    )
    .fetch_all(engine)
    .await?)
}

/// Conversations with a line but no head: their first turn is promoted. Old ones only, so that a finish under way is
/// left alone; the unique index refuses what another process promotes at the same moment.
pub(super) async fn promote_headless(engine: &PgPool) -> Result<u64> {
    let done = sqlx::query(
        "update turns t set state = 'waiting'
         where t.state = 'queued' and t.created_at < clock_timestamp() - interval '2 seconds'
           and t.turn_no = (select min(q.turn_no) from turns q where q.tenant_id = t.tenant_id
                            and q.conversation_id = t.conversation_id and q.state = 'queued')
           and not exists (select 1 from turns h where h.tenant_id = t.tenant_id and h.conversation_id = t.conversation_id
                           and h.state in ('waiting', 'ready', 'running', 'awaiting_approval'))",
    )
    .execute(engine)
    .await;
    match done {
        Ok(done) => Ok(done.rows_affected()),
        Err(sqlx::Error::Database(database)) if database.is_unique_violation() => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Slots of turns that do not hold them any more.
pub(super) async fn free_slots(engine: &PgPool) -> Result<u64> {
    let done = sqlx::query(
        "update tenant_slots s set turn_id = null
         where s.turn_id is not null
           and not exists (select 1 from turns t where t.tenant_id = s.tenant_id and t.id = s.turn_id and t.slot = s.n)",
    )
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn tenants_waiting(engine: &PgPool) -> Result<Vec<TenantId>> {
    Ok(sqlx::query_scalar("select distinct tenant_id from turns where state = 'waiting'")
        .fetch_all(engine)
        .await?)
}

pub(super) async fn late_ready(engine: &PgPool, age: Duration) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from turns where state = 'ready' and ready_at < clock_timestamp() - make_interval(secs => $1))",
    )
    .bind(age.as_secs_f64())
    .fetch_one(engine)
    .await?)
}
