//! SQL of registrations, which a tenant's people share.

use uuid::Uuid;

use crate::{db::TenantTx, error::Result, oauth::Registered};

#[derive(sqlx::FromRow)]
pub(super) struct Known {
    pub(super) client_id: String,
    pub(super) client_secret_enc: Option<String>,
    pub(super) auth_method: String,
}

/// The registration to use, unless it ends within the hour.
pub(super) async fn current(tx: &mut TenantTx, issuer: &str, redirect_uri: &str) -> Result<Option<Known>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select client_id, client_secret_enc, auth_method from oauth_registrations
         where tenant_id = $1 and issuer = $2 and redirect_uri = $3 and retired_at is null
           and (expires_at is null or expires_at > now() + interval '1 hour')",
    )
    .bind(tenant)
    .bind(issuer)
    .bind(redirect_uri)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn by_client(tx: &mut TenantTx, issuer: &str, client_id: &str) -> Result<Option<Known>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select client_id, client_secret_enc, auth_method from oauth_registrations
         where tenant_id = $1 and issuer = $2 and client_id = $3 order by created_at desc limit 1",
    )
    .bind(tenant)
    .bind(issuer)
    .bind(client_id)
    .fetch_optional(tx.connection())
    .await?)
}

/// Does nothing when there is a current one that has not ended.
pub(super) async fn insert(
    tx: &mut TenantTx,
    issuer: &str,
    redirect_uri: &str,
    made: &Registered,
    sealed: Option<&str>,
) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update oauth_registrations set retired_at = now()
         where tenant_id = $1 and issuer = $2 and redirect_uri = $3 and retired_at is null
           and expires_at <= now() + interval '1 hour'",
    )
    .bind(tenant)
    .bind(issuer)
    .bind(redirect_uri)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "insert into oauth_registrations (tenant_id, id, issuer, redirect_uri, client_id, client_secret_enc, auth_method, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (tenant_id, issuer, redirect_uri) where retired_at is null do nothing",
    )
    .bind(tenant)
    .bind(Uuid::now_v7())
    .bind(issuer)
    .bind(redirect_uri)
    .bind(&made.client.id)
    .bind(sealed)
    .bind(made.client.method.as_str())
    .bind(made.expires_at)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn retire(tx: &mut TenantTx, issuer: &str, client_id: &str) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update oauth_registrations set retired_at = now()
         where tenant_id = $1 and issuer = $2 and client_id = $3 and retired_at is null",
    )
    .bind(tenant)
    .bind(issuer)
    .bind(client_id)
    .execute(tx.connection())
    .await?;
    Ok(())
}
