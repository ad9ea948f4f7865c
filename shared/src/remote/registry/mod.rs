//! Which remote servers there are: those of the configuration, those that operators gave to every tenant, and a tenant's
//! own. A tenant's own wins over one of the same name that came later.
//!
//! Invariant: a bearer token is sealed with its server's name and address, so that it opens for no other address.

mod store;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

pub use self::write::{
    Change, amended, create, create_for_all, delete, delete_for_all, update, update_for_all,
};
use super::definition::ServerDefinition;
use crate::{
    db::{TenantDb, TenantTx},
    error::Result,
    identity::Actor,
    ids::TenantId,
    tenancy::remembered::Remembered,
    vault::{Binding, Vault},
};

/// How long a change made by another process may go unnoticed.
const BELIEVED: Duration = Duration::from_secs(3);
/// Tenants remembered at most.
const REMEMBERED: usize = 20_000;
const PURPOSE: &str = "mcp server bearer";
/// Whose rows the deployment's own are.
pub(super) const DEPLOYMENT: TenantId = TenantId(Uuid::nil());

/// Who may use a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every tenant.
    Deployment,
    /// One.
    Tenant(TenantId),
}

impl Scope {
    /// Whose rows its servers' are.
    pub(super) fn owner(self) -> TenantId {
        match self {
            Self::Deployment => DEPLOYMENT,
            Self::Tenant(tenant) => tenant,
        }
    }
}

/// A server that the configuration names.
#[derive(Debug, Clone)]
pub struct FixedServer {
    pub definition: ServerDefinition,
    pub bearer: Option<SecretString>,
}

/// A server, ready to be used.
#[derive(Debug)]
pub struct Server {
    /// What was said about it.
    pub definition: ServerDefinition,
    /// Who may use it.
    pub scope: Scope,
    /// Whether the configuration names it, so that no request can change it.
    pub is_fixed: bool,
    /// Changes with anything that a session depends on.
    pub revision: String,
    bearer: Option<SecretString>,
}

impl Server {
    pub(in crate::remote) fn new(
        definition: ServerDefinition,
        scope: Scope,
        is_fixed: bool,
        bearer: Option<SecretString>,
    ) -> Result<Self> {
        let mut digest = Sha256::new_with_prefix(serde_json::to_vec(&definition)?);
        if let Some(bearer) = &bearer {
            digest.update(Sha256::digest(bearer.expose_secret()));
        }
        let revision = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { definition, scope, is_fixed, revision, bearer })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// How it is counted: tenants name their own as they like, and a metric has room for few names.
    #[must_use]
    pub fn counted_as(&self) -> String {
        match self.scope {
            Scope::Deployment => self.name().to_owned(),
            Scope::Tenant(_) => "of a tenant".to_owned(),
        }
    }

    /// The token that all its requests carry.
    #[must_use]
    pub fn bearer(&self) -> Option<&SecretString> {
        self.bearer.as_ref()
    }
}

/// The servers that a tenant may use and that are switched on.
#[derive(Debug)]
pub struct Servers {
    /// Those of the configuration first, then the deployment's, then the tenant's own.
    pub list: Vec<Arc<Server>>,
    /// When an admin last approved a change of a server's tools, by the server's name.
    approvals: BTreeMap<String, DateTime<Utc>>,
}

impl Servers {
    /// When an admin of the tenant last approved a change of this server's tools.
    #[must_use]
    pub fn approved_at(&self, server: &str) -> Option<DateTime<Utc>> {
        self.approvals.get(server).copied()
    }
}

/// A server as its admins see it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub server: Arc<Server>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    pub health: Option<super::health::Health>,
}

/// Finds servers.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    tenants: TenantDb,
    vault: Vault,
    fixed: Vec<Arc<Server>>,
    known: Remembered<TenantId, Arc<Servers>>,
}

impl Registry {
    /// Over what the configuration names and what is stored.
    ///
    /// # Errors
    /// None that an operator could mend.
    pub fn new(tenants: TenantDb, vault: Vault, fixed: &[FixedServer]) -> Result<Self> {
        let fixed = fixed.iter().map(|server| {
            let FixedServer { definition, bearer } = server.clone();
            Server::new(definition, Scope::Deployment, true, bearer).map(Arc::new)
        });
        let fixed = fixed.collect::<Result<_>>()?;
        Ok(Self(Arc::new(Inner { tenants, vault, fixed, known: Remembered::new(BELIEVED, REMEMBERED) })))
    }

    /// The servers that the actor's tenant may use and that are switched on.
    ///
    /// # Errors
    /// The database's.
    pub async fn servers(&self, actor: &Actor) -> Result<Arc<Servers>> {
        self.0.known.get(&actor.tenant, || self.load(actor)).await
    }

    /// The server of this name that the actor's tenant uses.
    ///
    /// # Errors
    /// The database's.
    pub async fn server(&self, actor: &Actor, name: &str) -> Result<Option<Arc<Server>>> {
        Ok(self.servers(actor).await?.list.iter().find(|server| server.name() == name).cloned())
    }

    /// All servers of the tenant and of the deployment, by name, also those that are switched off.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(&self, tx: &mut TenantTx) -> Result<Vec<Listed>> {
        let tenant = tx.actor().tenant;
        let health = super::health::of(tx).await?;
        let mut listed = Vec::new();
        for row in store::all(tx).await? {
            let (created_at, updated_at) = (Some(row.created_at), Some(row.updated_at));
            listed.push((self.server_of(row)?, created_at, updated_at));
        }
        let own: Vec<String> = listed.iter().map(|(server, ..)| server.name().to_owned()).collect();
        let fixed = self.0.fixed.iter().filter(|server| !own.iter().any(|name| name == server.name()));
        listed.extend(fixed.map(|server| (Arc::clone(server), None, None)));
        let is_hidden = |server: &Server| {
            server.scope == Scope::Deployment
                && listed
                    .iter()
                    .any(|(other, ..)| other.name() == server.name() && other.scope == Scope::Tenant(tenant))
        };
        let mut shown: Vec<Listed> = listed
            .iter()
            .filter(|(server, ..)| !is_hidden(server))
            .map(|(server, created_at, updated_at)| Listed {
                health: health
                    .iter()
                    .find(|health| health.name == server.name() && health.tenant_id == server.scope.owner())
                    .cloned(),
                server: Arc::clone(server),
                created_at: *created_at,
                updated_at: *updated_at,
            })
            .collect();
        shown.sort_by(|one, other| one.server.name().cmp(other.server.name()));
        Ok(shown)
    }

    /// Every server that is switched on, of all tenants, for health checks; ordered by tenant and name, after the given.
    pub(super) async fn page_of_all(
        &self,
        engine: &sqlx::PgPool,
        after: Option<(TenantId, String)>,
        limit: i64,
    ) -> Result<Vec<Arc<Server>>> {
        let rows = store::page_of_all(engine, after, limit).await?;
        rows.into_iter().map(|row| self.server_of(row)).collect()
    }

    /// The servers that the configuration names.
    #[must_use]
    pub fn fixed(&self) -> &[Arc<Server>] {
        &self.0.fixed
    }

    /// A server was changed here: looks again at once.
    pub fn forget(&self, scope: Scope) {
        match scope {
            Scope::Deployment => self.0.known.forget_all(),
            Scope::Tenant(tenant) => self.0.known.forget(&tenant),
        }
    }

    /// The vault that tokens are sealed with.
    pub(super) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// Tenants' transactions.
    pub(super) fn tenants(&self) -> &TenantDb {
        &self.0.tenants
    }

    async fn load(&self, actor: &Actor) -> Result<Arc<Servers>> {
        let mut tx = self.0.tenants.begin(actor).await?;
        let rows = store::all(&mut tx).await?;
        let approvals = store::approvals(&mut tx).await?.into_iter().collect();
        tx.commit().await?;
        let mut servers = self.0.fixed.clone();
        // The deployment's come before the tenant's own.
        for row in rows {
            match self.server_of(row) {
                Ok(server) => {
                    servers.retain(|other| other.name() != server.name());
                    servers.push(server);
                }
                Err(error) => {
                    tracing::error!(error = %error, "an MCP server's row cannot be read; it is left out")
                }
            }
        }
        servers.retain(|server| server.definition.enabled);
        Ok(Arc::new(Servers { list: servers, approvals }))
    }

    fn server_of(&self, row: store::Row) -> Result<Arc<Server>> {
        let scope =
            if row.tenant_id == DEPLOYMENT { Scope::Deployment } else { Scope::Tenant(row.tenant_id) };
        let definition: ServerDefinition = serde_json::from_value(row.definition)?;
        let subject = subject(&definition.name, &definition.url);
        let bearer =
            row.bearer_enc.map(|sealed| self.0.vault.open(binding(row.tenant_id, &subject), &sealed));
        Server::new(definition, scope, false, bearer.transpose()?).map(Arc::new)
    }
}

fn binding(tenant: TenantId, subject: &str) -> Binding<'_> {
    Binding { tenant, purpose: PURPOSE, subject }
}

/// What a token is good for: this server at this place.
fn subject(name: &str, url: &Url) -> String {
    format!("{name} {}", url.origin().ascii_serialization())
}
