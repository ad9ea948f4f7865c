//! What a tenant's requests are signed with: a secret of its own, or the deployment's while it has none [I3].
//!
//! A rotation adds a secret; the one before stays good for seven days after the new one was delivered, so that nobody who
//! signs is cut off by a secret that they were never given. Secrets are sealed by the vault, and every reading is in the
//! audit log.

mod delivery;
mod store;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use secrecy::{SecretString, zeroize::Zeroize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub use self::delivery::{Folder, Rotated, SecretStore, rotate_due};
use super::{
    OperatorActor,
    audit::{self, Entry},
    remembered::Remembered,
    signature::Signed,
};
use crate::{
    config::TenantConfig,
    error::{Error, Result},
    ids::TenantId,
    vault::{Binding, Vault},
};

/// How long a secret that ended is still believed, at most; a look-up's own time comes to it.
const BELIEVED: Duration = Duration::from_secs(5);
/// Tenants remembered at most.
const REMEMBERED: usize = 20_000;
const PURPOSE: &str = "tenant header secret";

/// Checks the signatures of requests.
pub struct HeaderSecrets {
    app: PgPool,
    vault: Vault,
    deployment: Option<SecretString>,
    live: Remembered<TenantId, Arc<[SecretString]>>,
    /// Which secrets this process has had before, so that the audit log tells of each once.
    known: Mutex<HashMap<TenantId, Vec<Uuid>>>,
}

impl HeaderSecrets {
    /// Over the pool of the app role. `deployment` is the secret of tenants that have none of their own.
    #[must_use]
    pub fn new(app: PgPool, vault: Vault, deployment: Option<SecretString>) -> Self {
        Self { app, vault, deployment, live: Remembered::new(BELIEVED, REMEMBERED), known: Mutex::default() }
    }

    /// Whether requests for tenant data have to be signed.
    #[must_use]
    pub fn are_required(&self) -> bool {
        self.deployment.is_some()
    }

    /// Checks a signature with the tenant's own secrets or, when it has none, with the deployment's.
    ///
    /// # Errors
    /// 401 when it does not fit; the database's.
    pub async fn check(&self, signed: &Signed) -> Result<()> {
        let own = self.live.get(&signed.tenant, || self.load(signed.tenant)).await?;
        if own.is_empty() { signed.verify(&self.deployment) } else { signed.verify(own.iter()) }
    }

    /// A secret of this tenant was changed here: looks again at once.
    pub fn forget(&self, tenant: TenantId) {
        self.live.forget(&tenant);
    }

    async fn load(&self, tenant: TenantId) -> Result<Arc<[SecretString]>> {
        let known = self.known().get(&tenant).cloned().unwrap_or_default();
        let live = store::live(&self.app, tenant, &known).await?;
        if !live.is_empty() {
            let mut known = self.known();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(tenant, live.iter().map(|(id, _)| *id).collect());
        }
        live.iter().map(|(id, sealed)| open(&self.vault, tenant, *id, sealed)).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, Vec<Uuid>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a new secret reaches whoever signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// With the answer to whoever asks for it.
    Answer,
    /// Through `TENANT_SECRETS_FOLDER`: the worker puts it there, and an answer that somebody read delivers nothing.
    Folder,
}

impl Delivery {
    /// As the deployment has it.
    #[must_use]
    pub fn of(config: &TenantConfig) -> Self {
        if config.secrets_folder.is_some() { Self::Folder } else { Self::Answer }
    }
}

/// A secret as whoever signs gets it.
#[derive(Debug, Clone)]
pub struct HeaderSecret {
    pub id: Uuid,
    pub secret: SecretString,
}

/// What is told of a secret without reading it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct HeaderSecretInfo {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a secret and hands it to whoever asked, which delivers it where nothing else does.
///
/// # Errors
/// 404 when there is no such tenant; the database's.
pub async fn rotate(
    engine: &PgPool,
    vault: &Vault,
    operator: &OperatorActor,
    tenant: TenantId,
    delivery: Delivery,
) -> Result<HeaderSecret> {
    let mut tx = crate::db::begin(engine).await?;
    let made = make(&mut tx, vault, tenant).await?;
    answered(&mut tx, tenant, made.id, delivery).await?;
    let id = made.id.to_string();
    audit::record_for(&mut tx, operator, tenant, Entry::new("header_secret.rotated", &id)).await?;
    tx.commit().await?;
    Ok(made)
}

/// The tenant's secrets that are good, newest first; not the secrets themselves.
///
/// # Errors
/// 404 when there is no such tenant; the database's.
pub async fn list(engine: &PgPool, _: &OperatorActor, tenant: TenantId) -> Result<Vec<HeaderSecretInfo>> {
    let mut tx = crate::db::begin(engine).await?;
    store::lock(&mut tx, tenant).await?;
    let list = store::list(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(list)
}

/// Reads one of the tenant's secrets that are good, which delivers it where nothing else does.
///
/// # Errors
/// 404 when there is no such secret; the database's.
pub async fn read(
    engine: &PgPool,
    vault: &Vault,
    operator: &OperatorActor,
    tenant: TenantId,
    id: Uuid,
    delivery: Delivery,
) -> Result<HeaderSecret> {
    let mut tx = crate::db::begin(engine).await?;
    store::lock(&mut tx, tenant).await?;
    let sealed = store::sealed(&mut tx, tenant, id).await?;
    let sealed = sealed.ok_or_else(|| Error::not_found("the tenant has no such secret"))?;
    let secret = open(vault, tenant, id, &sealed)?;
    answered(&mut tx, tenant, id, delivery).await?;
    let target = id.to_string();
    audit::record_for(&mut tx, operator, tenant, Entry::new("header_secret.read", &target)).await?;
    tx.commit().await?;
    Ok(HeaderSecret { id, secret })
}

/// Adds a secret that nobody was given yet. Of those before, the newest that was given to somebody stays good.
pub(super) async fn make(
    connection: &mut PgConnection,
    vault: &Vault,
    tenant: TenantId,
) -> Result<HeaderSecret> {
    store::lock(connection, tenant).await?;
    let id = Uuid::now_v7();
    let secret = random_secret("tbs_");
    let sealed = vault.seal(binding(tenant, &id.to_string()), &secret)?;
    store::insert(connection, tenant, id, &sealed).await?;
    store::keep_two(connection, tenant, id).await?;
    Ok(HeaderSecret { id, secret })
}

/// A secret is told in an answer.
pub(super) async fn answered(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: Uuid,
    delivery: Delivery,
) -> Result<()> {
    match delivery {
        Delivery::Answer => store::delivered(connection, tenant, id).await,
        Delivery::Folder => Ok(()),
    }
}

fn open(vault: &Vault, tenant: TenantId, id: Uuid, sealed: &str) -> Result<SecretString> {
    vault.open(binding(tenant, &id.to_string()), sealed)
}

fn binding(tenant: TenantId, id: &str) -> Binding<'_> {
    Binding { tenant, purpose: PURPOSE, subject: id }
}

/// 256 random bits behind a prefix that says what it is to people and to scanners for leaked secrets.
pub(super) fn random_secret(prefix: &str) -> SecretString {
    let mut bytes: [u8; 32] = rand::random();
    let mut text = String::with_capacity(prefix.len() + 64);
    text.push_str(prefix);
    for byte in bytes {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    bytes.zeroize();
    text.into()
}
