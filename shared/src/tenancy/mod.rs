//! Tenants: who belongs to which, in which of them a request acts, what operators do with them, and what a tenant's
//! administrators decide (the system prompt, and which tools run, ask first, or are denied).

pub mod audit;
pub mod control;
pub mod hosts;
pub mod invitations;
pub mod memberships;
pub mod people;
pub mod policies;
pub(crate) mod remembered;
pub mod secrets;
pub mod signature;
mod store;
pub mod workos;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use self::audit::Entry;
use crate::{
    db::TenantTx,
    error::{Code, Error, Result},
    identity::{Actor, Role},
    ids::TenantId,
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
pub struct AdminActor {
    actor: Actor,
    request_id: Option<String>,
}

impl AdminActor {
    /// # Errors
    /// 403 when the actor is not an admin of their tenant.
    pub fn of(actor: Actor) -> Result<Self> {
        match actor.role {
            Role::Admin => Ok(Self { actor, request_id: None }),
            Role::Member => Err(Error::new(Code::Forbidden, "this needs the role admin in the tenant")),
        }
    }

    /// The actor.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The same, acting in this request: the audit log names it.
    #[must_use]
    pub fn during(self, request_id: &str) -> Self {
        Self { request_id: Some(request_id.to_owned()), ..self }
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

/// An actor who operates the deployment. Whoever holds one has passed the check.
pub struct OperatorActor {
    actor: Actor,
    request_id: Option<String>,
}

impl OperatorActor {
    /// # Errors
    /// 403 when the actor does not operate the deployment.
    pub fn of(actor: Actor) -> Result<Self> {
        if actor.operator {
            Ok(Self { actor, request_id: None })
        } else {
            Err(Error::new(Code::Forbidden, "this needs the role operator"))
        }
    }

    /// The actor.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The same, acting in this request: the audit log names it.
    #[must_use]
    pub fn during(self, request_id: &str) -> Self {
        Self { request_id: Some(request_id.to_owned()), ..self }
    }

    /// The operator as an admin of this tenant, to whom row-level security shows that tenant and no other.
    fn within(&self, tenant: TenantId) -> Actor {
        Actor { tenant, role: Role::Admin, ..self.actor.clone() }
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
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
pub async fn set_policy(tx: &mut TenantTx, admin: &AdminActor, tool: &str, policy: Policy) -> Result<()> {
    store::set_policy(tx, tool, policy).await?;
    let entry = Entry::new("tool_policy.set", tool).with(json!({ "policy": policy.as_str() }));
    audit::record(tx, admin, entry).await
}

/// Removes a tool's policy, so that it runs again; false when it had none.
///
/// # Errors
/// The database's.
pub async fn clear_policy(tx: &mut TenantTx, admin: &AdminActor, tool: &str) -> Result<bool> {
    let had_one = store::clear_policy(tx, tool).await?;
    if had_one {
        audit::record(tx, admin, Entry::new("tool_policy.cleared", tool)).await?;
    }
    Ok(had_one)
}

/// The tenant's name.
///
/// # Errors
/// The database's.
pub async fn name(tx: &mut TenantTx) -> Result<Option<String>> {
    store::name(tx).await
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
pub async fn set_system_prompt(tx: &mut TenantTx, admin: &AdminActor, prompt: Option<&str>) -> Result<()> {
    store::set_system_prompt(tx, prompt).await?;
    let entry = Entry::new("system_prompt.set", "").with(json!({ "isOwn": prompt.is_some() }));
    audit::record(tx, admin, entry).await
}
