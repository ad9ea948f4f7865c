//! Secrets at rest: encrypted with the keys of `FERNET_KEY`, the first of which encrypts and all of which decrypt.
//!
//! A sealed value is `key id.token`. Fernet has no associated data, so whose secret it is stands inside the encrypted
//! envelope and is compared when it is opened: a value that was copied to another tenant's row, or to another use, does
//! not open there. The key id beside the token tells which values a key rotation has yet to seal again.

use fernet::{Fernet, MultiFernet};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    ids::TenantId,
};

/// Whose secret it is, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// What for, such as `tenant header secret`.
    pub purpose: &'a str,
    /// Which of them: an id, or user and provider; empty when there is one only.
    pub subject: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    tenant: TenantId,
    purpose: String,
    subject: String,
    secret: String,
}

/// The keys.
#[derive(Clone)]
pub struct Vault {
    keys: MultiFernet,
    first_id: String,
}

impl Vault {
    /// Over the keys, newest first.
    ///
    /// # Errors
    /// When there is none, or one is not 32 bytes of base64url; the configuration has checked both.
    pub fn new(keys: &[SecretString]) -> Result<Self> {
        let ciphers: Option<Vec<Fernet>> = keys.iter().map(|key| Fernet::new(key.expose_secret())).collect();
        match (ciphers, keys.first()) {
            (Some(ciphers), Some(first)) => {
                Ok(Self { keys: MultiFernet::new(ciphers), first_id: key_id(first) })
            }
            _ => Err(Error::internal("FERNET_KEY: holds no key, or one that cannot be read")),
        }
    }

    /// Encrypts a secret for its place.
    ///
    /// # Errors
    /// None that an operator could mend.
    pub fn seal(&self, binding: Binding<'_>, secret: &SecretString) -> Result<String> {
        let envelope = Envelope {
            tenant: binding.tenant,
            purpose: binding.purpose.to_owned(),
            subject: binding.subject.to_owned(),
            secret: secret.expose_secret().to_owned(),
        };
        Ok(format!("{}.{}", self.first_id, self.keys.encrypt(&serde_json::to_vec(&envelope)?)))
    }

    /// Decrypts a secret in its place.
    ///
    /// # Errors
    /// When no key fits, or when the secret belongs elsewhere.
    pub fn open(&self, binding: Binding<'_>, sealed: &str) -> Result<SecretString> {
        let token = sealed.split_once('.').map_or(sealed, |(_, token)| token);
        let envelope = self
            .keys
            .decrypt(token)
            .map_err(|_| Error::internal(format!("no key of FERNET_KEY opens a {}", binding.purpose)))?;
        let envelope: Envelope = serde_json::from_slice(&envelope)?;
        let is_here = envelope.tenant == binding.tenant
            && envelope.purpose == binding.purpose
            && envelope.subject == binding.subject;
        if !is_here {
            return Err(Error::internal(format!("a {} was found in a place not its own", binding.purpose)));
        }
        Ok(envelope.secret.into())
    }

    /// Names the newest key; sealed values begin with the name of theirs and a dot.
    #[must_use]
    pub fn first_id(&self) -> &str {
        &self.first_id
    }
}

/// Names a key without telling anything of it.
fn key_id(key: &SecretString) -> String {
    let digest = Sha256::new().chain_update("alfred key id v1:").chain_update(key.expose_secret()).finalize();
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OLD: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const NEW: &str = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI=";

    fn vault(keys: &[&str]) -> Vault {
        Vault::new(&keys.iter().map(|key| SecretString::from(*key)).collect::<Vec<_>>()).unwrap()
    }

    fn place(tenant: u128, purpose: &'static str) -> Binding<'static> {
        Binding { tenant: TenantId(Uuid::from_u128(tenant)), purpose, subject: "s" }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let secret = SecretString::from("hunter2");
        let sealed = vault(&[OLD]).seal(place(1, "p"), &secret).unwrap();
        assert!(!sealed.contains("hunter2"));
        let rotated = vault(&[NEW, OLD]);
        assert_eq!(rotated.open(place(1, "p"), &sealed).unwrap().expose_secret(), "hunter2");
        assert!(!sealed.starts_with(rotated.first_id()));
        let again = rotated.seal(place(1, "p"), &secret).unwrap();
        assert!(again.starts_with(rotated.first_id()));
        assert_eq!(vault(&[NEW]).open(place(1, "p"), &again).unwrap().expose_secret(), "hunter2");
        assert!(vault(&[NEW]).open(place(1, "p"), &sealed).is_err());
    }

    #[test]
    fn a_value_opens_only_in_its_place() {
        let vault = vault(&[OLD]);
        let sealed = vault.seal(place(1, "p"), &"x".into()).unwrap();
        assert!(vault.open(place(2, "p"), &sealed).is_err());
        assert!(vault.open(place(1, "q"), &sealed).is_err());
        assert!(vault.open(Binding { subject: "t", ..place(1, "p") }, &sealed).is_err());
        let mut forged = sealed.clone();
        forged.truncate(sealed.len() - 4);
        assert!(vault.open(place(1, "p"), &forged).is_err());
        assert!(vault.open(place(1, "p"), "").is_err());
    }
}
