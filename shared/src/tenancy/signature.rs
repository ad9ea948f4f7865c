//! Signed tenant headers [I3]: hex HMAC-SHA256 of `{tenant_id}:{timestamp_ms}`, good for five minutes either way.
//!
//! A signature says which tenant a request is for, as told by whoever holds the secret. It says nothing about the
//! caller: membership decides what they may.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::{
    error::{Code, Error, Result},
    ids::TenantId,
};

/// How far the sender's clock and the way here may be off.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The three headers, read but not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The tenant that the request is said to be for.
    pub tenant: TenantId,
    /// As it was signed: the tenant's id may be written in several ways.
    text: String,
    signature: [u8; 32],
}

impl Signed {
    /// Reads the headers' values and checks the time.
    ///
    /// # Errors
    /// 401 when they cannot be read, or are too old or too new.
    pub fn read(tenant: &str, timestamp_ms: &str, signature: &str, now: SystemTime) -> Result<Self> {
        let id = tenant.parse().map_err(|_| refused("X-TB-Tenant-ID is not a tenant's id"))?;
        let is_number =
            (1..=16).contains(&timestamp_ms.len()) && timestamp_ms.bytes().all(|byte| byte.is_ascii_digit());
        let at = timestamp_ms.parse::<u64>().ok().filter(|_| is_number);
        let at = at.ok_or_else(|| refused("X-TB-Timestamp is not Unix time in milliseconds"))?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.abs_diff(Duration::from_millis(at)) > TOLERANCE {
            return Err(refused(
                "X-TB-Timestamp is more than five minutes off; check the clock and sign again",
            ));
        }
        let signature =
            bytes_of_hex(signature).ok_or_else(|| refused("X-TB-Signature is not 64 hexadecimal digits"))?;
        Ok(Self { tenant: id, text: format!("{tenant}:{timestamp_ms}"), signature })
    }

    /// Whether one of the secrets made this signature. Takes the same time wherever the first difference is.
    #[must_use]
    pub fn is_by<'a>(&self, secrets: impl IntoIterator<Item = &'a SecretString>) -> bool {
        secrets.into_iter().any(|secret| mac(secret, &self.text).verify_slice(&self.signature).is_ok())
    }

    /// # Errors
    /// 401 when none of the secrets made this signature.
    pub fn verify<'a>(&self, secrets: impl IntoIterator<Item = &'a SecretString>) -> Result<()> {
        if self.is_by(secrets) {
            Ok(())
        } else {
            Err(refused("X-TB-Signature does not fit X-TB-Tenant-ID and X-TB-Timestamp"))
        }
    }
}

/// The signature that a client sends.
#[must_use]
pub fn sign(secret: &SecretString, tenant: TenantId, timestamp_ms: u64) -> String {
    let signature = mac(secret, &format!("{tenant}:{timestamp_ms}")).finalize().into_bytes();
    signature.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac(secret: &SecretString, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |letter: &u8| char::from(*letter).to_digit(16);
        let [high, low] = pair else { return None };
        *byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(bytes)
}

fn refused(message: &'static str) -> Error {
    Error::new(Code::Auth, message)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(7));
    const AT: u64 = 1_763_730_000_000;

    fn now(milliseconds: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(AT.checked_add_signed(milliseconds).unwrap())
    }

    #[test]
    fn the_signature_is_the_contracts() {
        // Made with: printf '%s' "$TENANT:$AT" | openssl dgst -sha256 -hmac hunter2-hunter2
        assert_eq!(
            sign(&"hunter2-hunter2".into(), TENANT, AT),
            "985a2a3d47f71adc6638a7a698f90cc1a4ee0ba320675d8098828ef00f1b6012"
        );
    }

    #[test]
    fn time_and_secret_decide() {
        let (old, new, other) = ("old-secret".into(), "new-secret".into(), "another-tenant's".into());
        let signature = sign(&old, TENANT, AT);
        let (tenant, at) = (TENANT.to_string(), AT.to_string());
        for off in [0, 299_999, 300_000, -300_000] {
            let signed = Signed::read(&tenant, &at, &signature, now(off)).unwrap();
            assert!(signed.is_by([&new, &old]));
            assert!(!signed.is_by([&new, &other]));
            assert!(!signed.is_by([]));
        }
        for off in [300_001, -300_001, 86_400_000] {
            assert!(Signed::read(&tenant, &at, &signature, now(off)).is_err());
        }
        let upper = Signed::read(&tenant, &at, &signature.to_uppercase(), now(0)).unwrap();
        assert!(upper.is_by([&old]));
        // Another tenant, another time, or either moved over the colon: not what was signed.
        let elsewhere = TenantId(Uuid::from_u128(8)).to_string();
        assert!(!Signed::read(&elsewhere, &at, &signature, now(0)).unwrap().is_by([&old]));
        let later = (AT + 1).to_string();
        assert!(!Signed::read(&tenant, &later, &signature, now(0)).unwrap().is_by([&old]));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let (tenant, at, signature) = (TENANT.to_string(), AT.to_string(), sign(&"s".into(), TENANT, AT));
        for (tenant, at, signature) in [
            ("", at.as_str(), signature.as_str()),
            ("somebody", &at, &signature),
            (&tenant, "", &signature),
            (&tenant, "+1763730000000", &signature),
            (&tenant, "99999999999999999999", &signature),
            (&tenant, &at, ""),
            (&tenant, &at, &signature[1..]),
            (&tenant, &at, &signature.replace(|_: char| true, "g")),
            (&tenant, &at, &"é".repeat(32)),
        ] {
            assert_eq!(Signed::read(tenant, at, signature, now(0)).unwrap_err().code, Code::Auth);
        }
    }

    #[test]
    fn a_check_takes_far_less_than_a_tenth_of_a_millisecond() {
        let secrets = ["one".into(), "two".into()];
        let (tenant, at, signature) = (TENANT.to_string(), AT.to_string(), sign(&secrets[1], TENANT, AT));
        let begun = std::time::Instant::now();
        for _ in 0..1000 {
            Signed::read(&tenant, &at, &signature, now(0)).unwrap().verify(&secrets).unwrap();
        }
        let each = begun.elapsed() / 1000;
        // An unoptimised build on a busy machine; an optimised one takes about a microsecond.
        assert!(each < Duration::from_millis(1), "{each:?}");
    }
}
