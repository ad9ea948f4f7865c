//! SQL of the short-id counters.

use std::collections::HashMap;

use sqlx::PgPool;

use crate::{error::Result, ids::TenantId};

/// Moves each counter on by its sum; answers the first id of each range. When it has to last, a crash of the database right
/// after the answer does not undo it.
pub(super) async fn advance(
    relaxed: &PgPool,
    sums: &HashMap<(TenantId, &'static str), i64>,
    lasts: bool,
) -> Result<HashMap<(TenantId, &'static str), i64>> {
    // Sorted, so that two processes that count the same rows cannot lock each other out.
    let mut sorted: Vec<_> = sums.iter().map(|((tenant, kind), n)| (*tenant, *kind, *n)).collect();
    sorted.sort_unstable();
    let tenants: Vec<TenantId> = sorted.iter().map(|row| row.0).collect();
    let kinds: Vec<&str> = sorted.iter().map(|row| row.1).collect();
    let counts: Vec<i64> = sorted.iter().map(|row| row.2).collect();
    let statement = sqlx::query_as::<_, (TenantId, String, i64)>(
        "insert into counters (tenant_id, kind, next)
         select tenant_id, kind, 1 + n from unnest($1::uuid[], $2::text[], $3::bigint[]) w (tenant_id, kind, n)
         on conflict (tenant_id, kind) do update set next = counters.next + excluded.next - 1
         returning tenant_id, kind, next",
    )
    .bind(&tenants)
    .bind(&kinds)
    .bind(&counts);
    let rows = if lasts {
        let mut tx = relaxed.begin_with("begin; set local synchronous_commit = on").await?;
        let rows = statement.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        rows
    } else {
        statement.fetch_all(relaxed).await?
    };
    let mut firsts = HashMap::with_capacity(rows.len());
    for (tenant, kind, next) in rows {
        if let Some((_, kind, n)) = sorted.iter().find(|row| row.0 == tenant && row.1 == kind) {
            firsts.insert((tenant, *kind), next - n);
        }
    }
    Ok(firsts)
}
