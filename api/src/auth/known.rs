//! Credentials that were found good a moment ago, so that a turn's many requests cost one look-up. One that is revoked
//! therefore works for up to ten seconds more on other processes than the one that revoked it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use shared::{error::Result, identity::Principal};

/// How long a credential that was found is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Credentials remembered at most; beyond that all are forgotten, which costs a look-up each.
const REMEMBERED: usize = 10_000;

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
}

/// Hashes of credentials and what they proved.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<[u8; 32], Entry>>);

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
        let key =
            Sha256::new().chain_update(kind).chain_update(b"\n").chain_update(credential).finalize().into();
        if let Some(found) = self.remembered(&key) {
            return Ok(Some(found));
        }
        let looked = Instant::now();
        let found = look_up.await;
        let mut entries = self.entries();
        let Ok(Some(found)) = &found else {
            entries.remove(&key);
            return found;
        };
        if entries.len() >= REMEMBERED {
            entries.clear();
        }
        let ends = found.good_for.map(|life| looked + life);
        entries.insert(key, Entry { found: found.clone(), looked, ends });
        Ok(Some(found.clone()))
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Found> {
        let mut entries = self.entries();
        let entry = entries.get_mut(key)?;
        if entry.ends.is_some_and(|end| end <= Instant::now()) {
            entries.remove(key);
            return None;
        }
        if entry.looked.elapsed() < BELIEVED {
            return Some(entry.found.clone());
        }
        entry.looked = Instant::now();
        None
    }

    /// Forgets the credentials of whom `is_gone` says so.
    pub(super) fn forget(&self, is_gone: impl Fn(&Principal) -> bool) {
        self.entries().retain(|_, entry| !is_gone(&entry.found.principal));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
