//! SQL of acting on jobs. A tenant's rows on the tenant's transaction; the engine's own on its pool, by what was read there before.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{db::TenantTx, error::Result, ids::TenantId};

/// Somebody has dealt with it; false when somebody had.
pub(super) async fn put_away(tx: &mut TenantTx, queue: &str, id: Uuid) -> Result<bool> {
    let actor = tx.actor();
    let (tenant, user) = (actor.tenant, actor.user);
    let done = sqlx::query(
        "insert into queue_discards (tenant_id, queue, id, by_user) values ($1, $2, $3, $4)
         on conflict (tenant_id, queue, id) do nothing",
    )
    .bind(tenant)
    .bind(queue)
    .bind(id)
    .bind(user)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Somebody has to look at it again.
pub(super) async fn take_back(tx: &mut TenantTx, queue: &str, id: Uuid) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("delete from queue_discards where tenant_id = $1 and queue = $2 and id = $3")
        .bind(tenant)
        .bind(queue)
        .bind(id)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// As replaying it does.
pub(super) async fn deliver_again(tx: &mut TenantTx, id: Uuid) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "update agent_notification_events d
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

/// Makes a delivery that nobody is making a dead letter.
pub(super) async fn give_up(tx: &mut TenantTx, id: Uuid, because: &str) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "update agent_notification_events
           set status = 'failed', error_message = $3, processed_at = clock_timestamp(), lease = null, leased_until = null
         where tenant_id = $1 and id = $2 and status in ('pending', 'retry')
           and (leased_until is null or leased_until < clock_timestamp())",
    )
    .bind(tenant)
    .bind(id)
    .bind(because)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn embed_now(engine: &PgPool, tenant: TenantId, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update embedding_outbox set due_at = clock_timestamp(), attempts = 0 where tenant_id = $1 and uid = $2",
    )
    .bind(tenant)
    .bind(id)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn do_not_embed(engine: &PgPool, tenant: TenantId, id: Uuid) -> Result<bool> {
    let done = sqlx::query("delete from embedding_outbox where tenant_id = $1 and uid = $2")
        .bind(tenant)
        .bind(id)
        .execute(engine)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn take_up_again(engine: &PgPool, queue: &str, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update apalis.jobs
           set status = 'Pending', attempts = 0, run_at = now() - interval '1 second', done_at = null, lock_at = null, lock_by = null,
               last_result = null
         where job_type = $1 and job_type in ('connection-refresh', 'maintenance') and ulid_uuid(id) = $2
           and status in ('Failed', 'Killed')",
    )
    .bind(queue)
    .bind(id)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A ticket that nobody has taken up.
pub(super) async fn kill(engine: &PgPool, queue: &str, id: Uuid, because: &str) -> Result<bool> {
    let done = sqlx::query(
        "update apalis.jobs
           set status = 'Killed', done_at = now(), lock_by = null, last_result = jsonb_build_object('Err', $3::text)
         where job_type = $1 and job_type in ('connection-refresh', 'maintenance') and ulid_uuid(id) = $2
           and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))",
    )
    .bind(queue)
    .bind(id)
    .bind(because)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn delete(engine: &PgPool, queue: &str, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "delete from apalis.jobs
         where job_type = $1 and job_type in ('connection-refresh', 'maintenance') and ulid_uuid(id) = $2
           and status not in ('Queued', 'Running')",
    )
    .bind(queue)
    .bind(id)
    .execute(engine)
    .await?;
    Ok(done.rows_affected() > 0)
}
