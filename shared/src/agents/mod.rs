//! Agents: programs that a tenant has told when its users sign in, sign out or change. Which there are, what they want to
//! hear of, what they may see of a user, and what deliveries to them are signed with.
//!
//! A sign-in never waits for an agent: its event and the deliveries are rows of the sign-in's own transaction, and workers
//! deliver them ([`deliveries`]).

pub mod breaker;
pub mod condition;
pub mod configured;
pub mod contexts;
pub mod deliveries;
pub mod figures;
pub mod health;
pub mod permissions;
mod secret;
pub mod side;
mod store;
pub mod sync;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use uuid::Uuid;

pub use self::secret::AgentSecret;
use self::{
    condition::Condition,
    permissions::{Level, Permissions},
    side::AgentCredentials,
};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    outbound::Outbound,
    tenancy::{
        AdminActor,
        audit::{self, Entry},
    },
    vault::Vault,
};

/// How long the former secret goes on signing beside the new one, unless the rotation says otherwise.
pub const OVERLAP_HOURS: i64 = 24;
const LONGEST_ENDPOINT: usize = 2048;
const MOST_CAPABILITIES: usize = 32;
/// Agents of one tenant, beside those of the environment.
const MOST_AGENTS: i64 = 50;

/// The name of an agent within its tenant: lower-case letters, digits and `_`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct AgentName(String);

impl AgentName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let begins = text.starts_with(|letter: char| letter.is_ascii_lowercase());
        let is_plain = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if begins && is_plain && text.len() <= 63 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::unacceptable(
                "name must be 1 to 63 lower-case letters, digits and _, beginning with a letter",
            ))
        }
    }
}

/// What an agent can be told of, in the words of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Somebody signed in.
    UserLogin,
    /// A sign-in ended.
    UserLogout,
    /// What is known of somebody changed.
    ContextUpdate,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::UserLogin, Self::UserLogout, Self::ContextUpdate];

    /// The word of the tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserLogin => "user_login",
            Self::UserLogout => "user_logout",
            Self::ContextUpdate => "context_update",
        }
    }

    /// The word that agents are told.
    #[must_use]
    pub fn told_as(self) -> &'static str {
        match self {
            Self::UserLogin => "user_authenticated",
            Self::UserLogout => "user_logged_out",
            Self::ContextUpdate => "context_updated",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }
}

/// An agent.
#[derive(Debug, Clone)]
pub struct Agent {
    pub name: AgentName,
    /// Deliveries go to `{endpoint}/context/update`, several to `/batch` below it, health checks to `{endpoint}/health`.
    pub endpoint: Url,
    pub capabilities: Vec<String>,
    pub event_types: Vec<EventType>,
    /// How much of its permissions it has at most.
    pub permission_level: Level,
    pub permissions: Permissions,
    /// Whose events it is told of; none is everybody's.
    pub condition: Option<Condition>,
    /// Several deliveries go to it in one request.
    pub accepts_batches: bool,
    pub enabled: bool,
    /// Why deliveries stopped by themselves.
    pub disabled_because: Option<String>,
    /// It comes from the environment, which decides its endpoint.
    pub configured: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What an admin says of an agent; what is none stays as it is, or is the default of a new one.
#[derive(Debug, Clone, Default)]
pub struct AgentChange {
    pub endpoint: Option<String>,
    pub capabilities: Option<Vec<String>>,
    pub event_types: Option<Vec<EventType>>,
    pub permission_level: Option<Level>,
    pub permissions: Option<Permissions>,
    /// Some of none takes the condition away.
    pub condition: Option<Option<Condition>>,
    pub accepts_batches: Option<bool>,
    pub enabled: Option<bool>,
}

/// A new agent, with what is shown of it once.
#[derive(Debug)]
pub struct NewAgent {
    pub agent: Agent,
    /// What deliveries to it are signed with.
    pub secret: SecretString,
    /// What it comes in by.
    pub credentials: AgentCredentials,
}

/// Registers an agent.
///
/// # Errors
/// 409 for a name that is taken, and when the tenant has [`MOST_AGENTS`]; 422 for what is not acceptable; the database's.
pub async fn create(
    tx: &mut TenantTx,
    admin: &AdminActor,
    vault: &Vault,
    outbound: &Outbound,
    name: &AgentName,
    change: &AgentChange,
) -> Result<NewAgent> {
    let endpoint = change.endpoint.as_deref().ok_or_else(|| Error::unacceptable("endpoint is required"))?;
    let endpoint = checked_endpoint(outbound, endpoint)?;
    let capabilities = checked_capabilities(change.capabilities.clone().unwrap_or_default())?;
    let events = change.event_types.clone().unwrap_or_else(|| EventType::ALL.to_vec());
    must_make_sense(change)?;
    let new = store::Write {
        endpoint: Some(plain(&endpoint)),
        capabilities: Some(&capabilities),
        event_types: Some(words(&events)),
        permission_level: Some(change.permission_level.unwrap_or(Level::ReadOnly).as_str()),
        permissions: Some(change.permissions.clone().unwrap_or_default()),
        condition: change.condition.clone(),
        accepts_batches: Some(change.accepts_batches.unwrap_or_default()),
        enabled: Some(change.enabled.unwrap_or(true)),
    };
    if store::count(tx).await? >= MOST_AGENTS {
        return Err(Error::conflict(format!(
            "a tenant has at most {MOST_AGENTS} agents; remove one that is not needed"
        )));
    }
    if !store::insert(tx, name, &new).await? {
        return Err(Error::conflict("the tenant has an agent of this name"));
    }
    let tenant = tx.actor().tenant;
    let secret = secret::make(tx.connection(), vault, tenant, name).await?;
    let entry = Entry::new("agent.created", name.as_str()).with(
        json!({ "endpoint": endpoint, "permissions": change.permissions.as_ref().map(permission_words) }),
    );
    audit::record(tx, admin, entry).await?;
    let credentials = side::make_credentials(tx, name).await?;
    Ok(NewAgent { agent: get(tx, admin, name).await?, secret: secret.value, credentials })
}

/// The tenant's agents by name; with a capability, those that have it.
///
/// # Errors
/// The database's.
pub async fn list(tx: &mut TenantTx, _: &AdminActor, capability: Option<&str>) -> Result<Vec<Agent>> {
    store::list(tx, capability).await?.into_iter().map(Agent::try_from).collect()
}

/// One agent.
///
/// # Errors
/// 404; the database's.
pub async fn get(tx: &mut TenantTx, _: &AdminActor, name: &AgentName) -> Result<Agent> {
    store::one(tx, name).await?.ok_or_else(no_such_agent)?.try_into()
}

/// Changes an agent. Enabling one that was gone forgets that it was, and its breaker; disabling one ends its sessions.
///
/// # Errors
/// 404; 409 for the endpoint of one that the environment configures; 422; the database's.
pub async fn update(
    tx: &mut TenantTx,
    admin: &AdminActor,
    outbound: &Outbound,
    name: &AgentName,
    change: &AgentChange,
) -> Result<Agent> {
    let before = get(tx, admin, name).await?;
    let endpoint = change.endpoint.as_deref().map(|text| checked_endpoint(outbound, text)).transpose()?;
    if before.configured && endpoint.as_ref().is_some_and(|endpoint| *endpoint != before.endpoint) {
        return Err(Error::conflict("this agent's endpoint comes from the environment; change it there"));
    }
    let capabilities = change.capabilities.clone().map(checked_capabilities).transpose()?;
    must_make_sense(change)?;
    let write = store::Write {
        endpoint: endpoint.as_ref().map(plain),
        capabilities: capabilities.as_deref(),
        event_types: change.event_types.as_deref().map(words),
        permission_level: change.permission_level.map(Level::as_str),
        permissions: change.permissions.clone(),
        condition: change.condition.clone(),
        accepts_batches: change.accepts_batches,
        enabled: change.enabled,
    };
    store::update(tx, name, &write).await?;
    if change.enabled == Some(false) {
        store::end_sessions(tx, name).await?;
    }
    if change.enabled == Some(true) || endpoint.is_some() {
        store::forget_breaker(tx, name).await?;
    }
    let entry = Entry::new("agent.updated", name.as_str()).with(json!({
        "endpoint": endpoint,
        "enabled": change.enabled,
        "permissionLevel": change.permission_level.map(Level::as_str),
        "permissions": change.permissions.as_ref().map(permission_words),
        "condition": change.condition,
        "acceptsBatches": change.accepts_batches,
    }));
    audit::record(tx, admin, entry).await?;
    get(tx, admin, name).await
}

/// Removes an agent. What it was not told yet is dead.
///
/// # Errors
/// 404; 409 for one that the environment configures; the database's.
pub async fn delete(tx: &mut TenantTx, admin: &AdminActor, name: &AgentName) -> Result<()> {
    if get(tx, admin, name).await?.configured {
        return Err(Error::conflict(
            "this agent comes from the environment; disable it, or take it out there",
        ));
    }
    store::delete(tx, name).await?;
    audit::record(tx, admin, Entry::new("agent.deleted", name.as_str())).await
}

/// Makes a new secret. The former one signs beside it for [`OVERLAP_HOURS`], so that the agent can change over.
///
/// # Errors
/// 404; the database's.
pub async fn rotate_secret(
    tx: &mut TenantTx,
    admin: &AdminActor,
    vault: &Vault,
    name: &AgentName,
) -> Result<AgentSecret> {
    get(tx, admin, name).await?;
    let tenant = tx.actor().tenant;
    let made = secret::make(tx.connection(), vault, tenant, name).await?;
    audit::record(tx, admin, Entry::new("agent.secret_rotated", name.as_str())).await?;
    Ok(made)
}

/// Makes new credentials for an agent's own requests. The former ones and all of its sessions end with it.
///
/// # Errors
/// 404; the database's.
pub async fn rotate_credentials(
    tx: &mut TenantTx,
    admin: &AdminActor,
    name: &AgentName,
) -> Result<AgentCredentials> {
    get(tx, admin, name).await?;
    let made = side::make_credentials(tx, name).await?;
    store::end_sessions(tx, name).await?;
    audit::record(tx, admin, Entry::new("agent.credentials_rotated", name.as_str())).await?;
    Ok(made)
}

/// The endpoint as it is stored: paths are put behind it.
fn plain(endpoint: &Url) -> &str {
    endpoint.as_str().trim_end_matches('/')
}

fn checked_endpoint(outbound: &Outbound, text: &str) -> Result<Url> {
    let wrong = || Error::unacceptable("endpoint must be an https:// address without query or fragment");
    if text.len() > LONGEST_ENDPOINT {
        return Err(wrong());
    }
    let url: Url = text.trim_end_matches('/').parse().map_err(|_| wrong())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    outbound.must_be_open(&url)?;
    Ok(url)
}

fn checked_capabilities(mut capabilities: Vec<String>) -> Result<Vec<String>> {
    let is_word = |word: &String| {
        !word.is_empty()
            && word.len() <= 63
            && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    };
    if capabilities.len() > MOST_CAPABILITIES || !capabilities.iter().all(is_word) {
        return Err(Error::unacceptable(format!(
            "capabilities must be at most {MOST_CAPABILITIES} words of lower-case letters, digits, _ and -"
        )));
    }
    capabilities.sort_unstable();
    capabilities.dedup();
    Ok(capabilities)
}

fn must_make_sense(change: &AgentChange) -> Result<()> {
    change.permissions.as_ref().map_or(Ok(()), Permissions::must_agree)?;
    change.condition.as_ref().and_then(Option::as_ref).map_or(Ok(()), Condition::must_make_sense)
}

fn permission_words(permissions: &Permissions) -> serde_json::Value {
    json!({
        "required": permissions.required,
        "optional": permissions.optional,
        "forbidden": permissions.forbidden,
    })
}

fn words(events: &[EventType]) -> Vec<&'static str> {
    let mut words: Vec<_> = events.iter().map(|event| event.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

fn no_such_agent() -> Error {
    Error::not_found("the tenant has no such agent")
}

impl TryFrom<store::AgentRow> for Agent {
    type Error = Error;

    fn try_from(row: store::AgentRow) -> Result<Self> {
        Ok(Self {
            name: row.name,
            endpoint: row.endpoint.parse().map_err(Error::internal)?,
            capabilities: row.capabilities,
            event_types: row.event_types.iter().filter_map(|word| EventType::from_word(word)).collect(),
            permission_level: row.matrix.level(),
            permissions: row.matrix.permissions(),
            condition: row.condition.map(serde_json::from_value).transpose()?,
            accepts_batches: row.accepts_batches,
            enabled: row.enabled,
            disabled_because: row.disabled_because,
            configured: row.configured,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// An id that sorts by time.
fn new_id() -> Uuid {
    Uuid::now_v7()
}
