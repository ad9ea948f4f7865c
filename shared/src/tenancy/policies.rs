//! Policies as a front door knows them that serves a thousand calls a second: looked up once a second, not for each.

use std::{sync::Arc, time::Duration};

use super::{Policies, remembered::Remembered};
use crate::{db::TenantTx, error::Result, ids::TenantId};

/// How long a policy that another process changed goes on as it was.
const BELIEVED: Duration = Duration::from_secs(1);
/// Tenants remembered at most.
const REMEMBERED: usize = 10_000;

/// The policies of many tenants.
pub struct KnownPolicies(Remembered<TenantId, Arc<Policies>>);

impl Default for KnownPolicies {
    fn default() -> Self {
        Self(Remembered::new(BELIEVED, REMEMBERED))
    }
}

impl KnownPolicies {
    /// The policies of the transaction's tenant, at most a second old.
    ///
    /// # Errors
    /// The database's.
    pub async fn get(&self, tx: &mut TenantTx) -> Result<Arc<Policies>> {
        let tenant = tx.actor().tenant;
        self.0.get(&tenant, || async { Ok(Arc::new(super::policies(tx).await?)) }).await
    }

    /// They were changed here: looks again at once.
    pub fn forget(&self, tenant: TenantId) {
        self.0.forget(&tenant);
    }
}
