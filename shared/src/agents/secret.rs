//! What deliveries are signed with: 256 random bits for each agent, in the form of Standard Webhooks (`whsec_` and base64).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AgentName, OVERLAP_HOURS, new_id, store};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    vault::{Binding, Vault},
};

const PURPOSE: &str = "agent secret";
const PREFIX: &str = "whsec_";

/// A secret as its agent gets it, once.
#[derive(Debug)]
pub struct AgentSecret {
    pub id: Uuid,
    /// `whsec_…`
    pub value: SecretString,
    /// When the former one stops signing; none when there was none.
    pub former_until: Option<DateTime<Utc>>,
}

/// Makes a secret; the newest before it goes on for a while, others end.
pub(super) async fn make(
    connection: &mut PgConnection,
    vault: &Vault,
    tenant: TenantId,
    agent: &AgentName,
) -> Result<AgentSecret> {
    let id = new_id();
    let value: SecretString = format!("{PREFIX}{}", STANDARD.encode(rand::random::<[u8; 32]>())).into();
    let subject = subject(agent, id);
    let sealed = vault.seal(Binding { tenant, purpose: PURPOSE, subject: &subject }, &value)?;
    let former_until = store::end_secrets(connection, tenant, agent, OVERLAP_HOURS).await?;
    store::insert_secret(connection, tenant, agent, id, &sealed).await?;
    Ok(AgentSecret { id, value, former_until })
}

/// The bytes that sign.
pub(super) fn open(
    vault: &Vault,
    tenant: TenantId,
    agent: &AgentName,
    id: Uuid,
    sealed: &str,
) -> Result<Vec<u8>> {
    let subject = subject(agent, id);
    let value = vault.open(Binding { tenant, purpose: PURPOSE, subject: &subject }, sealed)?;
    let text = value.expose_secret().strip_prefix(PREFIX).unwrap_or_default();
    STANDARD.decode(text).map_err(|_| Error::internal("an agent's secret is not in its form"))
}

fn subject(agent: &AgentName, id: Uuid) -> String {
    format!("{}/{id}", agent.as_str())
}
