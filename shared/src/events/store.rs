//! The SQL of the event log.

use sqlx::PgConnection;

use crate::{
    error::Result,
    events::EventKind,
    ids::{TenantId, TurnId},
};

/// Inserts rows of one turn in the caller's transaction.
pub(super) async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    turn: TurnId,
    rows: &[(i64, EventKind, String)],
) -> Result<()> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.0).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let data: Vec<&str> = rows.iter().map(|row| row.2.as_str()).collect();
    sqlx::query(
        "insert into turn_events (tenant_id, turn_id, seq, kind, data) \
         select $1, $2, u.seq, u.kind, u.data from unnest($3::int8[], $4::text[], $5::text[]) u(seq, kind, data)",
    )
    .bind(tenant)
    .bind(turn)
    .bind(seqs)
    .bind(kinds)
    .bind(data)
    .execute(connection)
    .await?;
    Ok(())
}
