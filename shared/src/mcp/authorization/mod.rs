//! Alfred as the authorization server of MCP clients: programs of others that a person lets into their workspace.
//!
//! A program is known by the address of a document that it publishes about itself, or registers and is given an id. A person
//! who lets it in gives it a code; the code is exchanged, once, for a sign-in of that person that is narrowed to the MCP server
//! and to the scopes that were granted. Tokens and their rotation are [`identity`](crate::identity)'s.
//!
//! Invariants: every client is a public one, so a code is worth nothing without the verifier of its challenge (PKCE, S256);
//! a code that is shown twice ends what it became; no code is stored, only its hash. Nothing here knows HTTP or pages.

mod client;
mod document;
mod store;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;

pub use self::client::{Client, Registration, RegistrationProblem};
use crate::{
    error::Result,
    identity::{Scopes, throttle},
    ids::{SignInId, TenantId, UserId},
    outbound::Outbound,
};

/// How long a client's document is believed.
const BELIEVED: Duration = Duration::from_secs(300);
/// Documents remembered at most; beyond that all are forgotten.
const REMEMBERED: usize = 1000;

/// Knows clients and their codes.
#[derive(Clone)]
pub struct AuthorizationServer(Arc<Inner>);

struct Inner {
    engine: PgPool,
    outbound: Outbound,
    documents: Mutex<HashMap<String, (Client, Instant)>>,
}

/// What a person has granted.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The client's id.
    pub client: String,
    /// Who let it in.
    pub user: UserId,
    /// Where the code goes.
    pub redirect_uri: String,
    /// The hash of the client's verifier (RFC 7636, S256).
    pub challenge: String,
    /// For what.
    pub scopes: Scopes,
    /// The resource that the tokens are good for.
    pub audience: String,
    /// The tenant in which the client acts; none is the one that its user acts in when they name none.
    pub tenant: Option<TenantId>,
}

/// What a code came to.
#[derive(Debug)]
pub enum Redeemed {
    /// It is good, and has just been used up.
    Good(Granted),
    /// It is unknown or too old.
    Refused,
    /// It was used before; this is what it became, if that is known yet.
    ShownAgain(Option<SignInId>),
}

impl AuthorizationServer {
    /// Over the engine's pool: a program has no tenant.
    #[must_use]
    pub fn new(engine: PgPool, outbound: Outbound) -> Self {
        Self(Arc::new(Inner { engine, outbound, documents: Mutex::default() }))
    }

    /// The client of this id, when there is one.
    ///
    /// # Errors
    /// 422 when its document cannot be fetched or says something else; the database's.
    pub async fn client(&self, id: &str) -> Result<Option<Client>> {
        let Some(url) = document::address(id) else {
            return store::client(&self.0.engine, id).await;
        };
        if let Some(known) = self.remembered(id) {
            return Ok(Some(known));
        }
        let client = document::fetch(&self.0.outbound, id, &url).await?;
        let mut documents = self.0.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if documents.len() >= REMEMBERED {
            documents.clear();
        }
        documents.insert(id.to_owned(), (client.clone(), Instant::now()));
        Ok(Some(client))
    }

    fn remembered(&self, id: &str) -> Option<Client> {
        let documents = self.0.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, since) = documents.get(id)?;
        (since.elapsed() < BELIEVED).then(|| client.clone())
    }

    /// Registers a program that asks from this address, and gives it an id.
    ///
    /// # Errors
    /// What is wrong with it, in the words of RFC 7591; 429 for too many from one address; the database's.
    pub async fn register(
        &self,
        address: IpAddr,
        asked: &Registration,
    ) -> Result<Result<Client, RegistrationProblem>> {
        let client = match asked.check() {
            Ok(client) => client,
            Err(problem) => return Ok(Err(problem)),
        };
        throttle::register_program(&self.0.engine, address).await?;
        store::forget_unused(&self.0.engine).await?;
        store::register(&self.0.engine, &client).await?;
        Ok(Ok(client))
    }

    /// A code for what was granted; good once, for a minute.
    ///
    /// # Errors
    /// The database's.
    pub async fn issue(&self, granted: &Granted) -> Result<SecretString> {
        let code = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        store::issue(&self.0.engine, &hash(&code), granted).await?;
        Ok(code.into())
    }

    /// Uses a code up.
    ///
    /// # Errors
    /// The database's.
    pub async fn redeem(&self, code: &SecretString) -> Result<Redeemed> {
        store::redeem(&self.0.engine, &hash(code.expose_secret())).await
    }

    /// Notes what a code became; false when it has been shown again meanwhile, and what it became must end.
    ///
    /// # Errors
    /// The database's.
    pub async fn became(&self, code: &SecretString, sign_in: SignInId) -> Result<bool> {
        store::became(&self.0.engine, &hash(code.expose_secret()), sign_in).await
    }
}

impl Granted {
    /// Whether this is the verifier that the challenge was made of.
    #[must_use]
    pub fn is_verified_by(&self, verifier: &str) -> bool {
        let length = (43..=128).contains(&verifier.len());
        let letters = verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        // Both sides are hashes that only one of us could choose, so the time it takes to compare tells nothing of use.
        length && letters && BASE64_URL_SAFE_NO_PAD.encode(hash(verifier)) == self.challenge
    }
}

/// Whether this could be a challenge: a SHA-256 in base64url.
#[must_use]
pub fn is_challenge(text: &str) -> bool {
    text.len() == 43 && BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_fits_its_challenge() {
        // The example of RFC 7636, appendix B.
        let granted = Granted {
            client: String::new(),
            user: UserId::generate(),
            redirect_uri: String::new(),
            challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
            scopes: Scopes::NONE,
            audience: String::new(),
            tenant: None,
        };
        assert!(is_challenge(&granted.challenge));
        assert!(granted.is_verified_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        for wrong in ["dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXx", "short", "", &granted.challenge] {
            assert!(!granted.is_verified_by(wrong), "{wrong}");
        }
        assert!(!is_challenge("short") && !is_challenge(&"=".repeat(43)));
    }
}
