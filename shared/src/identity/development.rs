//! The development identity: one tenant, one user, the API key of the environment. Tests make more of the same.

use secrecy::SecretString;
use sqlx::PgPool;
use uuid::Uuid;

use super::{KeyHash, Role, store};
use crate::{
    error::Result,
    ids::{TenantId, UserId},
};

/// The tenant of the development key, unless `DEFAULT_TENANT_ID` names another.
pub const TENANT: TenantId = crate::config::DEFAULT_TENANT;
/// The user of the development key.
pub const USER: UserId = UserId(Uuid::from_u128(0x0a1f_0000_0000_7000_8000_0000_0000_0002));

/// A tenant's user with a key, as tests and development make them.
pub struct Identity<'a> {
    /// The tenant, made when it is not there.
    pub tenant: TenantId,
    /// The user, made when they are not there.
    pub user: UserId,
    /// Unique without case over the deployment.
    pub email: &'a str,
    /// Their role in that tenant.
    pub role: Role,
    /// Whether the key operates the deployment.
    pub operator: bool,
    /// The key; only its hash is stored.
    pub key: &'a SecretString,
    /// How many turns of this tenant may run at once.
    pub running_turns: i64,
}

/// Makes sure that this identity exists; safe to run many times and at the same time.
///
/// # Errors
/// The database's.
pub async fn ensure(engine: &PgPool, identity: &Identity<'_>) -> Result<()> {
    store::ensure(
        engine,
        &store::NewIdentity {
            tenant: identity.tenant,
            tenant_name: "default",
            user: identity.user,
            email: identity.email,
            role: identity.role,
            operator: identity.operator,
            key_hash: KeyHash::of(identity.key).0,
            running_turns: identity.running_turns,
        },
    )
    .await
}

/// Ends the operator keys of the development user but this one; answers how many there were.
///
/// # Errors
/// The database's.
pub async fn end_other_keys(engine: &PgPool, key: Option<&SecretString>) -> Result<u64> {
    let present = key.map(|key| KeyHash::of(key).0);
    store::end_operator_keys(engine, USER, present.as_ref()).await
}
