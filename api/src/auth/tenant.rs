//! In which tenant a person acts, and as what.

use http::HeaderMap;
use shared::{
    error::{Code, Error, Result},
    identity::{Actor, CredentialTenant, Principal, Role},
    ids::TenantId,
};

/// Turns a person into an actor.
pub(super) struct Tenants {
    default_tenant: TenantId,
}

impl Tenants {
    pub(super) fn new(default_tenant: TenantId) -> Self {
        Self { default_tenant }
    }

    /// The person in the tenant of their credential, or in the default tenant, whose users row-level security keeps
    /// apart.
    ///
    /// # Errors
    /// 401 when the credential is of a tenant that the person does not belong to any more.
    pub(super) async fn actor(&self, principal: Principal, _: &HeaderMap) -> Result<Actor> {
        let (tenant, role) = match principal.tenant {
            CredentialTenant::Bound { tenant, role: Some(role) } => (tenant, role),
            CredentialTenant::Bound { tenant, role: None } if tenant != self.default_tenant => {
                return Err(Error::new(Code::Auth, "the API key is unknown, expired or revoked"));
            }
            _ => (self.default_tenant, Role::Member),
        };
        Ok(Actor {
            tenant,
            user: principal.user,
            role,
            operator: principal.operator,
            scopes: principal.scopes,
            timezone: principal.timezone,
        })
    }
}
