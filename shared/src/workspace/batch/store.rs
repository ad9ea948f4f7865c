//! SQL of doing a part of a transaction as a whole or not at all.

use crate::{db::TenantTx, error::Result};

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
