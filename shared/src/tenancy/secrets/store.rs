//! SQL of header secrets.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::HeaderSecretInfo;
use crate::{
    db::before_tenant,
    error::{Error, Result},
    ids::TenantId,
};

pub(super) async fn live(app: &PgPool, tenant: TenantId, known: &[Uuid]) -> Result<Vec<(Uuid, String)>> {
    let mut tx = before_tenant(app).await?;
    let rows = sqlx::query_as("select id, secret_enc from tenancy_header_secrets($1, $2)")
        .bind(tenant)
        .bind(known)
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(rows)
}

/// One change at a time; nothing for a tenant that is gone.
pub(super) async fn lock(connection: &mut PgConnection, tenant: TenantId) -> Result<()> {
    let found: Option<TenantId> = sqlx::query_scalar(
        "select id from tenants where id = $1 and state in ('active', 'suspended') for no key update",
    )
    .bind(tenant)
    .fetch_optional(connection)
    .await?;
    found.map(|_| ()).ok_or_else(|| Error::not_found("there is no such tenant"))
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: Uuid,
    sealed: &str,
) -> Result<()> {
    sqlx::query("insert into tenant_header_secrets (tenant_id, id, secret_enc) values ($1, $2, $3)")
        .bind(tenant)
        .bind(id)
        .bind(sealed)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends all but the newest and the newest of those that somebody was given.
pub(super) async fn keep_two(connection: &mut PgConnection, tenant: TenantId, newest: Uuid) -> Result<()> {
    sqlx::query(
        "update tenant_header_secrets set expires_at = now()
         where tenant_id = $1 and id <> $2 and (expires_at is null or expires_at > now())
           and id is distinct from (select o.id from tenant_header_secrets o
                                    where o.tenant_id = $1 and o.id <> $2 and o.delivered_at is not null
                                    order by o.created_at desc, o.id desc limit 1)",
    )
    .bind(tenant)
    .bind(newest)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whoever signs has this one now: those before it are good for seven days more.
pub(super) async fn delivered(connection: &mut PgConnection, tenant: TenantId, id: Uuid) -> Result<()> {
    sqlx::query(
        "with given as (
           update tenant_header_secrets set delivered_at = now()
           where tenant_id = $1 and id = $2 and delivered_at is null
           returning created_at)
         update tenant_header_secrets s set expires_at = now() + interval '7 days'
         from given where s.tenant_id = $1 and s.id <> $2 and s.created_at <= given.created_at and s.expires_at is null",
    )
    .bind(tenant)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn list(connection: &mut PgConnection, tenant: TenantId) -> Result<Vec<HeaderSecretInfo>> {
    Ok(sqlx::query_as(
        "select id, created_at, delivered_at, expires_at from tenant_header_secrets
         where tenant_id = $1 and (expires_at is null or expires_at > now()) order by created_at desc, id desc",
    )
    .bind(tenant)
    .fetch_all(connection)
    .await?)
}

pub(super) async fn sealed(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: Uuid,
) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select secret_enc from tenant_header_secrets
         where tenant_id = $1 and id = $2 and (expires_at is null or expires_at > now())",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(connection)
    .await?)
}

/// Tenants whose newest secret is over 90 days old and was given to somebody.
pub(super) async fn due(engine: &PgPool, most: i64) -> Result<Vec<TenantId>> {
    Ok(sqlx::query_scalar(
        "select s.tenant_id from tenant_header_secrets s join tenants t on t.id = s.tenant_id
         where t.state = 'active'
         group by s.tenant_id
         having max(s.created_at) < now() - interval '90 days' and bool_and(s.delivered_at is not null)
         order by s.tenant_id limit $1",
    )
    .bind(most)
    .fetch_all(engine)
    .await?)
}

/// Secrets that nobody was given yet, the longest waiting first.
pub(super) async fn undelivered(engine: &PgPool, most: i64) -> Result<Vec<(TenantId, Uuid, String)>> {
    Ok(sqlx::query_as(
        "select s.tenant_id, s.id, s.secret_enc from tenant_header_secrets s join tenants t on t.id = s.tenant_id
         where t.state = 'active' and s.delivered_at is null and (s.expires_at is null or s.expires_at > now())
         order by s.created_at limit $1",
    )
    .bind(most)
    .fetch_all(engine)
    .await?)
}

/// Secrets that were sealed with another key than this one.
pub(super) async fn sealed_otherwise(
    engine: &PgPool,
    key_id: &str,
    most: i64,
) -> Result<Vec<(TenantId, Uuid, String)>> {
    Ok(sqlx::query_as(
        "select tenant_id, id, secret_enc from tenant_header_secrets
         where split_part(secret_enc, '.', 1) <> $1 and (expires_at is null or expires_at > now()) limit $2",
    )
    .bind(key_id)
    .bind(most)
    .fetch_all(engine)
    .await?)
}

pub(super) async fn reseal(
    engine: &PgPool,
    tenant: TenantId,
    id: Uuid,
    before: &str,
    sealed: &str,
) -> Result<()> {
    sqlx::query(
        "update tenant_header_secrets set secret_enc = $4 where tenant_id = $1 and id = $2 and secret_enc = $3",
    )
    .bind(tenant)
    .bind(id)
    .bind(before)
    .bind(sealed)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn delete_expired(engine: &PgPool) -> Result<u64> {
    let done = sqlx::query("delete from tenant_header_secrets where expires_at < now() - interval '1 day'")
        .execute(engine)
        .await?;
    Ok(done.rows_affected())
}
