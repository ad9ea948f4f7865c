//! The audit log: what admins and operators did, who used a secret, and what agents asked for. Rows are added in the
//! transaction of what they tell of, and no role that serves can change or remove one; those about agents end by a function
//! that removes nothing else.

mod store;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{AdminActor, OperatorActor};
use crate::{
    db::{TenantDb, TenantTx},
    error::Result,
    ids::{TenantId, UserId},
};

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// What, as `noun.verb`.
    pub action: &'static str,
    /// On what: a tool, a user's id, a host.
    pub target: &'a str,
    /// What else is worth knowing; never a secret.
    pub details: Value,
}

impl<'a> Entry<'a> {
    /// An entry without details.
    #[must_use]
    pub fn new(action: &'static str, target: &'a str) -> Self {
        Self { action, target, details: Value::Object(serde_json::Map::new()) }
    }

    /// The same with details.
    #[must_use]
    pub fn with(self, details: Value) -> Self {
        Self { details, ..self }
    }
}

/// A row of the log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Recorded {
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub user_id: Option<UserId>,
    pub acted_as: String,
    pub action: String,
    pub target: String,
    pub details: Value,
    pub request_id: Option<String>,
}

/// Records what an admin did in their tenant.
///
/// # Errors
/// The database's.
pub async fn record(tx: &mut TenantTx, admin: &AdminActor, entry: Entry<'_>) -> Result<()> {
    let tenant = tx.actor().tenant;
    let by = store::By { user: Some(admin.actor().user), acted_as: "admin", request_id: admin.request_id() };
    store::insert(tx.connection(), tenant, &by, &entry).await
}

/// Records what an operator did to a tenant.
///
/// # Errors
/// The database's.
pub async fn record_for(
    connection: &mut PgConnection,
    operator: &OperatorActor,
    tenant: TenantId,
    entry: Entry<'_>,
) -> Result<()> {
    let by = store::By {
        user: Some(operator.actor().user),
        acted_as: "operator",
        request_id: operator.request_id(),
    };
    store::insert(connection, tenant, &by, &entry).await
}

/// Records what a process did by itself.
///
/// # Errors
/// The database's.
pub async fn record_of_system(
    connection: &mut PgConnection,
    tenant: TenantId,
    entry: Entry<'_>,
) -> Result<()> {
    let by = store::By { user: None, acted_as: "system", request_id: None };
    store::insert(connection, tenant, &by, &entry).await
}

/// The agent that something was done by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByAgent<'a> {
    pub(crate) agent: &'a str,
    pub(crate) request_id: Option<&'a str>,
}

/// Records what was decided about an agent's wish.
///
/// # Errors
/// The database's.
pub(crate) async fn record_of_agent(
    connection: &mut PgConnection,
    tenant: TenantId,
    by: &ByAgent<'_>,
    mut entry: Entry<'_>,
) -> Result<()> {
    entry.details["agent"] = Value::from(by.agent);
    let by = store::By { user: None, acted_as: "agent", request_id: by.request_id };
    store::insert(connection, tenant, &by, &entry).await
}

/// Removes entries about agents' requests that are over 90 days old, so many at most; answers how many. What people did stays.
///
/// # Errors
/// The database's.
pub async fn forget_agents(engine: &PgPool, chunk: i64) -> Result<i64> {
    store::forget_agents(engine, chunk).await
}

/// A page of the tenant's log, newest first, after the row that the cursor names.
///
/// # Errors
/// The database's.
pub async fn list(
    tx: &mut TenantTx,
    _: &AdminActor,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Recorded>> {
    store::list(tx, before, limit).await
}

/// The same of any tenant, for operators.
///
/// # Errors
/// The database's.
pub async fn list_for(
    db: &TenantDb,
    operator: &OperatorActor,
    tenant: TenantId,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Recorded>> {
    let mut tx = db.begin(&operator.within(tenant)).await?;
    let rows = store::list(&mut tx, before, limit).await?;
    tx.commit().await?;
    Ok(rows)
}
