//! SQL of doing a part of a transaction as a whole or not at all.

use super::Touched;
use crate::{db::TenantTx, error::Result};

/// Locks items, in one order whoever asks. What is not there, or not the actor's, is passed by.
pub(super) async fn lock(tx: &mut TenantTx, touched: &Touched) -> Result<()> {
    let tenant = tx.actor().tenant;
    let (uid_kinds, uids): (Vec<_>, Vec<_>) = touched.by_uid.iter().copied().unzip();
    let (id_kinds, ids): (Vec<_>, Vec<_>) = touched.by_id.iter().copied().unzip();
    if uids.is_empty() && ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "select from items i
         where i.tenant_id = $1 and (i.kind, i.uid) in (
           select n.kind, n.uid from unnest($2::text[], $3::uuid[]) n (kind, uid)
           union
           select j.kind, j.uid from unnest($4::text[], $5::bigint[]) n (kind, id)
           join items j on j.tenant_id = $1 and j.kind = n.kind and j.id = n.id)
         order by i.kind, i.uid for no key update of i",
    )
    .bind(tenant)
    .bind(uid_kinds)
    .bind(uids)
    .bind(id_kinds)
    .bind(ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Begins a part that can be undone by itself.
pub(in crate::workspace) async fn begin_part(tx: &mut TenantTx) -> Result<()> {
    sqlx::query("savepoint part").execute(tx.connection()).await?;
    Ok(())
}

/// Undoes the part.
pub(in crate::workspace) async fn undo_part(tx: &mut TenantTx) -> Result<()> {
    sqlx::query("rollback to savepoint part").execute(tx.connection()).await?;
    end_part(tx).await
}

/// Makes the part one with what was before it.
pub(in crate::workspace) async fn end_part(tx: &mut TenantTx) -> Result<()> {
    sqlx::query("release savepoint part").execute(tx.connection()).await?;
    Ok(())
}
