//! `X-API-Key`.
//!
//! Keys that were found are remembered for ten seconds, so that a turn's many requests cost one look-up. A key that is
//! revoked therefore works for up to ten seconds more, on each process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;
use secrecy::SecretString;
use shared::{
    error::{Code, Error, Result},
    identity::{self, KeyHash, Principal},
};
use sqlx::PgPool;

/// How long a key that was found is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Keys remembered at most; beyond that all are forgotten, which costs a look-up each.
const REMEMBERED: usize = 10_000;

/// Finds the owners of keys.
pub(super) struct Keys {
    app: PgPool,
    known: Mutex<HashMap<KeyHash, (Principal, Instant)>>,
}

impl Keys {
    /// Over the pool of the app role.
    pub(super) fn new(app: PgPool) -> Self {
        Self { app, known: Mutex::default() }
    }

    /// The owner of a key.
    ///
    /// # Errors
    /// 401 when the key is not good; the database's.
    pub(super) async fn principal(&self, key: &HeaderValue) -> Result<Principal> {
        let key = key.to_str().map(|key| KeyHash::of(&SecretString::from(key))).map_err(|_| unknown())?;
        match self.remembered(&key) {
            Some(principal) => Ok(principal),
            None => self.look_up(key).await,
        }
    }

    /// A key that is due for another look is believed by everybody but the one who looks, so that a busy key is looked
    /// up once and not by all its requests.
    fn remembered(&self, key: &KeyHash) -> Option<Principal> {
        let mut known = self.known();
        let (principal, since) = known.get_mut(key)?;
        if since.elapsed() < BELIEVED {
            return Some(principal.clone());
        }
        *since = Instant::now();
        None
    }

    async fn look_up(&self, key: KeyHash) -> Result<Principal> {
        let found = identity::by_api_key(&self.app, &key).await;
        let mut known = self.known();
        match found {
            Ok(Some(principal)) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, (principal.clone(), Instant::now()));
                Ok(principal)
            }
            Ok(None) => {
                known.remove(&key);
                Err(unknown())
            }
            Err(error) => {
                known.remove(&key);
                Err(error)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<KeyHash, (Principal, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown() -> Error {
    Error::new(Code::Auth, "the API key is unknown, expired or revoked")
}
