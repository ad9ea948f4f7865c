//! How remote servers are, as maintenance finds them: each is asked for a sign of life once in a while.

mod store;

use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use sqlx::PgPool;

use super::{gateway::Gateway, registry::Scope};
use crate::{db::TenantTx, error::Result, ids::TenantId};

/// Servers asked at once.
const AT_ONCE: usize = 8;
/// Servers read at once.
const PAGE: i64 = 200;

/// How a server was when it was last asked.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Health {
    pub tenant_id: TenantId,
    pub name: String,
    pub checked_at: DateTime<Utc>,
    pub is_well: bool,
    pub latency_ms: i64,
    pub detail: String,
    /// Since when it has been as it is.
    pub since: DateTime<Utc>,
}

/// What asking a server found.
pub(super) struct Found {
    pub(super) is_well: bool,
    pub(super) latency_ms: i64,
    pub(super) detail: String,
}

/// Asks every server that is switched on, and writes down how it was; answers how many were asked and how many are unwell.
///
/// # Errors
/// The database's.
pub async fn check_all(engine: &PgPool, gateway: &Gateway) -> Result<(usize, usize)> {
    let registry = gateway.registry();
    let (mut asked, mut unwell) = (0, 0);
    let mut servers = registry.fixed().to_vec();
    let mut after = None;
    loop {
        let page = registry.page_of_all(engine, after.take(), PAGE).await?;
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or(0);
        after = page.last().map(|server| (server.scope.owner(), server.name().to_owned()));
        servers.extend(page);
        let mut found = stream::iter(std::mem::take(&mut servers))
            .map(async |server| (gateway.probe(&server).await, server))
            .buffer_unordered(AT_ONCE);
        while let Some((found, server)) = found.next().await {
            asked += 1;
            unwell += usize::from(!found.is_well);
            store::write(engine, server.scope.owner(), server.name(), &found).await?;
        }
        if is_last {
            store::forget_gone(engine).await?;
            return Ok((asked, unwell));
        }
    }
}

/// How the tenant's and the deployment's servers are.
///
/// # Errors
/// The database's.
pub(super) async fn of(tx: &mut TenantTx) -> Result<Vec<Health>> {
    let owners = [Scope::Deployment.owner().0, tx.actor().tenant.0];
    store::of(tx, &owners).await
}
