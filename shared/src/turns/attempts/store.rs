//! SQL of claims, processes and giving turns back.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgPool, Row, postgres::PgRow};

use super::{Claimed, Claiming, fresh_lease};
use crate::{
    db::TenantTx,
    error::Result,
    events::Lease,
    identity::Actor,
    ids::{ProcessId, TurnId},
    turns::SOLO_FROM_TAKEOVERS,
};

pub(super) async fn register(engine: &PgPool, process: ProcessId, host: &str, pid: i64) -> Result<()> {
    sqlx::query("insert into workers (id, host, pid) values ($1, $2, $3)")
        .bind(process)
        .bind(host)
        .bind(pid)
        .execute(engine)
        .await?;
    Ok(())
}

pub(super) async fn heartbeat(pulse: &PgPool, process: ProcessId) -> Result<bool> {
    let done =
        sqlx::query("update workers set seen_at = clock_timestamp() where id = $1 and dead_at is null")
            .bind(process)
            .execute(pulse)
            .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn unregister(engine: &PgPool, process: ProcessId) -> Result<()> {
    sqlx::query(
        "delete from workers where id = $1 and not exists (select 1 from turns where process_id = $1 and state = 'running')",
    )
    .bind(process)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn claim(engine: &PgPool, process: ProcessId, claiming: Claiming) -> Result<Vec<Claimed>> {
    let rows = sqlx::query(
        "with picked as materialized (
           select tenant_id, id, lease, started_at from turns
           where state = 'ready' and ready_at <= now() and (takeovers >= $4) = $3
             and exists (select 1 from workers where id = $1 and dead_at is null)
             and not exists (select 1 from queues where name = 'chat-turns' and paused_at is not null)
           order by priority desc, ready_at
           limit $2 for update skip locked
         ), beat as (
           -- An idle process does not beat; others must not take it for dead now that it holds a turn.
           update workers set seen_at = clock_timestamp() where id = $1 and exists (select 1 from picked)
         ), claimed as (
           update turns t set state = 'running', lease = gen_random_uuid(), process_id = $1,
                  started_at = coalesce(t.started_at, clock_timestamp())
           from picked p where t.tenant_id = p.tenant_id and t.id = p.id
           returning t.tenant_id, t.id, t.lease, t.user_id, t.conversation_id, t.session_id, t.turn_no, t.slot, t.attempts,
                     t.max_attempts, t.takeovers, t.cancel_requested_at, t.cancel_reason, t.request_id, t.force_refresh,
                     t.created_at, t.ran_ms, p.lease is not null as taken, p.started_at is not null as ran_before
         )
         select c.*, v.chat_uid, (extract(epoch from clock_timestamp() - c.created_at) * 1000)::bigint as elapsed_ms
         from claimed c
         join conversations v on v.tenant_id = c.tenant_id and v.id = c.conversation_id",
    )
    .bind(process)
    .bind(claiming.limit)
    .bind(claiming.solo)
    .bind(SOLO_FROM_TAKEOVERS)
    .fetch_all(engine)
    .await?;
    let ran_before: Vec<TurnId> = rows
        .iter()
        .filter(|row| row.try_get("ran_before").unwrap_or(true))
        .map(|row| row.try_get("id"))
        .collect::<Result<_, _>>()?;
    let tails = match ran_before.is_empty() {
        true => HashMap::new(),
        false => last_events(engine, process, &ran_before).await?,
    };
    Ok(rows.iter().map(|row| claimed(row, &tails)).collect::<Result<_, sqlx::Error>>()?)
}

/// The last event of turns that this process just claimed. Nobody else can append to them any more, so this may be a
/// statement of its own; within the claim it would make every claim open all partitions of the log.
async fn last_events(engine: &PgPool, process: ProcessId, turns: &[TurnId]) -> Result<HashMap<TurnId, i64>> {
    let rows: Vec<(TurnId, i64)> = sqlx::query_as(
        "select t.id, coalesce(e.last_seq, 0) from turns t
         cross join lateral (select max(seq) as last_seq from turn_events e
                             where e.tenant_id = t.tenant_id and e.turn_id = t.id) e
         where t.process_id = $1 and t.state = 'running' and t.id = any($2)",
    )
    .bind(process)
    .bind(turns)
    .fetch_all(engine)
    .await?;
    Ok(rows.into_iter().collect())
}

fn claimed(row: &PgRow, tails: &HashMap<TurnId, i64>) -> Result<Claimed, sqlx::Error> {
    let (taken, elapsed_ms): (bool, i64) = (row.try_get("taken")?, row.try_get("elapsed_ms")?);
    // A turn that never ran has its first event and no other.
    let last_seq = tails.get(&row.try_get("id")?).copied().unwrap_or(1);
    let tenant = row.try_get("tenant_id")?;
    Ok(Claimed {
        lease: Lease::new(tenant, row.try_get("id")?, row.try_get("lease")?),
        actor: Actor::of_turn(tenant, row.try_get("user_id")?),
        conversation: row.try_get("conversation_id")?,
        chat: row.try_get("chat_uid")?,
        session: row.try_get("session_id")?,
        turn_no: row.try_get("turn_no")?,
        slot: row.try_get("slot")?,
        attempts: row.try_get("attempts")?,
        max_attempts: row.try_get("max_attempts")?,
        takeovers: row.try_get("takeovers")?,
        ran: Duration::from_millis(u64::try_from(row.try_get::<i64, _>("ran_ms")?).unwrap_or(0)),
        last_seq,
        next_seq: if taken { (last_seq + 1).max((elapsed_ms << 12) + 1) } else { last_seq + 1 },
        taken,
        elapsed_ms,
        cancel_requested: row
            .try_get::<Option<chrono::DateTime<chrono::Utc>>, _>("cancel_requested_at")?
            .is_some(),
        cancel_reason: row.try_get("cancel_reason")?,
        request_id: row.try_get("request_id")?,
        force_refresh: row.try_get("force_refresh")?,
        created_at: row.try_get("created_at")?,
    })
}

pub(super) async fn forget(engine: &PgPool, process: ProcessId, known: &[TurnId]) -> Result<u64> {
    // The lease stays set: whoever runs the turn next must not count on ids that this process may have issued.
    let done = sqlx::query(
        "update turns set state = 'ready', process_id = null, lease = gen_random_uuid(), ready_at = clock_timestamp()
         where process_id = $1 and state = 'running' and not id = any($2)",
    )
    .bind(process)
    .bind(known)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn solo_waiting(engine: &PgPool) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from turns where state = 'ready' and takeovers >= $1 and ready_at <= now())",
    )
    .bind(SOLO_FROM_TAKEOVERS)
    .fetch_one(engine)
    .await?)
}

pub(super) async fn hand_back(tx: &mut TenantTx, lease: &Lease) -> Result<bool> {
    let done = sqlx::query(
        "update turns set state = 'ready', lease = null, process_id = null, ready_at = clock_timestamp()
         where tenant_id = $1 and id = $2 and lease = $3 and state = 'running'",
    )
    .bind(lease.tenant)
    .bind(lease.turn)
    .bind(lease.token)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn retry_later(tx: &mut TenantTx, lease: &Lease, delay: Duration) -> Result<bool> {
    let done = sqlx::query(
        "update turns set state = 'ready', lease = null, process_id = null, attempts = attempts + 1,
                ready_at = clock_timestamp() + make_interval(secs => $4)
         where tenant_id = $1 and id = $2 and lease = $3 and state = 'running'",
    )
    .bind(lease.tenant)
    .bind(lease.turn)
    .bind(lease.token)
    .bind(delay.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts the last failure of a turn and gives up the lease in an orderly way: all its events are in the log.
pub(super) async fn count_attempt(tx: &mut TenantTx, lease: &Lease) -> Result<bool> {
    let done = sqlx::query(
        "update turns set attempts = attempts + 1, lease = $4
         where tenant_id = $1 and id = $2 and lease = $3 and state = 'running'",
    )
    .bind(lease.tenant)
    .bind(lease.turn)
    .bind(lease.token)
    .bind(fresh_lease())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn cancel_reason(engine: &PgPool, lease: &Lease) -> Result<Option<String>> {
    let reason: Option<Option<String>> =
        sqlx::query_scalar("select cancel_reason from turns where tenant_id = $1 and id = $2 and lease = $3")
            .bind(lease.tenant)
            .bind(lease.turn)
            .bind(lease.token)
            .fetch_optional(engine)
            .await?;
    Ok(reason.flatten())
}
