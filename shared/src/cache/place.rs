//! Whose an answer is. Invariant: an answer that a person's own credential fetched is kept for that person alone.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{bell::CachePlace, identity::Actor, ids::TenantId};

/// Who shares an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The person whose call it was: always right, and the only right one where a server knows the person.
    User,
    /// Everybody of the tenant: for a server that knows the tenant, but not the person.
    Tenant,
    /// Everybody of the deployment: for a server without any credential, that the operator defined.
    Global,
}

impl Scope {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Global => "global",
        }
    }
}

/// A scope with its owner, for one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) tenant: TenantId,
    pub(super) owner: Uuid,
}

impl Place {
    pub(super) fn of(actor: &Actor, scope: Scope) -> Self {
        let (tenant, owner) = match scope {
            Scope::User => (actor.tenant, actor.user.0),
            Scope::Tenant => (actor.tenant, actor.tenant.0),
            Scope::Global => (TenantId(Uuid::nil()), Uuid::nil()),
        };
        Self { scope, tenant, owner }
    }

    /// The part of the place that a write to this server outdates.
    pub(super) fn server(self, server: &str) -> CachePlace {
        let digest = Sha256::digest(server.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        CachePlace { tenant: self.tenant, owner: self.owner, server: i64::from_be_bytes(first) }
    }
}
