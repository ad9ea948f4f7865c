//! Session tokens: derived from the session's id with the deployment's key, so that the answer to a repeated request
//! can carry the same token while the database only ever holds its hash.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::ids::SessionId;

/// The keys that tokens are derived with: the first one makes tokens.
#[derive(Clone)]
pub struct TokenKeys(SecretString);

impl TokenKeys {
    /// Over the deployment's first key.
    #[must_use]
    pub fn new(first_key: SecretString) -> Self {
        Self(first_key)
    }

    pub(super) fn token(&self, id: SessionId) -> SecretString {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret().as_bytes())
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

    pub(super) fn hash_of(&self, id: SessionId) -> [u8; 32] {
        hash(&self.token(id))
    }
}

pub(super) fn hash(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}
