//! What agents do here [A5]: they come in with their credentials, get a session and its token, and read, change and
//! acknowledge what they may.
//!
//! Invariants: whoever holds an [`AgentActor`] has shown a token of a session that is live now, of an agent that is on, in a
//! tenant that is active; nothing of that is remembered. What an agent may do is what its matrix, its level, its session and
//! the user all leave. Every decision, for it or against it, is in the tenant's audit log.

mod contexts;
mod credentials;
mod sessions;
mod store;
mod token;

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub(super) use self::credentials::{Hashes, make as make_credentials};
pub use self::{
    contexts::{Acknowledged, SeenContext},
    credentials::AgentCredentials,
    sessions::{Asked, Begun, Session, SessionFilter, list, revoke},
};
use super::{
    AgentName,
    permissions::{Granted, Level},
};
use crate::{
    db::TenantDb,
    error::{Code, Error, Result},
    ids::TenantId,
    tenancy::audit::{self, ByAgent, Entry},
};

/// Letters of a target or a reason that are written down.
const LONGEST_TEXT: usize = 300;

/// How sessions of agents are made.
#[derive(Debug, Clone)]
pub struct SideSettings {
    /// `AGENT_JWT_SECRET_KEY`
    pub token_key: SecretString,
    /// Who signs: the public URL.
    pub issuer: String,
    /// `AGENT_TOKEN_EXPIRE_MINUTES`
    pub token_life: Duration,
    /// `DEFAULT_TENANT_ID`: whoever belongs to no other tenant belongs to it.
    pub default_tenant: TenantId,
}

/// Where agents come in; cheap to clone.
#[derive(Clone)]
pub struct AgentSide {
    engine: PgPool,
    tenants: TenantDb,
    settings: SideSettings,
}

/// An agent that showed a good token.
#[derive(Debug, Clone)]
pub struct AgentActor {
    tenant: TenantId,
    agent: AgentName,
    session: Uuid,
    level: Level,
    granted: Granted,
    request_id: String,
}

impl AgentActor {
    /// The tenant that it serves.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Its name there.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The session of its token.
    #[must_use]
    pub fn session(&self) -> Uuid {
        self.session
    }

    fn by(&self) -> ByAgent<'_> {
        ByAgent { agent: self.agent.as_str(), request_id: Some(&self.request_id) }
    }
}

impl AgentSide {
    /// Over the engine's pool, for what is asked before a user is known, and the way to tenants' rows.
    #[must_use]
    pub fn new(engine: PgPool, tenants: TenantDb, settings: SideSettings) -> Self {
        Self { engine, tenants, settings }
    }

    /// Passes on what came of an agent's wish. That it was refused is in the audit log then, unless it was us who failed. What
    /// was granted is there already, or changed nothing.
    ///
    /// # Errors
    /// What the wish failed with; the database's.
    pub async fn or_refused<T>(
        &self,
        actor: &AgentActor,
        action: &'static str,
        target: &str,
        outcome: Result<T>,
    ) -> Result<T> {
        if let Err(error) = &outcome
            && error.code != Code::Internal
        {
            let mut connection = self.engine.acquire().await?;
            note(&mut connection, actor, action, target, refused(actor, error)).await?;
        }
        outcome
    }

    /// The same of a wish to read: that it was granted is written down too.
    async fn decided<T>(
        &self,
        actor: &AgentActor,
        action: &'static str,
        target: &str,
        outcome: Result<T>,
    ) -> Result<T> {
        let granted = self.or_refused(actor, action, target, outcome).await?;
        let mut connection = self.engine.acquire().await?;
        note(&mut connection, actor, action, target, allowed(actor)).await?;
        Ok(granted)
    }
}

/// Writes a decision into the audit log. What it changes is of the same transaction.
async fn note(
    connection: &mut PgConnection,
    actor: &AgentActor,
    action: &'static str,
    target: &str,
    details: Value,
) -> Result<()> {
    let entry = Entry::new(action, beginning(target)).with(details);
    audit::record_of_agent(connection, actor.tenant, &actor.by(), entry).await
}

fn allowed(actor: &AgentActor) -> Value {
    json!({ "decision": "allowed", "session": actor.session })
}

fn refused(actor: &AgentActor, error: &Error) -> Value {
    json!({ "decision": "refused", "because": beginning(&error.message), "session": actor.session })
}

/// As much of a text as is written down: refusals name whatever the agent sent.
fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(LONGEST_TEXT).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

/// The one refusal of a token: it does not say why.
fn not_good() -> Error {
    Error::new(Code::Auth, "the agent's token is not good; get one with POST /api/v1/agents/token")
}
