//! Session tokens: derived from the session's id with the deployment's key, so that the answer to a repeated request
//! can carry the same token while the database only ever holds its hash.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    ids::SessionId,
};

/// The keys that tokens are derived with: the first one makes new tokens, the others know those of before.
#[derive(Clone)]
pub struct TokenKeys(Arc<[SecretString]>);

impl TokenKeys {
    /// Over the deployment's keys, newest first.
    ///
    /// # Errors
    /// There is none.
    pub fn new(keys: &[SecretString]) -> Result<Self> {
        if keys.is_empty() {
            return Err(Error::internal("FERNET_KEY: holds no key"));
        }
        Ok(Self(keys.into()))
    }

    /// The token of a new session.
    pub(super) fn token(&self, id: SessionId) -> SecretString {
        self.0.first().map(|key| derived(key, id)).unwrap_or_default()
    }

    /// The token that a session was given, by whichever key it was derived with; none when that key is gone.
    pub(super) fn given(&self, id: SessionId, token_hash: &[u8]) -> Option<SecretString> {
        self.0.iter().map(|key| derived(key, id)).find(|token| hash(token) == *token_hash)
    }

    pub(super) fn hash_of(&self, id: SessionId) -> [u8; 32] {
        hash(&self.token(id))
    }
}

fn derived(key: &SecretString, id: SessionId) -> SecretString {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(b"alfred session token v1:");
    mac.update(id.0.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let mut token = String::with_capacity(3 + 64);
    token.push_str("as_");
    for byte in bytes {
        token.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        token.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    SecretString::from(token)
}

pub(super) fn hash(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}
