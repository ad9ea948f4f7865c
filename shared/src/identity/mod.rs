//! Who is calling. A credential proves a [`Principal`]; a principal that chose a tenant is an [`Actor`]. Neither is made
//! from anything else: no body and no model can name one.

mod accounts;
pub mod api_keys;
pub mod development;
mod email;
mod outside;
mod passwords;
mod principal;
mod scope;
mod secrets;
mod sign_ins;
mod signing;
mod store;
pub(crate) mod throttle;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

pub use self::{
    accounts::{Proven, User, user},
    email::EmailAddress,
    outside::Outside,
    passwords::{PasswordCost, Passwords},
    principal::{Credential, CredentialTenant, OutsideSubject, Principal},
    scope::{Scope, Scopes},
    sign_ins::{
        AccessClaims, CookieSession, EndedBecause, Grant, Refreshed, SignIn, SignInFrom, SignInSettings,
        SignIns, TellAgents, Tokens, not_good,
    },
    signing::PublishedKey,
};
use crate::{
    error::{Code, Error, Result},
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

    /// The role of a word of the memberships table.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "member" => Some(Self::Member),
            "admin" => Some(Self::Admin),
            _ => None,
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
    /// What their credential may be used for.
    pub scopes: Scopes,
    /// IANA name, for dates that people and models read.
    pub timezone: String,
}

impl Actor {
    /// The actor for whom a stored turn runs. Only rows that an authenticated caller wrote lead here.
    #[must_use]
    pub fn of_turn(tenant: TenantId, user: UserId) -> Self {
        let (role, timezone) = (Role::Member, "UTC".to_owned());
        Self { tenant, user, role, operator: false, scopes: Scopes::ALL, timezone }
    }

    /// The user whom an agent of the tenant reads or changes the context of: as whom Postgres shows that user's rows alone.
    /// Only an agent's good token leads here.
    #[must_use]
    pub(crate) fn served_by_agent(tenant: TenantId, user: UserId) -> Self {
        Self { scopes: Scopes::NONE, ..Self::of_turn(tenant, user) }
    }

    /// # Errors
    /// 403 when the credential may not be used for this.
    pub fn must_have(&self, scope: Scope) -> Result<()> {
        self.scopes.must_have(scope)
    }
}

impl Scopes {
    /// # Errors
    /// 403 when the scope is not in the set.
    pub fn must_have(self, scope: Scope) -> Result<()> {
        if self.contains(scope) {
            return Ok(());
        }
        let message = format!("this needs a credential with the scope {}", scope.as_str());
        Err(Error::new(Code::Forbidden, message))
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

    /// As stored.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The owner of an API key, and for how long it is good if it expires; none when the key is unknown, expired or revoked.
///
/// # Errors
/// The database's.
pub async fn by_api_key(app: &PgPool, key: &KeyHash) -> Result<Option<(Principal, Option<Duration>)>> {
    store::by_key_hash(app, &key.0).await
}
