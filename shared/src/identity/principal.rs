//! What a credential proves, before the request says in which tenant it wants to act.

use super::{Role, Scopes};
use crate::ids::{ApiKeyId, SignInId, TenantId, UserId};

/// A user who showed a good credential. Which tenant they act in, and as what, is decided from this and the request's
/// headers; only then is there an [`Actor`](super::Actor).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The person.
    pub user: UserId,
    /// Their address. None for a user of an outside issuer that vouched for none, or for one that somebody else has.
    pub email: Option<String>,
    /// Whether somebody we trust has checked that the address is theirs. Never grant anything by an address that is
    /// not verified: anybody can register with any address.
    pub email_verified: bool,
    /// IANA name.
    pub timezone: String,
    /// What the credential may be used for.
    pub scopes: Scopes,
    /// Whether the credential operates the deployment.
    pub operator: bool,
    /// What the credential says about the tenant.
    pub tenant: CredentialTenant,
    /// Which credential it was.
    pub credential: Credential,
    /// Who the user is to the outside issuer of this token; none for users of our own.
    pub outside: Option<OutsideSubject>,
}

/// What a credential says about the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialTenant {
    /// It is good in this tenant and in no other. The role is the user's membership there, none without one.
    Bound { tenant: TenantId, role: Option<Role> },
    /// A token's claim names a tenant, or an organisation of the outside issuer. It is a wish, not a right.
    Wished(String),
    /// Nothing.
    Open,
}

/// A kind of credential, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// `X-API-Key`.
    ApiKey(ApiKeyId),
    /// `Authorization: Bearer`, one of our own tokens.
    Bearer(SignInId),
    /// `Authorization: Bearer`, a token of the outside issuer.
    OutsideBearer,
    /// A browser's cookie session.
    Cookie(SignInId),
}

/// A user as an outside issuer names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideSubject {
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
}
