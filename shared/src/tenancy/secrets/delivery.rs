//! Rotation by the clock, and how a new secret reaches whoever signs.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use secrecy::ExposeSecret as _;
use sqlx::PgPool;

use super::{HeaderSecret, make, open, store};
use crate::{
    error::{Error, Result},
    ids::TenantId,
    tenancy::audit::{self, Entry},
    vault::Vault,
};

/// Tenants worked on in one run; the next tick goes on.
const CHUNK: i64 = 200;

/// Where new secrets are put for whoever signs. Putting the same one twice does no harm.
pub trait SecretStore: Send + Sync {
    /// Puts it there.
    fn deliver<'a>(&'a self, tenant: TenantId, secret: &'a HeaderSecret) -> BoxFuture<'a, Result<()>>;
}

/// A folder with one file a tenant, `{tenant}.json`, which only its owner may read: for a gateway on the same machine,
/// a mounted volume, or an agent that carries it on.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl SecretStore for Folder {
    fn deliver<'a>(&'a self, tenant: TenantId, secret: &'a HeaderSecret) -> BoxFuture<'a, Result<()>> {
        let folder = self.0.clone();
        let text = serde_json::json!({
            "tenantId": tenant, "secretId": secret.id, "secret": secret.secret.expose_secret(),
        })
        .to_string();
        Box::pin(async move {
            let writing = tokio::task::spawn_blocking(move || write(&folder, tenant, &text));
            writing.await.map_err(Error::internal)?.map_err(Error::internal)
        })
    }
}

/// Whoever reads sees the old file or the new one, never half of one.
fn write(folder: &Path, tenant: TenantId, text: &str) -> std::io::Result<()> {
    let new = folder.join(format!(".{tenant}.{}.new", uuid::Uuid::now_v7().simple()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&new, folder.join(format!("{tenant}.json")))).inspect_err(|_| {
        // The first error is the one to tell of.
        let _ = std::fs::remove_file(&new);
    })
}

/// What a run did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    pub made: usize,
    pub delivered: usize,
    pub sealed_again: usize,
}

/// Makes a new secret for every tenant whose newest is over 90 days old, delivers what was not delivered yet, seals again
/// what an old key of `FERNET_KEY` sealed, and forgets what has expired. Without a store, new secrets wait to be fetched.
///
/// # Errors
/// The first thing that did not work, when the rest is done.
pub async fn rotate_due(engine: &PgPool, vault: &Vault, to: Option<&dyn SecretStore>) -> Result<Rotated> {
    let mut rotated = Rotated::default();
    let mut outcome = Ok(());
    for tenant in store::due(engine, CHUNK).await? {
        match rotate_one(engine, vault, tenant).await {
            Ok(()) => rotated.made += 1,
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    if let Some(to) = to {
        for (tenant, id, sealed) in store::undelivered(engine, CHUNK).await? {
            let delivering = async {
                let secret = HeaderSecret { id, secret: open(vault, tenant, id, &sealed)? };
                to.deliver(tenant, &secret).await?;
                note(engine, tenant, id).await
            };
            match delivering.await {
                Ok(()) => rotated.delivered += 1,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
    }
    for (tenant, id, sealed) in store::sealed_otherwise(engine, vault.first_id(), CHUNK).await? {
        let id_text = id.to_string();
        let again = open(vault, tenant, id, &sealed)
            .and_then(|secret| vault.seal(super::binding(tenant, &id_text), &secret));
        match again {
            Ok(again) => {
                store::reseal(engine, tenant, id, &sealed, &again).await?;
                rotated.sealed_again += 1;
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    store::delete_expired(engine).await?;
    outcome.map(|()| rotated)
}

async fn rotate_one(engine: &PgPool, vault: &Vault, tenant: TenantId) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    let made = make(&mut tx, vault, tenant).await?;
    let id = made.id.to_string();
    audit::record_of_system(&mut tx, tenant, Entry::new("header_secret.rotated", &id)).await?;
    Ok(tx.commit().await?)
}

async fn note(engine: &PgPool, tenant: TenantId, id: uuid::Uuid) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    store::delivered(&mut tx, tenant, id).await?;
    let id = id.to_string();
    audit::record_of_system(&mut tx, tenant, Entry::new("header_secret.delivered", &id)).await?;
    Ok(tx.commit().await?)
}
