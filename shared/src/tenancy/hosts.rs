//! Host names that stand for a tenant, remembered for a few seconds.

use std::time::Duration;

use sqlx::PgPool;

use super::{
    control::{self, HostName},
    remembered::Remembered,
};
use crate::{error::Result, ids::TenantId};

const BELIEVED: Duration = Duration::from_secs(5);
/// Names remembered at most: anybody can send any.
const REMEMBERED: usize = 10_000;

/// Finds the tenants of host names.
pub struct Hosts {
    app: PgPool,
    known: Remembered<HostName, Option<TenantId>>,
}

impl Hosts {
    /// Over the pool of the app role.
    #[must_use]
    pub fn new(app: PgPool) -> Self {
        Self { app, known: Remembered::new(BELIEVED, REMEMBERED) }
    }

    /// The tenant of a host name, if it stands for one.
    ///
    /// # Errors
    /// The database's.
    pub async fn tenant(&self, host: &HostName) -> Result<Option<TenantId>> {
        self.known.get(host, || control::of_host(&self.app, host)).await
    }

    /// A tenant's host names were changed here: looks again at once.
    pub fn forget_all(&self) {
        self.known.forget_all();
    }
}
