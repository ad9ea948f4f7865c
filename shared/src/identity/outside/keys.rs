//! The keys that an issuer publishes (JWKS), fetched from the one configured place.
//!
//! A key that is not known is a reason to look, and so is age; but one look at a time, never two within the pause, so that
//! tokens with invented key ids cannot make us a weapon. While the issuer is down the last good keys hold.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::error::{Error, Result};

/// Keys older than this are fetched again while they are used.
const OLD: Duration = Duration::from_secs(600);
const CONNECT_TIME: Duration = Duration::from_secs(2);
const WHOLE_TIME: Duration = Duration::from_secs(5);
/// The largest answer; a key takes less than a kilobyte.
const LARGEST: usize = 256 * 1024;

#[derive(Clone)]
pub(super) struct PublishedKeys(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    url: Url,
    pause: Duration,
    known: RwLock<Known>,
    looked: Mutex<Option<Instant>>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<Vec<Jwk>>,
    fetched: Option<Instant>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl PublishedKeys {
    pub(super) fn new(url: Url, pause: Duration) -> Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .timeout(WHOLE_TIME)
            .no_proxy()
            .build()
            .map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner { client, url, pause, known: RwLock::default(), looked: Mutex::default() })))
    }

    /// The key for this algorithm: of this id, or without an id the only one there is.
    pub(super) async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let known = self.known();
        if let Some(key) = find(&known.keys, kid, algorithm) {
            if known.fetched.is_none_or(|at| at.elapsed() > OLD) {
                let this = self.clone();
                tokio::spawn(async move { this.look(Instant::now()).await });
            }
            return Some(key);
        }
        self.look(Instant::now()).await;
        find(&self.known().keys, kid, algorithm)
    }

    fn known(&self) -> Known {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys, unless that was done since `asked` or within the pause.
    async fn look(&self, asked: Instant) {
        let mut looked = self.0.looked.lock().await;
        if looked.is_some_and(|at| at >= asked || at.elapsed() < self.0.pause) {
            return;
        }
        *looked = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys: Arc::new(keys), fetched: Some(Instant::now()) };
                *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            }
            Err(error) => {
                let known = self.known().keys.len();
                tracing::warn!(%error, known, "the issuer's keys could not be fetched; the last good ones hold");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let request = self.0.client.get(self.0.url.clone()).header("accept", "application/json");
        // Without the URL, which may carry a secret.
        let mut response = request.send().await.map_err(|error| error.without_url().to_string())?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the answer was {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
            if body.len() + chunk.len() > LARGEST {
                return Err(format!("the answer is larger than {LARGEST} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let set: KeySet =
            serde_json::from_slice(&body).map_err(|_| "the answer is no set of keys".to_owned())?;
        // A key of a kind that nobody here knows does not spoil the others.
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }
}

fn find(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut suitable = keys
        .iter()
        .filter(|key| kid.is_none_or(|kid| key.common.key_id.as_deref() == Some(kid)))
        .filter(|key| is_for(key, algorithm));
    let key = suitable.next()?;
    // Without an id there is nothing to choose by.
    if kid.is_none() && suitable.next().is_some() {
        return None;
    }
    DecodingKey::from_jwk(key).ok()
}

/// Whether the key is one to check signatures of this algorithm with.
fn is_for(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let of_type = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (AlgorithmParameters::EllipticCurve(key), ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let is_meant = key.common.key_algorithm.is_none_or(|meant| meant.to_string() == format!("{algorithm:?}"));
    let is_to_sign = key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    of_type && is_meant && is_to_sign
}
