//! Keys that are derived from the deployment's own (`FERNET_KEY`), one for each purpose, newest first: the first one makes
//! codes and all of them check, so a key can be replaced while its tokens are still out.

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use crate::error::{Error, Result};

/// The keys of one purpose.
#[derive(Clone)]
pub(super) struct DerivedKeys(Vec<[u8; 32]>);

impl DerivedKeys {
    pub(super) fn new(deployment: &[SecretString], purpose: &str) -> Self {
        let derive = |key: &SecretString| {
            mac(key.expose_secret().as_bytes(), &[b"alfred key v1:", purpose.as_bytes()])
        };
        Self(deployment.iter().map(|key| derive(key).finalize().into_bytes().into()).collect())
    }

    /// The newest key's code over these parts, whose lengths their callers fix.
    pub(super) fn code(&self, parts: &[&[u8]]) -> Result<[u8; 32]> {
        let key = self.0.first().ok_or_else(|| Error::internal("FERNET_KEY: holds no key"))?;
        Ok(mac(key, parts).finalize().into_bytes().into())
    }

    /// Whether some key has this code over these parts; in constant time.
    pub(super) fn is_code(&self, parts: &[&[u8]], code: &[u8]) -> bool {
        self.0.iter().any(|key| mac(key, parts).verify_slice(code).is_ok())
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_check_and_new_ones_make() {
        let (old, new) = (SecretString::from("old"), SecretString::from("new"));
        let before = DerivedKeys::new(std::slice::from_ref(&old), "tests");
        let after = DerivedKeys::new(&[new.clone(), old.clone()], "tests");
        let later = DerivedKeys::new(&[new], "tests");
        let code = before.code(&[b"x"]).unwrap();
        assert!(
            after.is_code(&[b"x"], &code) && !after.is_code(&[b"y"], &code) && !later.is_code(&[b"x"], &code)
        );
        assert!(!DerivedKeys::new(&[old], "others").is_code(&[b"x"], &code));
    }
}
