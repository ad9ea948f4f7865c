//! API keys that people make for their programs.

mod store;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;

use super::{KeyHash, Scopes};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::{ApiKeyId, TenantId, UserId},
};

/// The most live keys of one user in one tenant.
const MOST: i64 = 100;
/// The longest name.
const LONGEST_NAME: usize = 200;

/// What is known of a key; the key itself is shown once.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The tenant it is good in.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends, if it does.
    pub expires_at: Option<DateTime<Utc>>,
    /// Right to some seconds.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it ends, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a key for the actor in their tenant. It may do nothing that the actor's own credential may not.
///
/// # Errors
/// 403 for a scope that the actor's credential lacks, 409 for too many keys, 422 for what is not acceptable; the
/// database's.
pub async fn create(tx: &mut TenantTx, new: NewApiKey) -> Result<(ApiKey, SecretString)> {
    if new.name.chars().count() > LONGEST_NAME {
        return Err(Error::unacceptable(format!("name: takes at most {LONGEST_NAME} characters")));
    }
    if new.scopes == Scopes::NONE {
        return Err(Error::unacceptable("scopes: takes at least one scope"));
    }
    if new.expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(Error::unacceptable("expires_at: is in the past"));
    }
    for scope in super::Scope::ALL.into_iter().filter(|scope| new.scopes.contains(*scope)) {
        tx.actor().must_have(scope)?;
    }
    if store::count(tx).await? >= MOST {
        return Err(Error::conflict(format!("there are {MOST} keys already; revoke one first")));
    }
    let text = format!("ak_{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let key = SecretString::from(text);
    let made = store::insert(tx, ApiKeyId::generate(), &KeyHash::of(&key).0, &new).await?;
    Ok((made, key))
}

/// The live keys that the actor may see: their own, an admin those of the tenant; oldest first.
///
/// # Errors
/// The database's.
pub async fn list(tx: &mut TenantTx, after: Option<ApiKeyId>, limit: i64) -> Result<Vec<ApiKey>> {
    store::list(tx, after, limit).await
}

/// Revokes a key.
///
/// # Errors
/// 404 when the actor may see no such live key; the database's.
pub async fn revoke(tx: &mut TenantTx, id: ApiKeyId) -> Result<()> {
    if store::revoke(tx, id).await? { Ok(()) } else { Err(Error::not_found("there is no such key")) }
}

/// Notes that keys were used.
///
/// # Errors
/// The database's.
pub async fn touch(engine: &PgPool, keys: &[ApiKeyId]) -> Result<()> {
    store::touch(engine, keys).await
}
