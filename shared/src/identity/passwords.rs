//! Passwords: argon2id, on threads of their own kind.
//!
//! A hash takes tens of milliseconds of a processor and many megabytes, so only a few run at once and the rest wait in
//! line, up to a bound; the async threads never hash. Invariant: a check costs one hash of the current cost whether or
//! not there is a stored one, so that time does not tell which addresses have an account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use crate::error::{Code, Error, Result};

/// The fewest characters of a password.
const LEAST_CHARACTERS: usize = 8;
/// The most bytes of a password: more tells nobody anything, and hashing it is work.
const MOST_BYTES: usize = 1024;
/// How many may wait in line; beyond that the answer is "later".
const MOST_WAITING: usize = 512;
/// How long one waits in line.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// How many hashes run at once.
    pub at_once: usize,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The password is right.
    Right,
    /// It is right, and its hash was made at another cost than today's: time for a new one.
    RightButOld,
    /// It is wrong, or there is none.
    Wrong,
}

/// Makes and checks hashes.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon: Argon2<'static>,
    /// A hash of the current cost that no password has.
    nobodys: String,
    permits: Arc<Semaphore>,
    places: Arc<Semaphore>,
    made: AtomicU64,
}

impl Passwords {
    /// # Errors
    /// A cost that argon2 does not know.
    pub fn new(cost: PasswordCost) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None)
            .map_err(|error| Error::internal(format!("PASSWORD_HASH_*: {error}")))?;
        let nobodys = format!(
            "$argon2id$v=19$m={},t={},p=1$bm9ib2R5cyBzYWx0IQ${}",
            cost.memory_kib,
            cost.passes,
            "A".repeat(43)
        );
        Ok(Self(Arc::new(Inner {
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            nobodys,
            permits: Arc::new(Semaphore::new(cost.at_once)),
            places: Arc::new(Semaphore::new(cost.at_once + MOST_WAITING)),
            made: AtomicU64::new(0),
        })))
    }

    /// How many hashes were computed.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.0.made.load(Ordering::Relaxed)
    }

    /// The hash to store of a password.
    pub(super) async fn hash(&self, password: SecretString) -> Result<String> {
        let inner = Arc::clone(&self.0);
        self.in_line(move || {
            let salt: [u8; 16] = rand::random();
            let hash = inner.argon.hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| Error::internal(error.to_string()))
        })
        .await?
    }

    /// Whether this is the password of the stored hash. With none stored it is wrong, after the same work.
    pub(super) async fn check(&self, password: SecretString, stored: Option<String>) -> Result<Verdict> {
        let inner = Arc::clone(&self.0);
        self.in_line(move || {
            let text = stored.as_deref().unwrap_or(&inner.nobodys);
            let Ok(hash) = PasswordHash::new(text) else { return Verdict::Wrong };
            let right = inner.argon.verify_password(password.expose_secret().as_bytes(), &hash).is_ok();
            let current = Params::try_from(&hash).is_ok_and(|params| {
                let now = inner.argon.params();
                (params.m_cost(), params.t_cost(), params.p_cost())
                    == (now.m_cost(), now.t_cost(), now.p_cost())
            });
            match (right && stored.is_some(), current) {
                (true, true) => Verdict::Right,
                (true, false) => Verdict::RightButOld,
                (false, _) => Verdict::Wrong,
            }
        })
        .await
    }

    async fn in_line<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else { return Err(busy()) };
        let waiting = Arc::clone(&self.0.permits).acquire_owned();
        let permit = match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(busy()),
        };
        self.0.made.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || {
            // Kept until the work is done, also when nobody waits for it any more.
            let _held = (place, permit);
            work()
        });
        done.await.map_err(Error::internal)
    }
}

fn busy() -> Error {
    Error::new(Code::Rate, "too many people are signing in at this moment; try again in a few seconds")
        .with_detail("retryAfter", 5)
}

/// Checks that a new password is one to accept.
///
/// # Errors
/// 422 with what is wrong with it.
pub(super) fn must_be_good(password: &SecretString, email: &str) -> Result<()> {
    let text = password.expose_secret();
    must_be_short(password)?;
    if text.chars().count() < LEAST_CHARACTERS {
        return Err(Error::unacceptable(format!("password: takes at least {LEAST_CHARACTERS} characters")));
    }
    let lower = text.to_lowercase();
    let local = email.split('@').next().unwrap_or_default().to_lowercase();
    if lower == email.to_lowercase() || lower == local || COMMON.contains(&lower.as_str()) {
        return Err(Error::unacceptable("password: is among the first that anybody would try"));
    }
    Ok(())
}

/// # Errors
/// 422 when the password is longer than any that we store.
pub(super) fn must_be_short(password: &SecretString) -> Result<()> {
    if password.expose_secret().len() > MOST_BYTES {
        return Err(Error::unacceptable(format!("password: takes at most {MOST_BYTES} bytes")));
    }
    Ok(())
}

/// The passwords that lists of leaked ones begin with, as far as they are long enough to be tried.
const COMMON: &[&str] = &[
    "00000000",
    "11111111",
    "12341234",
    "12345678",
    "123456789",
    "1234567890",
    "1q2w3e4r",
    "1qaz2wsx",
    "87654321",
    "88888888",
    "987654321",
    "abcd1234",
    "abcdefgh",
    "asdfasdf",
    "asdfghjkl",
    "baseball",
    "changeme",
    "computer",
    "football",
    "iloveyou",
    "letmein1",
    "password",
    "password1",
    "password123",
    "passw0rd",
    "princess",
    "qwerty12",
    "qwerty123",
    "qwertyui",
    "qwertyuiop",
    "sunshine",
    "superman",
    "trustno1",
    "welcome1",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> PasswordCost {
        PasswordCost { memory_kib: 8, passes: 1, at_once: 2 }
    }

    #[tokio::test]
    async fn a_check_costs_one_hash_whether_or_not_there_is_one() {
        let passwords = Passwords::new(cheap()).unwrap();
        let right = || SecretString::from("correct horse");
        let stored = passwords.hash(right()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        for (password, stored, verdict) in [
            (right(), Some(stored.clone()), Verdict::Right),
            ("wrong".into(), Some(stored.clone()), Verdict::Wrong),
            (right(), None, Verdict::Wrong),
        ] {
            let before = passwords.made();
            assert_eq!(passwords.check(password, stored).await.unwrap(), verdict);
            assert_eq!(passwords.made() - before, 1);
        }
        let dearer = Passwords::new(PasswordCost { passes: 2, ..cheap() }).unwrap();
        assert_eq!(dearer.check(right(), Some(stored)).await.unwrap(), Verdict::RightButOld);
    }

    #[tokio::test]
    async fn fifty_at_once_are_all_answered() {
        let passwords = Passwords::new(cheap()).unwrap();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        let checks = (0..50).map(|_| passwords.check("correct horse".into(), Some(stored.clone())));
        let verdicts = futures::future::join_all(checks).await;
        assert!(verdicts.into_iter().all(|verdict| verdict.unwrap() == Verdict::Right));
    }

    #[test]
    fn bad_passwords_are_refused() {
        for bad in ["short", "Password1", "ann@example.com", &"x".repeat(1025)] {
            must_be_good(&bad.into(), "Ann@Example.com").unwrap_err();
        }
        must_be_good(&"correct horse".into(), "ann@example.com").unwrap();
    }
}
