//! The identity that a fresh deployment begins with: the default tenant, its first user and their API key.

use secrecy::ExposeSecret as _;

use crate::{
    config::Config,
    db::{self, DbRole},
    error::{Error, Result},
    identity::{Role, development},
};

/// Makes sure that `API_KEY` opens the default tenant as its admin and as operator; does nothing without a key. Safe to
/// run many times and at the same time.
///
/// # Errors
/// A database URL that cannot be read; the database's.
pub async fn ensure_first_identity(config: &Config) -> Result<()> {
    let Some(key) = &config.api_key else { return Ok(()) };
    let options = db::options(config.db_engine_url.expose_secret(), DbRole::Engine, "alfred-migrate")
        .map_err(|problem| Error::internal(format!("DB_ENGINE_URL {problem}")))?;
    let engine = db::pool(options, 1);
    let made = development::ensure(
        &engine,
        &development::Identity {
            tenant: config.default_tenant,
            user: development::USER,
            email: "admin@alfred.local",
            role: Role::Admin,
            operator: true,
            key,
            running_turns: config.tenant_running_turns,
        },
    )
    .await;
    engine.close().await;
    made
}
