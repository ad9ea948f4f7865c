//! Who is calling. An [`Actor`] is made from a credential and from nothing else: neither a body nor a model can name
//! one. Today's only credential is the API key; others will make the same value.

pub mod development;
mod store;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::{
    error::Result,
    ids::{TenantId, UserId},
};

/// A role within the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sees and changes their own rows.
    Member,
    /// Sees and changes the tenant's rows.
    Admin,
}

impl Role {
    /// The word that row-level security and the memberships table use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

/// An authenticated caller, or the owner of a turn on whose behalf a worker acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The person.
    pub user: UserId,
    /// What they may see within the tenant.
    pub role: Role,
    /// Whether they operate the deployment.
    pub operator: bool,
    /// IANA name, for dates that people and models read.
    pub timezone: String,
}

impl Actor {
    /// The actor for whom a stored turn runs. Only rows that an authenticated caller wrote lead here.
    #[must_use]
    pub fn of_turn(tenant: TenantId, user: UserId) -> Self {
        Self { tenant, user, role: Role::Member, operator: false, timezone: "UTC".to_owned() }
    }
}

/// What is stored of an API key. Keys carry 256 random bits, so a plain hash needs no salt and no stretching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &SecretString) -> Self {
        Self(Sha256::digest(key.expose_secret().as_bytes()).into())
    }
}

/// The caller of an API key, or none when the key is unknown, expired or revoked.
///
/// # Errors
/// The database's.
pub async fn by_api_key(app: &PgPool, key: &KeyHash) -> Result<Option<Actor>> {
    store::by_key_hash(app, &key.0).await
}
