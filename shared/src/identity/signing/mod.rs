//! The keys that Alfred signs its tokens with: Ed25519, in a table that all processes share.
//!
//! A key's life: made and published · an hour later it signs · after thirty days the next one does · published until the
//! last token it signed has expired · deleted. So whoever checks our tokens with a copy of the published keys that is
//! less than an hour old always has the right one.

mod store;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::store::KeyRow;
use crate::{
    error::{Error, Result},
    ids::TenantId,
    vault::{Binding, Vault},
};

/// How long a key signs.
const SIGNS_FOR: TimeDelta = TimeDelta::days(30);
/// How long a key is published before it signs.
const PUBLISHED_BEFORE: TimeDelta = TimeDelta::hours(1);
/// How often a process looks for new keys; far less than [`PUBLISHED_BEFORE`].
const LOOKS_EVERY: Duration = Duration::from_secs(300);
/// How soon it looks again when the look failed, or for the sake of a key that it does not know.
const LOOKS_AGAIN: Duration = Duration::from_secs(5);

/// The deployment's signing keys, as this process knows them.
#[derive(Clone)]
pub(super) struct SigningKeys(Arc<Inner>);

struct Inner {
    engine: PgPool,
    vault: Vault,
    /// How long after its last signature a key is published.
    outlives: TimeDelta,
    known: RwLock<Arc<Vec<Key>>>,
    looked: Mutex<Option<Instant>>,
}

struct Key {
    kid: String,
    public: Vec<u8>,
    /// None when no configured key opens the private half.
    signs: Option<EncodingKey>,
    checks: DecodingKey,
    signs_from: DateTime<Utc>,
}

/// A published key (RFC 7517, RFC 8037).
#[derive(Debug, Clone, Serialize)]
pub struct PublishedKey {
    pub kty: &'static str,
    pub crv: &'static str,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub usage: &'static str,
    pub kid: String,
    pub x: String,
}

impl SigningKeys {
    /// Looks for keys from time to time until `stop`; makes them when it is time.
    pub(super) fn start(engine: PgPool, vault: Vault, token_life: Duration, stop: CancellationToken) -> Self {
        let life = TimeDelta::from_std(token_life).unwrap_or(TimeDelta::hours(1));
        let keys = Self(Arc::new(Inner {
            engine,
            vault,
            outlives: life + TimeDelta::minutes(10),
            known: RwLock::default(),
            looked: Mutex::default(),
        }));
        let task = keys.clone();
        tokio::spawn(async move {
            loop {
                let wait = match task.look(None).await {
                    Ok(()) => LOOKS_EVERY,
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the signing keys could not be read"
                        );
                        LOOKS_AGAIN
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
        keys
    }

    /// Signs claims with the key whose turn it is.
    pub(super) async fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String> {
        let mut keys = self.known();
        if keys.iter().all(|key| key.signs.is_none()) {
            self.look(Some(Instant::now())).await?;
            keys = self.known();
        }
        let now = Utc::now();
        let able = || keys.iter().filter_map(|key| Some((key, key.signs.as_ref()?)));
        let due = able().filter(|(key, _)| key.signs_from <= now).max_by_key(|(key, _)| key.signs_from);
        // The database's clock, which a first key's beginning was read from, may be ahead of ours.
        let (key, signs) = due
            .or_else(|| able().min_by_key(|(key, _)| key.signs_from))
            .ok_or_else(|| Error::internal("there is no key to sign with"))?;
        let header =
            Header { typ: Some(typ.to_owned()), kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, signs).map_err(Error::internal)
    }

    /// What checks signatures of this key; looks for a key that another process may have made.
    pub(super) async fn checking(&self, kid: &str) -> Result<Option<DecodingKey>> {
        let find = || self.known().iter().find(|key| key.kid == kid).map(|key| key.checks.clone());
        if let Some(key) = find() {
            return Ok(Some(key));
        }
        self.look(Some(Instant::now())).await?;
        Ok(find())
    }

    /// What the world may know.
    pub(super) async fn published(&self) -> Result<Vec<PublishedKey>> {
        if self.known().is_empty() {
            self.look(Some(Instant::now())).await?;
        }
        let published = |key: &Key| PublishedKey {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            usage: "sig",
            kid: key.kid.clone(),
            x: BASE64_URL_SAFE_NO_PAD.encode(&key.public),
        };
        Ok(self.known().iter().map(published).collect())
    }

    fn known(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.0.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys, one look at a time. Whoever `asked` for a key takes a look that began after that, or one that is
    /// a few seconds old: tokens with invented key ids must not become queries.
    async fn look(&self, asked: Option<Instant>) -> Result<()> {
        let mut looked = self.0.looked.lock().await;
        let fresh = |at: Instant| asked.is_some_and(|asked| at >= asked || at.elapsed() < LOOKS_AGAIN);
        if looked.is_some_and(fresh) {
            return Ok(());
        }
        let began = Instant::now();
        let (now, mut rows) = store::published(&self.0.engine).await?;
        if self.next(now, &rows).is_some() {
            rows = self.make(now).await?;
        }
        let keys = rows.into_iter().map(|row| self.open(row)).collect();
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        *looked = Some(began);
        Ok(())
    }

    /// When the next key is to sign, if it is time to make it.
    fn next(&self, now: DateTime<Utc>, rows: &[KeyRow]) -> Option<DateTime<Utc>> {
        let usable = |row: &&KeyRow| self.0.vault.open(place(&row.kid), &row.sealed_private_key).is_ok();
        let Some(newest) = rows.iter().filter(usable).map(|row| row.signs_from).max() else {
            return Some(now);
        };
        (newest + SIGNS_FOR <= now + PUBLISHED_BEFORE).then(|| now + PUBLISHED_BEFORE)
    }

    /// Makes the next key, unless another process was faster.
    async fn make(&self, now: DateTime<Utc>) -> Result<Vec<KeyRow>> {
        let mut tx = crate::db::begin(&self.0.engine).await?;
        store::lock(&mut tx).await?;
        let rows = store::published_in(&mut tx).await?;
        if let Some(signs_from) = self.next(now, &rows) {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new())
                .map_err(|_| Error::internal("no signing key could be made"))?;
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
                .map_err(|_| Error::internal("the signing key cannot be read"))?;
            let private = BASE64_URL_SAFE_NO_PAD.encode(pkcs8.as_ref());
            let kid = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
            let row = KeyRow {
                sealed_private_key: self.0.vault.seal(place(&kid), &private.into())?,
                public_key: pair.public_key().as_ref().to_vec(),
                kid,
                signs_from,
            };
            store::retire_others(&mut tx, signs_from + self.0.outlives).await?;
            store::insert(&mut tx, &row).await?;
            tracing::info!(kid = row.kid, %signs_from, "made a signing key");
        }
        let rows = store::published_in(&mut tx).await?;
        tx.commit().await?;
        Ok(rows)
    }

    fn open(&self, row: KeyRow) -> Key {
        let private = self.0.vault.open(place(&row.kid), &row.sealed_private_key).ok();
        let private = private.and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text.expose_secret()).ok());
        Key {
            signs: private.map(|pkcs8| EncodingKey::from_ed_der(&pkcs8)),
            checks: DecodingKey::from_ed_der(&row.public_key),
            kid: row.kid,
            public: row.public_key,
            signs_from: row.signs_from,
        }
    }
}

/// The keys are the deployment's, not a tenant's.
fn place(kid: &str) -> Binding<'_> {
    Binding { tenant: TenantId(Uuid::nil()), purpose: "signing key", subject: kid }
}
