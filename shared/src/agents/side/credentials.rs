//! What an agent comes in by: an API key, which names its tenant, and a client secret. 256 random bits each, so that a plain
//! hash is all that is kept.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    agents::{AgentName, store},
    db::TenantTx,
    error::Result,
    ids::TenantId,
};

const KEY_PREFIX: &str = "aak_";
const SECRET_PREFIX: &str = "acs_";

/// An agent's credentials, as it gets them, once.
#[derive(Debug)]
pub struct AgentCredentials {
    /// `aak_…`
    pub api_key: SecretString,
    /// `acs_…`
    pub client_secret: SecretString,
}

/// The hashes of a pair of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agents) struct Hashes {
    pub(in crate::agents) api_key: Vec<u8>,
    pub(in crate::agents) client_secret: Vec<u8>,
}

/// Makes credentials in place of those that the agent had.
pub(in crate::agents) async fn make(tx: &mut TenantTx, agent: &AgentName) -> Result<AgentCredentials> {
    let made = new(tx.actor().tenant);
    store::replace_credentials(tx, agent, &hashes(&made.api_key, &made.client_secret)).await?;
    Ok(made)
}

fn new(tenant: TenantId) -> AgentCredentials {
    let key: Vec<u8> = tenant.0.as_bytes().iter().copied().chain(rand::random::<[u8; 32]>()).collect();
    let secret = rand::random::<[u8; 32]>();
    AgentCredentials {
        api_key: format!("{KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(key)).into(),
        client_secret: format!("{SECRET_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret)).into(),
    }
}

/// The tenant that a key says it is of. Nothing about it is true yet.
pub(super) fn tenant_of(api_key: &SecretString) -> Option<TenantId> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(api_key.expose_secret().strip_prefix(KEY_PREFIX)?).ok()?;
    let (tenant, random) = bytes.split_at_checked(16)?;
    (random.len() == 32).then_some(TenantId(Uuid::from_slice(tenant).ok()?))
}

/// Whether these are the credentials that are kept; the work is the same whatever the answer, also when none are.
pub(super) fn are_good(kept: Option<&Hashes>, api_key: &SecretString, client_secret: &SecretString) -> bool {
    let shown = hashes(api_key, client_secret);
    let nobodys = Hashes { api_key: vec![0; 32], client_secret: vec![0; 32] };
    let wanted = kept.unwrap_or(&nobodys);
    let is_key = verify_slices_are_equal(&wanted.api_key, &shown.api_key).is_ok();
    let is_secret = verify_slices_are_equal(&wanted.client_secret, &shown.client_secret).is_ok();
    is_key & is_secret & kept.is_some()
}

fn hashes(api_key: &SecretString, client_secret: &SecretString) -> Hashes {
    Hashes { api_key: hash(api_key), client_secret: hash(client_secret) }
}

/// What is kept of a secret.
pub(super) fn hash(secret: &SecretString) -> Vec<u8> {
    Sha256::digest(secret.expose_secret().as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_wanted_and_the_key_names_its_tenant() {
        let tenant = TenantId::generate();
        let (mine, other) = (new(tenant), new(tenant));
        assert_eq!(tenant_of(&mine.api_key), Some(tenant));
        let kept = hashes(&mine.api_key, &mine.client_secret);
        assert!(are_good(Some(&kept), &mine.api_key, &mine.client_secret));
        assert!(!are_good(Some(&kept), &mine.api_key, &other.client_secret));
        assert!(!are_good(Some(&kept), &other.api_key, &mine.client_secret));
        assert!(!are_good(None, &mine.api_key, &mine.client_secret));
        for wrong in ["", "aak_", "aak_%%", "acs_AAAA", "aak_AAAA"] {
            assert_eq!(tenant_of(&wrong.into()), None, "{wrong}");
        }
    }
}
