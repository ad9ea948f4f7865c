//! In which tenant a person acts, and as what: what names a tenant is gathered from the request, signatures are checked,
//! and `shared::tenancy::memberships` chooses among the person's memberships.

use std::time::SystemTime;

use http::{HeaderMap, header, request::Parts};
use shared::{
    config::Config,
    error::{Code, Error, Invalid, Result},
    identity::{Actor, Credential, CredentialTenant, Principal},
    ids::TenantId,
    tenancy::{
        control::HostName,
        hosts::Hosts,
        memberships::{self, Choice, Chosen, Directory, Membership, no_such_tenant},
        secrets::HeaderSecrets,
        signature::Signed,
        workos::WorkOs,
    },
    vault::Vault,
};
use sqlx::PgPool;

const TENANT: &str = "x-tenant-id";
const SIGNED_TENANT: &str = "x-tb-tenant-id";
const TIMESTAMP: &str = "x-tb-timestamp";
const SIGNATURE: &str = "x-tb-signature";

/// Turns a person into an actor.
pub(crate) struct Tenants {
    default_tenant: TenantId,
    /// Stands for no tenant, so it is not looked up.
    public_host: Option<HostName>,
    pub(crate) directory: Directory,
    secrets: HeaderSecrets,
    hosts: Hosts,
}

/// What a person belongs to, and what they chose of it.
pub(crate) struct Standing {
    pub(crate) memberships: std::sync::Arc<[Membership]>,
    pub(crate) chosen: Result<Chosen>,
}

impl Tenants {
    /// Over the pool of the app role.
    ///
    /// # Errors
    /// When WorkOS cannot be asked on this machine.
    pub(super) fn new(app: &PgPool, config: &Config, vault: Vault) -> Result<Self> {
        let workos = config.tenants.workos.as_ref().map(WorkOs::new).transpose()?;
        Ok(Self {
            default_tenant: config.default_tenant,
            public_host: config.public_url.host_str().and_then(HostName::of_header),
            directory: Directory::new(app.clone(), workos),
            secrets: HeaderSecrets::new(app.clone(), vault, config.tenants.header_secret.clone()),
            hosts: Hosts::new(app.clone()),
        })
    }

    /// An operator changed a tenant: this process looks again at once, others within seconds.
    pub(crate) fn changed(&self, tenant: TenantId) {
        self.directory.forget_all();
        self.hosts.forget_all();
        self.secrets.forget(tenant);
    }

    /// Whether a host name stands for a tenant.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn is_host(&self, host: &HostName) -> Result<bool> {
        Ok(self.hosts.tenant(host).await?.is_some())
    }

    /// The person in the tenant of this request.
    ///
    /// # Errors
    /// 401 when signed headers are missing or wrong, or the key is of a tenant that the person does not belong to any
    /// more; 400, 403 and 404 as `memberships::choose` says; the database's and the directory's.
    pub(super) async fn actor(&self, principal: Principal, parts: &Parts) -> Result<Actor> {
        let headers = &parts.headers;
        let is_signed = headers.contains_key(SIGNATURE) || headers.contains_key(TIMESTAMP);
        let is_cookie = matches!(principal.credential, Credential::Cookie(_));
        if self.secrets.are_required() && !is_signed && !is_cookie {
            let message =
                "requests for tenant data need the headers X-TB-Tenant-ID, X-TB-Timestamp and X-TB-Signature";
            return Err(Error::new(Code::Auth, message));
        }
        let chosen = self.standing(&principal, headers).await?.chosen?;
        if chosen.accepts {
            // Anybody's link has a browser send a cookie along; only what was shown to be meant accepts.
            if is_cookie && parts.method.is_safe() {
                return Err(no_such_tenant());
            }
            self.directory.accept(chosen.tenant, principal.user).await?;
        }
        Ok(Actor {
            tenant: chosen.tenant,
            user: principal.user,
            role: chosen.role,
            operator: principal.operator,
            scopes: principal.scopes,
            timezone: principal.timezone,
        })
    }

    /// What the person belongs to, and what they and the request chose of it.
    ///
    /// # Errors
    /// 401 when signed headers are wrong; 400 when a header cannot be read; the database's and the directory's.
    pub(crate) async fn standing(&self, principal: &Principal, headers: &HeaderMap) -> Result<Standing> {
        let mut choice = Choice { named: self.named(headers).await?, claimed: None };
        let memberships = self.directory.memberships(principal).await?;
        match &principal.tenant {
            CredentialTenant::Bound { tenant, .. } => {
                let belongs = memberships.iter().any(|membership| membership.tenant == *tenant);
                let shares = memberships::shares_the_default(&memberships) && *tenant == self.default_tenant;
                if !belongs && !shares {
                    let message = "the key is of a tenant that its owner does not belong to any more";
                    return Err(Error::new(Code::Auth, message));
                }
                choice.named.push(*tenant);
            }
            CredentialTenant::Wished(claim) => choice.claimed = Some(claim.clone()),
            CredentialTenant::Open => {}
        }
        let chosen = memberships::choose(&memberships, &choice, self.default_tenant);
        Ok(Standing { memberships, chosen })
    }

    /// The tenants that the request itself names. A signature that is there is checked whether it is required or not.
    async fn named(&self, headers: &HeaderMap) -> Result<Vec<TenantId>> {
        let mut named = Vec::new();
        let signed_tenant = one(headers, SIGNED_TENANT)?;
        match (signed_tenant, one(headers, TIMESTAMP)?, one(headers, SIGNATURE)?) {
            (Some(tenant), Some(timestamp), Some(signature)) => {
                let signed = Signed::read(tenant, timestamp, signature, SystemTime::now())?;
                self.secrets.check(&signed).await?;
                named.push(signed.tenant);
            }
            // Without a secret it is an alias of X-Tenant-ID; with one, an unsigned name counts only for those who need
            // not sign, and only chooses among their memberships.
            (Some(tenant), None, None) => named.push(read(tenant)?),
            (None, None, None) => {}
            _ => {
                let message =
                    "X-TB-Tenant-ID, X-TB-Timestamp and X-TB-Signature belong together; one is missing";
                return Err(Error::new(Code::Auth, message));
            }
        }
        if let Some(tenant) = one(headers, TENANT)? {
            named.push(read(tenant)?);
        }
        let host = headers.get(header::HOST).and_then(|host| HostName::of_header(host.to_str().ok()?));
        if let Some(host) = host.filter(|host| Some(host) != self.public_host.as_ref())
            && let Some(tenant) = self.hosts.tenant(&host).await?
        {
            named.push(tenant);
        }
        Ok(named)
    }
}

/// A header that may come once: of two, another program on the way may believe the other one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    let unreadable = || Error::invalid(Invalid::Unreadable, format!("the header {name} cannot be read"));
    if second.is_some() {
        return Err(unreadable());
    }
    first.map(|value| value.to_str().map_err(|_| unreadable())).transpose()
}

/// What is no id names no tenant.
fn read(tenant: &str) -> Result<TenantId> {
    tenant.trim().parse().map_err(|_| no_such_tenant())
}
