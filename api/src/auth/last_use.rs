//! The last use of keys and sign-ins, merged in memory and written in batches.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    error::Result,
    identity::{Credential, SignIns, api_keys},
};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long uses are gathered.
const GATHERS: Duration = Duration::from_secs(5);

/// Remembers what was used; writes it within seconds.
#[derive(Clone)]
pub(super) struct LastUse(Arc<Inner>);

struct Inner {
    engine: PgPool,
    sign_ins: SignIns,
    used: Mutex<HashSet<Credential>>,
    wake: Notify,
}

impl LastUse {
    /// Starts the writing task, which ends when `stop` is cancelled; [`Self::write`] writes what is left.
    pub(super) fn start(engine: PgPool, sign_ins: SignIns, stop: CancellationToken) -> Self {
        let inner = Inner { engine, sign_ins, used: Mutex::default(), wake: Notify::default() };
        let this = Self(Arc::new(inner));
        let task = this.clone();
        tokio::spawn(async move {
            loop {
                // Nothing used, nothing asked: an idle process makes no query for this.
                tokio::select! {
                    () = task.0.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(GATHERS) => {}
                    () = stop.cancelled() => return,
                }
                task.write().await;
            }
        });
        this
    }

    /// Notes that the credential was used now.
    pub(super) fn note(&self, credential: Credential) {
        if self.used().insert(credential) {
            self.0.wake.notify_one();
        }
    }

    /// Writes what was noted and not yet written.
    pub(super) async fn write(&self) {
        let used = std::mem::take(&mut *self.used());
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.write_all(&used).await {
            tracing::warn!(error = %error, credentials = used.len(), "last uses were not written; trying again");
            self.used().extend(used);
            self.0.wake.notify_one();
        }
    }

    async fn write_all(&self, used: &HashSet<Credential>) -> Result<()> {
        let (mut keys, mut sign_ins) = (Vec::new(), Vec::new());
        for credential in used {
            match credential {
                Credential::ApiKey(key) => keys.push(*key),
                Credential::Bearer(sign_in) | Credential::Cookie(sign_in) => sign_ins.push(*sign_in),
                Credential::OutsideBearer => {}
            }
        }
        // In order, so that two processes that write the same rows never wait for each other.
        keys.sort_unstable();
        sign_ins.sort_unstable();
        api_keys::touch(&self.0.engine, &keys).await?;
        self.0.sign_ins.touch(&sign_ins).await
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashSet<Credential>> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
