//! SQL of the export, through functions that show a tenant's admin their tenant and nothing else.

use serde_json::Value;

use crate::{db::TenantTx, error::Result};

pub(super) async fn tables(tx: &mut TenantTx) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select name from tenant_tables()").fetch_all(tx.connection()).await?)
}

pub(super) async fn rows(
    tx: &mut TenantTx,
    table: &str,
    after: Option<&Value>,
    most: i64,
) -> Result<Vec<(String, Value)>> {
    Ok(sqlx::query_as("select line, place from tenant_export($1, $2, $3)")
        .bind(table)
        .bind(after)
        .bind(most)
        .fetch_all(tx.connection())
        .await?)
}
