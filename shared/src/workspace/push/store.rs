//! SQL of pushes.

use chrono::{DateTime, Utc};

use crate::{db::TenantTx, error::Result, ids::ItemUid, workspace::items::Item};

/// The item, also a deleted one, and nobody else changes it before this transaction ends.
pub(super) async fn lock(tx: &mut TenantTx, kind: &'static str, uid: ItemUid) -> Result<Option<Item>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select uid, id, version, created_at, updated_at, deleted_at, payload from items
         where tenant_id = $1 and kind = $2 and uid = $3 for no key update",
    )
    .bind(tenant)
    .bind(kind)
    .bind(uid)
    .fetch_optional(tx.connection())
    .await?)
}

/// Gives an item that this transaction has written the time at which its client wrote it.
pub(super) async fn date(
    tx: &mut TenantTx,
    kind: &'static str,
    item: Item,
    at: DateTime<Utc>,
) -> Result<Item> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "update items set updated_at = $4 where tenant_id = $1 and kind = $2 and uid = $3
         returning uid, id, version, created_at, updated_at, deleted_at, payload",
    )
    .bind(tenant)
    .bind(kind)
    .bind(item.uid)
    .bind(at)
    .fetch_one(tx.connection())
    .await?)
}
