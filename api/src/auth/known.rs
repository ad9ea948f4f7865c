//! Credentials that were found good a moment ago, so that a turn's many requests cost one look-up. One that is revoked
//! therefore works for up to ten seconds more on other processes than the one that revoked it.
//!
//! Invariant: nothing is believed for longer than that, counted from before the look-up that found it began, whatever
//! becomes of the next look-up and of whoever asked for it; nor after its own end.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use shared::{error::Result, identity::Principal};

/// How long a credential that was found is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// How old a finding is when somebody looks again, while all others still believe it.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(8);
/// Credentials remembered at most; beyond that all are forgotten, which costs a look-up each.
const REMEMBERED: usize = 10_000;

type Key = [u8; 32];

/// What was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) principal: Principal,
    /// The audience of a token, which the route has to be among.
    pub(super) audience: Option<String>,
    /// When the credential ends by itself, if that may be soon.
    pub(super) good_for: Option<Duration>,
}

struct Entry {
    found: Found,
    looked: Instant,
    ends: Option<Instant>,
    /// Somebody is looking again.
    is_looked_at: bool,
}

impl Entry {
    fn is_good_at(&self, now: Instant) -> bool {
        now < self.looked + BELIEVED && self.ends.is_none_or(|end| now < end)
    }
}

/// Hashes of credentials and what they proved.
#[derive(Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// How often something was forgotten: what was being looked up then may be what should be forgotten.
    forgotten: u64,
}

/// A look-up under way. Whoever goes away in the midst of it leaves the next one to look.
struct Looking<'a> {
    known: &'a Known,
    key: Key,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.known.inner().entries.get_mut(&self.key) {
            entry.is_looked_at = false;
        }
    }
}

impl Known {
    /// What the credential proves: as remembered, else as `look_up` says. An entry that is due for another look is
    /// believed by everybody but the one who looks, so that a busy credential is looked up once and not by all its
    /// requests.
    pub(super) async fn find(
        &self,
        kind: &str,
        credential: &[u8],
        look_up: impl Future<Output = Result<Option<Found>>>,
    ) -> Result<Option<Found>> {
        let key: Key =
            Sha256::new().chain_update(kind).chain_update(b"\n").chain_update(credential).finalize().into();
        let looked = Instant::now();
        let (remembered, forgotten) = self.remembered(&key, looked);
        if remembered.is_some() {
            return Ok(remembered);
        }
        let _looking = Looking { known: self, key };
        let found = look_up.await;
        let mut inner = self.inner();
        let Ok(Some(found)) = &found else {
            inner.entries.remove(&key);
            return found;
        };
        if inner.forgotten == forgotten {
            if inner.entries.len() >= REMEMBERED {
                inner.entries.clear();
            }
            let ends = found.good_for.map(|life| looked + life);
            inner.entries.insert(key, Entry { found: found.clone(), looked, ends, is_looked_at: false });
        }
        Ok(Some(found.clone()))
    }

    /// What is believed now, and how often something was forgotten so far.
    fn remembered(&self, key: &Key, now: Instant) -> (Option<Found>, u64) {
        let mut inner = self.inner();
        let forgotten = inner.forgotten;
        let Some(entry) = inner.entries.get_mut(key) else { return (None, forgotten) };
        if !entry.is_good_at(now) {
            inner.entries.remove(key);
            return (None, forgotten);
        }
        if now < entry.looked + LOOKED_AT_AGAIN || entry.is_looked_at {
            return (Some(entry.found.clone()), forgotten);
        }
        entry.is_looked_at = true;
        (None, forgotten)
    }

    /// Forgets the credentials of whom `is_gone` says so.
    pub(super) fn forget(&self, is_gone: impl Fn(&Principal) -> bool) {
        let mut inner = self.inner();
        inner.forgotten += 1;
        inner.entries.retain(|_, entry| !is_gone(&entry.found.principal));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shared::{
        identity::{Credential, CredentialTenant, Scopes},
        ids::{ApiKeyId, UserId},
    };

    use super::*;

    fn found(good_for: Option<Duration>) -> Found {
        let principal = Principal {
            user: UserId::generate(),
            email: None,
            email_verified: false,
            timezone: "UTC".to_owned(),
            scopes: Scopes::ALL,
            operator: false,
            tenant: CredentialTenant::Open,
            credential: Credential::ApiKey(ApiKeyId(uuid::Uuid::nil())),
            outside: None,
        };
        Found { principal, audience: None, good_for }
    }

    /// Time goes on.
    fn later(known: &Known, by: Duration) {
        for entry in known.inner().entries.values_mut() {
            entry.looked -= by;
            entry.ends = entry.ends.map(|end| end - by);
        }
    }

    /// Whether the key is good, when a look-up finds it revoked.
    async fn is_believed(known: &Known) -> bool {
        known.find("key", b"k", async { Ok(None) }).await.unwrap().is_some()
    }

    async fn look(known: &Known, good_for: Option<Duration>) {
        known.find("key", b"k", async { Ok(Some(found(good_for))) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_look_up_that_is_given_up_keeps_nobody_in() {
        let known = Known::default();
        look(&known, None).await;
        for _ in 0..4 {
            later(&known, Duration::from_secs(4));
            // A client that closes its connection while the database is asked.
            let given_up = known.find("key", b"k", std::future::pending());
            given_up.now_or_never();
        }
        assert!(!is_believed(&known).await, "sixteen seconds after the last look-up that ended");
    }

    #[tokio::test]
    async fn one_looks_again_while_the_others_believe_for_as_long_as_they_may() {
        let known = Known::default();
        look(&known, None).await;
        later(&known, Duration::from_secs(9));
        let mut slow = Box::pin(known.find("key", b"k", std::future::pending()));
        assert!((&mut slow).now_or_never().is_none());
        assert!(is_believed(&known).await);
        later(&known, Duration::from_secs(1));
        assert!(!is_believed(&known).await);
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_not_believed_past_its_end() {
        let known = Known::default();
        look(&known, Some(Duration::from_secs(3))).await;
        later(&known, Duration::from_secs(2));
        assert!(is_believed(&known).await);
        later(&known, Duration::from_secs(1));
        assert!(!is_believed(&known).await);
    }

    #[tokio::test]
    async fn what_is_forgotten_while_it_is_looked_up_stays_forgotten() {
        let known = Known::default();
        let looking = known.find("key", b"k", async {
            known.forget(|_| true);
            Ok(Some(found(None)))
        });
        assert!(looking.await.unwrap().is_some());
        assert!(!is_believed(&known).await);
    }
}
