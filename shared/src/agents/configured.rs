//! The agents of the reference deployment, each there when its endpoint is in the environment.

use sqlx::PgPool;
use url::Url;

use super::{AgentName, secret, store};
use crate::{error::Result, ids::TenantId, vault::Vault};

/// Makes the registry of this tenant, the deployment's default one, agree with the environment. Safe to run many times and at
/// the same time. A new agent gets a secret, which an admin fetches by rotating it.
///
/// # Errors
/// The database's.
pub async fn apply(engine: &PgPool, vault: &Vault, tenant: TenantId, agents: &[(&str, Url)]) -> Result<()> {
    let names: Vec<&str> = agents.iter().map(|(name, _)| *name).collect();
    let endpoints: Vec<&str> = agents.iter().map(|(_, url)| url.as_str().trim_end_matches('/')).collect();
    let without_secret = store::configure(engine, tenant, &names, &endpoints, &names).await?;
    for name in without_secret {
        let mut tx = crate::db::begin(engine).await?;
        make_first_secret(&mut tx, vault, tenant, &name).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn make_first_secret(
    connection: &mut sqlx::PgConnection,
    vault: &Vault,
    tenant: TenantId,
    name: &AgentName,
) -> Result<()> {
    secret::make(connection, vault, tenant, name).await.map(drop)
}
