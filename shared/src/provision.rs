//! The identity that a fresh deployment begins with: the default tenant, its first user and their API key, and keys for
//! operators.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    config::Config,
    db::{self, DbRole},
    error::{Error, Result},
    identity::{Role, development},
    ids::UserId,
    tenancy::{audit, control},
};

/// Makes sure that the default tenant exists and that `API_KEY`, if there is one, opens it as its admin and as operator. What
/// was `API_KEY` before opens nothing any more: a key that everybody knows must not outlive a deployment's first day.
/// Safe to run many times and at the same time.
///
/// # Errors
/// A database URL that cannot be read; the database's.
pub async fn ensure_first_identity(config: &Config) -> Result<()> {
    let engine = engine(config)?;
    let made = ensure(config, &engine).await;
    engine.close().await;
    made
}

/// Makes a key that operates the deployment, with a user of its own who is an admin of the default tenant. It cannot be
/// read again.
///
/// # Errors
/// A database URL that cannot be read; the database's.
pub async fn create_operator_key(config: &Config) -> Result<SecretString> {
    let engine = engine(config)?;
    let key = control::new_key();
    let made = async {
        ensure(config, &engine).await?;
        let user = UserId::generate();
        let identity = development::Identity {
            tenant: config.default_tenant,
            user,
            email: &format!("operator-{user}@alfred.local"),
            role: Role::Admin,
            operator: true,
            key: &key,
            running_turns: config.tenant_running_turns,
        };
        development::ensure(&engine, &identity).await?;
        let mut connection = engine.acquire().await?;
        let target = user.to_string();
        let entry = audit::Entry::new("operator_key.created", &target);
        audit::record_of_system(&mut connection, config.default_tenant, entry).await
    }
    .await;
    engine.close().await;
    made.map(|()| key)
}

fn engine(config: &Config) -> Result<PgPool> {
    let options = db::options(config.db_engine_url.expose_secret(), DbRole::Engine, "alfred-migrate")
        .map_err(|problem| Error::internal(format!("DB_ENGINE_URL {problem}")))?;
    Ok(db::pool(options, 1))
}

async fn ensure(config: &Config, engine: &PgPool) -> Result<()> {
    control::ensure_default(engine, config.default_tenant, config.tenant_running_turns).await?;
    if let Some(key) = &config.api_key {
        let identity = development::Identity {
            tenant: config.default_tenant,
            user: development::USER,
            email: "admin@alfred.local",
            role: Role::Admin,
            operator: true,
            key,
            running_turns: config.tenant_running_turns,
        };
        development::ensure(engine, &identity).await?;
    }
    let ended = development::end_other_keys(engine, config.api_key.as_ref()).await?;
    if ended > 0 {
        tracing::warn!(ended, "what was API_KEY before opens nothing any more");
        let mut connection = engine.acquire().await?;
        let target = development::USER.to_string();
        let entry = audit::Entry::new("operator_key.ended", &target).with(json!({ "keys": ended }));
        audit::record_of_system(&mut connection, config.default_tenant, entry).await?;
    }
    Ok(())
}
