//! SQL of refreshing. As the engine, what is due; all else as the person whose connection it is.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::{Due, Taken};
use crate::{connections::Sealed, db::TenantTx, error::Result, ids::ConnectionId};

pub(super) async fn due(engine: &PgPool, ahead: f64, most: i64) -> Result<Vec<Due>> {
    Ok(sqlx::query_as(
        "select c.tenant_id, c.user_id, c.id from connections c join tenants t on t.id = c.tenant_id
         where c.status = 'active' and c.refreshable and t.state = 'active'
           and c.expires_at <= clock_timestamp() + make_interval(secs => $1)
           and c.expires_at <= clock_timestamp() + (c.expires_at - c.refreshed_at) / 2
           and (c.lease_until is null or c.lease_until <= clock_timestamp())
           and (c.retry_at is null or c.retry_at <= clock_timestamp())
         order by c.expires_at limit $2",
    )
    .bind(ahead)
    .bind(most)
    .fetch_all(engine)
    .await?)
}

/// Takes the lease and says that the provider is asked now, in one commit; none when somebody else has it, or the row is
/// another one by now.
pub(super) async fn take(
    tx: &mut TenantTx,
    id: ConnectionId,
    version: i64,
    lease: Uuid,
    within: Duration,
) -> Result<Option<Taken>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "with free as (
           select c.tenant_id, c.id, c.sent_at, c.doubted_at from connections c
           where c.tenant_id = $1 and c.id = $2 and c.user_id = $3 and c.token_version = $4 and c.status = 'active'
             and (c.lease_until is null or c.lease_until <= clock_timestamp())
             and (c.retry_at is null or c.retry_at <= clock_timestamp())
           for no key update)
         update connections c
         set lease = $5, lease_until = clock_timestamp() + make_interval(secs => $6), sent_at = clock_timestamp()
         from free where c.tenant_id = free.tenant_id and c.id = free.id
         returning free.sent_at is not null as is_ambiguous, free.doubted_at is not null as is_doubted",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(version)
    .bind(lease)
    .bind(within.as_secs_f64())
    .fetch_optional(tx.connection())
    .await?)
}

/// New tokens over this version, whoever has the lease and whatever was thought of the row; false when it is gone or
/// another one.
pub(super) async fn write_back(
    tx: &mut TenantTx,
    id: ConnectionId,
    version: i64,
    sealed: &Sealed,
    expires_in: Option<i64>,
) -> Result<bool> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let done = sqlx::query(
        "update connections
         set access_token_enc = $5, refresh_token_enc = $6, expires_at = clock_timestamp() + make_interval(secs => $7::float8),
             token_version = token_version + 1, refreshed_at = clock_timestamp(), status = 'active', status_reason = null,
             lease = null, lease_until = null, sent_at = null, doubted_at = null, failures = 0, retry_at = null,
             last_error = null, updated_at = now()
         where tenant_id = $1 and id = $2 and user_id = $3 and token_version = $4",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(version)
    .bind(&sealed.access)
    .bind(sealed.refresh.as_ref())
    .bind(expires_in.map(|seconds| seconds as f64))
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The tokens are good for nothing. With a lease: only for whoever still has it.
pub(super) async fn end(
    tx: &mut TenantTx,
    id: ConnectionId,
    version: i64,
    lease: Option<Uuid>,
    reason: &str,
) -> Result<bool> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let done = sqlx::query(
        "update connections
         set status = 'invalid', status_reason = $6, access_token_enc = null, refresh_token_enc = null, lease = null,
             lease_until = null, sent_at = null, doubted_at = null, retry_at = null, updated_at = now()
         where tenant_id = $1 and id = $2 and user_id = $3 and token_version = $4 and status = 'active'
           and ($5::uuid is null or lease = $5)",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(version)
    .bind(lease)
    .bind(reason)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn doubt(
    tx: &mut TenantTx,
    id: ConnectionId,
    version: i64,
    lease: Uuid,
    wait: Duration,
) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections
         set doubted_at = clock_timestamp(), lease = null, lease_until = null,
             retry_at = clock_timestamp() + make_interval(secs => $6), last_error = 'invalid_grant'
         where tenant_id = $1 and id = $2 and user_id = $3 and token_version = $4 and lease = $5",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(version)
    .bind(lease)
    .bind(wait.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Nobody was asked after all.
pub(super) async fn release(
    tx: &mut TenantTx,
    id: ConnectionId,
    lease: Uuid,
    keeps_doubt: bool,
) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections
         set lease = null, lease_until = null, sent_at = case when $5 then sent_at end
         where tenant_id = $1 and id = $2 and user_id = $3 and lease = $4",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(lease)
    .bind(keeps_doubt)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn failures(tx: &mut TenantTx, id: ConnectionId) -> Result<i64> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let failures: Option<i64> = sqlx::query_scalar(
        "select failures from connections where tenant_id = $1 and id = $2 and user_id = $3 for no key update",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?;
    Ok(failures.unwrap_or(0))
}

pub(super) async fn fail(
    tx: &mut TenantTx,
    id: ConnectionId,
    lease: Uuid,
    keeps_doubt: bool,
    pause: f64,
    told: &str,
) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections
         set lease = null, lease_until = null, sent_at = case when $5 then sent_at end, failures = failures + 1,
             retry_at = clock_timestamp() + make_interval(secs => $6), last_error = $7
         where tenant_id = $1 and id = $2 and user_id = $3 and lease = $4",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .bind(lease)
    .bind(keeps_doubt)
    .bind(pause)
    .bind(told)
    .execute(tx.connection())
    .await?;
    Ok(())
}
