//! Who calls. Every route of the API takes a [`Caller`]; today it is made from `X-API-Key`, and other credentials will
//! make the same value.
//!
//! Keys that were found are remembered for ten seconds, so that a turn's many requests cost one look-up. A key that is
//! revoked therefore works for up to ten seconds more, on each process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::extract::{FromRequestParts, MatchedPath};
use http::{HeaderMap, request::Parts};
use secrecy::SecretString;
use shared::{
    error::{Code, Error, Result},
    identity::{self, Actor, KeyHash},
};
use sqlx::PgPool;
use tracing::{Span, field::display};

use crate::{error::Failure, state::App};

/// How long a key that was found is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Keys remembered at most; beyond that all are forgotten, which costs a look-up each.
const REMEMBERED: usize = 10_000;

/// An authenticated caller.
pub(crate) struct Caller(pub(crate) Actor);

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        Ok(Self(app.callers.of(&parts.headers).await?))
    }
}

/// Tells the access log which route was taken.
pub(crate) fn note_route(parts: &Parts) {
    if let Some(route) = parts.extensions.get::<MatchedPath>() {
        Span::current().record("route", route.as_str());
    }
}

/// Finds callers by their credentials.
pub(crate) struct Callers {
    app: PgPool,
    known: Mutex<HashMap<KeyHash, (Actor, Instant)>>,
}

impl Callers {
    /// Over the pool of the app role.
    pub(crate) fn new(app: PgPool) -> Self {
        Self { app, known: Mutex::default() }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 without a credential or with one that is not good; the database's.
    pub(crate) async fn of(&self, headers: &HeaderMap) -> Result<Actor> {
        let Some(key) = headers.get("x-api-key") else {
            return Err(Error::new(Code::Auth, "a credential is required: send the header X-API-Key"));
        };
        let key = key.to_str().map(|key| KeyHash::of(&SecretString::from(key))).map_err(|_| unknown())?;
        let actor = match self.remembered(&key) {
            Some(actor) => actor,
            None => self.look_up(key).await?,
        };
        let span = Span::current();
        span.record("tenant_id", display(actor.tenant)).record("user_id", display(actor.user));
        Ok(actor)
    }

    /// A key that is due for another look is believed by everybody but the one who looks, so that a busy key is looked
    /// up once and not by all its requests.
    fn remembered(&self, key: &KeyHash) -> Option<Actor> {
        let mut known = self.known();
        let (actor, since) = known.get_mut(key)?;
        if since.elapsed() < BELIEVED {
            return Some(actor.clone());
        }
        *since = Instant::now();
        None
    }

    async fn look_up(&self, key: KeyHash) -> Result<Actor> {
        let found = identity::by_api_key(&self.app, &key).await;
        let mut known = self.known();
        match found {
            Ok(Some(actor)) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, (actor.clone(), Instant::now()));
                Ok(actor)
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

    fn known(&self) -> MutexGuard<'_, HashMap<KeyHash, (Actor, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown() -> Error {
    Error::new(Code::Auth, "the API key is unknown, expired or revoked")
}
