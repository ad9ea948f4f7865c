//! What a tenant's administrators decide: the system prompt and which tools run, ask first, or are denied.

pub mod signature;
mod store;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    db::TenantTx,
    error::{Code, Error, Result},
    identity::{Actor, Role},
};

/// Whether a tool may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It runs.
    Allow,
    /// A person decides on each call.
    Ask,
    /// It does not run, and the model is told.
    Deny,
}

impl Policy {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }

    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "ask" => Self::Ask,
            "deny" => Self::Deny,
            _ => Self::Allow,
        }
    }
}

/// The policies that a tenant has set, by tool; a tool without one runs.
pub type Policies = BTreeMap<String, Policy>;

/// An actor who administers their tenant. Whoever holds one has passed the check.
pub struct AdminActor(Actor);

impl AdminActor {
    /// # Errors
    /// 403 when the actor is not an admin of their tenant.
    pub fn of(actor: Actor) -> Result<Self> {
        match actor.role {
            Role::Admin => Ok(Self(actor)),
            Role::Member => Err(Error::new(Code::Forbidden, "this needs the role admin in the tenant")),
        }
    }

    /// The actor.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.0
    }
}

/// The tenant's policies.
///
/// # Errors
/// The database's.
pub async fn policies(tx: &mut TenantTx) -> Result<Policies> {
    store::policies(tx).await
}

/// Sets a tool's policy, for an admin.
///
/// # Errors
/// The database's.
pub async fn set_policy(tx: &mut TenantTx, _: &AdminActor, tool: &str, policy: Policy) -> Result<()> {
    store::set_policy(tx, tool, policy).await
}

/// Removes a tool's policy, so that it runs again; false when it had none.
///
/// # Errors
/// The database's.
pub async fn clear_policy(tx: &mut TenantTx, _: &AdminActor, tool: &str) -> Result<bool> {
    store::clear_policy(tx, tool).await
}

/// The tenant's own system prompt, if it has set one.
///
/// # Errors
/// The database's.
pub async fn system_prompt(tx: &mut TenantTx) -> Result<Option<String>> {
    store::system_prompt(tx).await
}

/// Sets or, with none, resets the tenant's system prompt.
///
/// # Errors
/// The database's.
pub async fn set_system_prompt(tx: &mut TenantTx, _: &AdminActor, prompt: Option<&str>) -> Result<()> {
    store::set_system_prompt(tx, prompt).await
}
