//! All that a tenant has, as JSON lines: `{"table":"…","row":{…}}`, every table that the catalogue knows, in the order of
//! its key. Hashes and ciphertexts are left out.
//!
//! Each chunk is a transaction of its own, so that a slow reader holds nothing; what changes meanwhile may be in it or
//! not. Suspend the tenant first for a picture of one moment.

mod store;

use super::super::{OperatorActor, audit};
use crate::{db::TenantDb, error::Result, identity::Actor, ids::TenantId};

/// Rows of one transaction.
const CHUNK: i64 = 500;

/// An export under way.
pub struct Lines {
    db: TenantDb,
    actor: Actor,
    /// Tables to come, the next one last.
    tables: Vec<String>,
    /// The key of the last row that was given of the next table.
    place: Option<serde_json::Value>,
}

/// Begins to export a tenant's data.
///
/// # Errors
/// The database's.
pub async fn export(db: &TenantDb, operator: &OperatorActor, tenant: TenantId) -> Result<Lines> {
    let actor = operator.within(tenant);
    let mut tx = db.begin(&actor).await?;
    let mut tables = store::tables(&mut tx).await?;
    let entry = audit::Entry::new("tenant.exported", "");
    audit::record_for(tx.connection(), operator, tenant, entry).await?;
    tx.commit().await?;
    tables.reverse();
    Ok(Lines { db: db.clone(), actor, tables, place: None })
}

impl Lines {
    /// The next lines, none at the end.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<String>> {
        while let Some(table) = self.tables.last() {
            let mut tx = self.db.begin(&self.actor).await?;
            let rows = store::rows(&mut tx, table, self.place.as_ref(), CHUNK).await?;
            tx.commit().await?;
            let Some((_, place)) = rows.last() else {
                self.tables.pop();
                self.place = None;
                continue;
            };
            self.place = Some(place.clone());
            let name = serde_json::to_string(table)?;
            let lines = rows.iter().map(|(row, _)| format!("{{\"table\":{name},\"row\":{row}}}\n")).collect();
            return Ok(Some(lines));
        }
        Ok(None)
    }
}
