//! SQL of telling an agent everything again.

use uuid::Uuid;

use crate::{agents::AgentName, db::TenantTx, error::Result, ids::TenantId};

pub(super) async fn sync(
    tx: &mut TenantTx,
    agent: &AgentName,
    after: Uuid,
    most: i64,
    default_tenant: TenantId,
    correlation: &str,
) -> Result<(Option<Uuid>, i64, i64)> {
    Ok(sqlx::query_as("select last_user, contexts, told from agent_sync($1, $2, $3, $4, $5)")
        .bind(agent)
        .bind(after)
        .bind(most)
        .bind(correlation)
        .bind(default_tenant)
        .fetch_one(tx.connection())
        .await?)
}
