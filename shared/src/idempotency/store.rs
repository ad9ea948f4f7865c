//! SQL of idempotency keys whose answers are kept.

use super::IdempotencyKey;
use crate::{db::TenantTx, error::Result};

/// True: nobody had it within 24 hours.
pub(super) async fn claim(tx: &mut TenantTx, key: &IdempotencyKey) -> Result<bool> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let done = sqlx::query(
        "insert into idempotency_keys (tenant_id, user_id, route, key, body_hash) values ($1, $2, $3, $4, $5)
         on conflict (tenant_id, user_id, route, key) do update
           set body_hash = excluded.body_hash, answer = null, turn_id = null, created_at = now()
           where idempotency_keys.created_at < now() - interval '24 hours'",
    )
    .bind(tenant)
    .bind(user)
    .bind(&key.route)
    .bind(&key.key)
    .bind(key.body_hash.as_slice())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn answer(
    tx: &mut TenantTx,
    key: &IdempotencyKey,
) -> Result<Option<(Vec<u8>, Option<String>)>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select body_hash, answer from idempotency_keys where tenant_id = $1 and user_id = $2 and route = $3 and key = $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(&key.route)
    .bind(&key.key)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn keep(tx: &mut TenantTx, key: &IdempotencyKey, answer: &str) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update idempotency_keys set answer = $5
         where tenant_id = $1 and user_id = $2 and route = $3 and key = $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(&key.route)
    .bind(&key.key)
    .bind(answer)
    .execute(tx.connection())
    .await?;
    Ok(())
}
