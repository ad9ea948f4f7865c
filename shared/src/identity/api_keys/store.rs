//! SQL of API keys.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{ApiKey, NewApiKey};
use crate::{
    db::TenantTx,
    error::Result,
    identity::Scopes,
    ids::{ApiKeyId, TenantId, UserId},
};

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: ApiKeyId,
    tenant_id: TenantId,
    user_id: UserId,
    name: String,
    scopes: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant_id,
            user: row.user_id,
            name: row.name,
            scopes: row
                .scopes
                .map_or(Scopes::ALL, |words| Scopes::of_words(words.iter().map(String::as_str))),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
}

pub(super) async fn count(tx: &mut TenantTx) -> Result<i64> {
    let actor = tx.actor().clone();
    Ok(sqlx::query_scalar(
        "select count(*) from api_keys where tenant_id = $1 and user_id = $2 and revoked_at is null
           and (expires_at is null or expires_at > now())",
    )
    .bind(actor.tenant)
    .bind(actor.user)
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn insert(
    tx: &mut TenantTx,
    id: ApiKeyId,
    hash: &[u8; 32],
    new: &NewApiKey,
) -> Result<ApiKey> {
    let actor = tx.actor().clone();
    let row: KeyRow = sqlx::query_as(
        "insert into api_keys (tenant_id, id, user_id, key_hash, name, scopes, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning id, tenant_id, user_id, name, scopes, created_at, expires_at, last_used_at",
    )
    .bind(actor.tenant)
    .bind(id)
    .bind(actor.user)
    .bind(hash.as_slice())
    .bind(&new.name)
    .bind(new.scopes.words())
    .bind(new.expires_at)
    .fetch_one(tx.connection())
    .await?;
    Ok(row.into())
}

pub(super) async fn list(tx: &mut TenantTx, after: Option<ApiKeyId>, limit: i64) -> Result<Vec<ApiKey>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<KeyRow> = sqlx::query_as(
        "select id, tenant_id, user_id, name, scopes, created_at, expires_at, last_used_at from api_keys
         where tenant_id = $1 and ($2::uuid is null or id > $2) and revoked_at is null
           and (expires_at is null or expires_at > now())
         order by id limit $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

pub(super) async fn revoke(tx: &mut TenantTx, id: ApiKeyId) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "update api_keys set revoked_at = now() where tenant_id = $1 and id = $2 and revoked_at is null",
    )
    .bind(tenant)
    .bind(id)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Keys were found by their hash, across tenants; what is written is their own last use.
pub(super) async fn touch(engine: &PgPool, keys: &[ApiKeyId]) -> Result<()> {
    sqlx::query("update api_keys set last_used_at = now() where id = any($1)")
        .bind(keys)
        .execute(engine)
        .await?;
    Ok(())
}
