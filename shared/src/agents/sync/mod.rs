//! Telling one agent all that is kept of the tenant's users again, for instance after it lost what it knew: a delivery for each context, in
//! batches, each with its place so that the next goes on there.

mod store;

use serde_json::json;
use uuid::Uuid;

use super::AgentName;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{TenantId, UserId},
    tenancy::{
        AdminActor,
        audit::{self, Entry},
    },
};

/// Users of one batch.
const BATCH: i64 = 2000;

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synced {
    /// Contexts that it looked at, of users who belong to the tenant.
    pub contexts: i64,
    /// Those that the agent will be told of: it wants them, and telling of the user is on.
    pub told: i64,
    /// Where the next batch begins; none when there is nothing more.
    pub next: Option<UserId>,
}

/// Writes deliveries of one batch. The caller has them looked for after the commit.
///
/// # Errors
/// 404; 409 for an agent that is disabled; the database's.
pub async fn sync(
    tx: &mut TenantTx,
    admin: &AdminActor,
    agent: &AgentName,
    after: Option<UserId>,
    default_tenant: TenantId,
    correlation: &str,
) -> Result<Synced> {
    let known = super::get(tx, admin, agent).await?;
    if !known.enabled {
        return Err(Error::conflict("the agent is disabled"));
    }
    let after = after.map_or(Uuid::nil(), |user| user.0);
    let (last, contexts, told) = store::sync(tx, agent, after, BATCH, default_tenant, correlation).await?;
    let entry = Entry::new("agent.synced", agent.as_str());
    audit::record(tx, admin, entry.with(json!({ "contexts": contexts, "told": told }))).await?;
    Ok(Synced { contexts, told, next: last.filter(|_| contexts >= BATCH).map(UserId) })
}
