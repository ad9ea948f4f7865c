//! What operators do with tenants: make one in one call, list, change, suspend, resume, take its data along, delete.
//!
//! Invariant: each change and its row in the audit log are one transaction. Deleting only marks; a maintenance task erases
//! in chunks, and a row without data stays so that the id means nobody else.

mod export;
mod store;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::json;
use sqlx::PgPool;

pub use self::export::{Lines, export};
use super::{
    OperatorActor,
    audit::{self, Entry},
    invitations::Invitation,
    memberships::TenantState,
    secrets::{self, Delivery, HeaderSecret},
};
use crate::{
    error::{Error, Result},
    identity::KeyHash,
    ids::{TenantId, UserId},
    vault::Vault,
};

/// A host name as browsers send it: lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name in a `Host` header; none when it has none that could stand for a tenant.
    #[must_use]
    pub fn of_header(header: &str) -> Option<Self> {
        let (name, port) = header.rsplit_once(':').unwrap_or((header, ""));
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name.parse().ok() } else { None }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if name.len() <= 253 && !is_address && name.contains('.') && name.split('.').all(is_label) {
            Ok(Self(name))
        } else {
            Err(Error::unacceptable("hosts: takes host names such as acme.example.com"))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant as operators see it.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub state: TenantState,
    pub state_since: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    /// Its organisation at WorkOS.
    pub external_id: Option<String>,
    /// The most of its turns that run at once.
    pub running_turns: i64,
    pub hosts: Vec<String>,
}

/// What a new tenant is made from.
#[derive(Debug, Clone)]
pub struct NewTenant {
    pub name: String,
    pub admin_email: String,
    pub external_id: Option<String>,
    pub running_turns: i64,
    pub hosts: Vec<HostName>,
}

/// A new tenant with what opens it; none of it can be read again but the header secret.
pub struct Provisioned {
    pub tenant: Tenant,
    pub admin: UserId,
    pub admin_key: SecretString,
    /// For the person with the admin's address to come in by; none when the address was checked before, and they belong.
    pub invitation: Option<Invitation>,
    pub header_secret: HeaderSecret,
}

/// What to change of a tenant; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub name: Option<String>,
    /// None in it takes the organisation away.
    pub external_id: Option<Option<String>>,
    pub running_turns: Option<i64>,
    /// All of them.
    pub hosts: Option<Vec<HostName>>,
}

/// Makes a tenant, its slots, its first admin with a key, and its header secret.
///
/// The first admin is a user of the tenant's own whom the key acts as, and whom nobody can sign in as: who has registered
/// the address need not be the person whom the operator means. That person comes in by the invitation. Only a user whose
/// address was checked is the first admin themselves.
///
/// # Errors
/// 409 when a host or the organisation is another tenant's; the database's.
pub async fn provision(
    engine: &PgPool,
    vault: &Vault,
    operator: &OperatorActor,
    new: NewTenant,
    delivery: Delivery,
) -> Result<Provisioned> {
    let id = TenantId::generate();
    let admin_key = new_key();
    let mut tx = crate::db::begin(engine).await?;
    store::insert(&mut tx, id, &new).await.map_err(taken)?;
    store::resize(&mut tx, id, new.running_turns).await?;
    store::set_hosts(&mut tx, id, &new.hosts).await.map_err(taken)?;
    let invitation = Invitation::new();
    let (admin, belongs) = match store::verified_user(&mut tx, &new.admin_email).await? {
        Some(user) => (user, true),
        None => (UserId::generate(), false),
    };
    if belongs {
        store::insert_admin(&mut tx, id, admin).await?;
    } else {
        store::insert_invited_admin(&mut tx, id, admin, &new.admin_email, &invitation).await?;
    }
    store::insert_key(&mut tx, id, admin, KeyHash::of(&admin_key)).await?;
    let header_secret = secrets::make(&mut tx, vault, id).await?;
    secrets::answered(&mut tx, id, header_secret.id, delivery).await?;
    let details = json!({ "name": new.name, "adminUserId": admin, "runningTurns": new.running_turns });
    audit::record_for(&mut tx, operator, id, Entry::new("tenant.provisioned", "").with(details)).await?;
    let tenant = store::one(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
    tx.commit().await?;
    let invitation = Some(invitation).filter(|_| !belongs);
    Ok(Provisioned { tenant, admin, admin_key, invitation, header_secret })
}

/// A new API key; only its hash is stored.
#[must_use]
pub fn new_key() -> SecretString {
    secrets::random_secret("alf_")
}

/// Makes sure that the tenant exists that everybody without a membership shares; safe to run many times.
///
/// # Errors
/// The database's.
pub async fn ensure_default(engine: &PgPool, id: TenantId, running_turns: i64) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    if store::ensure(&mut tx, id).await? {
        store::resize(&mut tx, id, running_turns).await?;
    }
    Ok(tx.commit().await?)
}

/// The tenants that are not deleted, by id, after the one that the cursor names.
///
/// # Errors
/// The database's.
pub async fn list(
    engine: &PgPool,
    _: &OperatorActor,
    after: Option<TenantId>,
    most: i64,
) -> Result<Vec<Tenant>> {
    store::list(engine, after, most).await
}

/// One tenant.
///
/// # Errors
/// 404 when it is not there or deleted; the database's.
pub async fn one(engine: &PgPool, _: &OperatorActor, id: TenantId) -> Result<Tenant> {
    let mut connection = engine.acquire().await?;
    store::one(&mut connection, id).await?.ok_or_else(no_such_tenant)
}

/// Changes a tenant.
///
/// # Errors
/// 404 when it is not there or deleted; 409 when a host or the organisation is another tenant's; the database's.
pub async fn change(
    engine: &PgPool,
    operator: &OperatorActor,
    id: TenantId,
    change: &Change,
) -> Result<Tenant> {
    let mut tx = crate::db::begin(engine).await?;
    let before = store::lock(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
    if before == TenantState::Deleting {
        return Err(Error::conflict("the tenant is being deleted"));
    }
    store::update(&mut tx, id, change).await.map_err(taken)?;
    if let Some(running_turns) = change.running_turns {
        store::resize(&mut tx, id, running_turns).await?;
    }
    if let Some(hosts) = &change.hosts {
        store::set_hosts(&mut tx, id, hosts).await.map_err(taken)?;
    }
    let details = json!({
        "name": change.name,
        "externalId": change.external_id,
        "runningTurns": change.running_turns,
        "hosts": change.hosts.as_ref().map(|hosts| hosts.iter().map(HostName::as_str).collect::<Vec<_>>()),
    });
    audit::record_for(&mut tx, operator, id, Entry::new("tenant.changed", "").with(details)).await?;
    let tenant = store::one(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
    tx.commit().await?;
    Ok(tenant)
}

/// Where an operator moves a tenant to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Refuse its requests. Turns that were accepted before still end.
    Suspend,
    /// Serve it again.
    Resume,
    /// Refuse its requests and erase what it has; a turn that runs stops when its row goes.
    Delete,
}

/// Moves a tenant to another state; doing so twice changes nothing.
///
/// # Errors
/// 404 when it is not there or deleted; 409 for the default tenant, which everybody without a membership shares, and for
/// a tenant that is being deleted; the database's.
pub async fn move_to(
    engine: &PgPool,
    operator: &OperatorActor,
    default_tenant: TenantId,
    id: TenantId,
    to: Move,
) -> Result<Tenant> {
    let mut tx = crate::db::begin(engine).await?;
    let before = store::lock(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
    if id == default_tenant && to != Move::Resume {
        return Err(Error::conflict("the default tenant can be neither suspended nor deleted"));
    }
    let (state, action) = match (before, to) {
        (TenantState::Deleting, Move::Suspend | Move::Resume) => {
            return Err(Error::conflict("the tenant is being deleted"));
        }
        (_, Move::Suspend) => (TenantState::Suspended, "tenant.suspended"),
        (_, Move::Resume) => (TenantState::Active, "tenant.resumed"),
        (_, Move::Delete) => (TenantState::Deleting, "tenant.deleted"),
    };
    if state != before {
        store::set_state(&mut tx, id, state).await?;
        audit::record_for(&mut tx, operator, id, Entry::new(action, "")).await?;
    }
    let tenant = store::one(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
    tx.commit().await?;
    Ok(tenant)
}

/// Erases what deleted tenants have, a chunk at a time; answers how many rows went. A tenant that has nothing left is
/// marked, and looked at again for a day, because a process that had not heard of it may have written once more.
///
/// # Errors
/// The database's.
pub async fn erase_deleted(engine: &PgPool, chunk: i64) -> Result<u64> {
    let mut total = 0;
    for (tenant, is_marked) in store::to_erase(engine).await? {
        loop {
            let erased = store::erase(engine, tenant, chunk).await?;
            total += u64::try_from(erased).unwrap_or(0);
            if erased == 0 {
                break;
            }
        }
        if !is_marked {
            let mut tx = crate::db::begin(engine).await?;
            store::mark_deleted(&mut tx, tenant).await?;
            audit::record_of_system(&mut tx, tenant, Entry::new("tenant.erased", "")).await?;
            tx.commit().await?;
        }
    }
    Ok(total)
}

/// The tenant of a host name, if it stands for one.
///
/// # Errors
/// The database's.
pub async fn of_host(app: &PgPool, host: &HostName) -> Result<Option<TenantId>> {
    store::of_host(app, host).await
}

fn no_such_tenant() -> Error {
    Error::not_found("there is no such tenant")
}

fn taken(error: Error) -> Error {
    let constraint =
        error.database().and_then(sqlx::Error::as_database_error).and_then(|error| error.constraint());
    match constraint {
        Some("tenants_external_key") => Error::conflict("externalId: is another tenant's"),
        Some("tenant_hosts_host_key") => Error::conflict("hosts: one of them is another tenant's"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_without_its_port() {
        let of = |header| HostName::of_header(header).map(|host| host.0);
        assert_eq!(of("Acme.Example.com:8443").as_deref(), Some("acme.example.com"));
        assert_eq!(of("acme.example.com.").as_deref(), Some("acme.example.com"));
        for other in ["localhost:8080", "127.0.0.1:80", "[::1]:80", "a b.c", "acme.example.com:x", "-a.b", ""]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
