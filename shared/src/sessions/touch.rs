//! `last_accessed`, merged in memory and written in batches: a row that every request updates would cap a session at
//! one commit per flush.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking::Parked;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::ids::{SessionId, TenantId};

mod parking {
    use std::{collections::HashSet, sync::Mutex};

    use crate::ids::{SessionId, TenantId};

    /// Sessions seen since the last write.
    #[derive(Default)]
    pub(super) struct Parked(Mutex<HashSet<(TenantId, SessionId)>>);

    impl Parked {
        pub(super) fn put(&self, key: (TenantId, SessionId)) -> bool {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key)
        }

        pub(super) fn take(&self) -> HashSet<(TenantId, SessionId)> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        }
    }
}

/// Remembers which sessions were used; writes them within ten seconds.
#[derive(Clone)]
pub struct LastAccessed {
    engine: PgPool,
    idle_days: i64,
    seen: Arc<Parked>,
    wake: Arc<tokio::sync::Notify>,
}

impl LastAccessed {
    /// Starts the writing task, which ends when `stop` is cancelled; [`Self::write`] writes what is left.
    #[must_use]
    pub fn start(engine: PgPool, idle_days: i64, stop: CancellationToken) -> Self {
        let this = Self { engine, idle_days, seen: Arc::default(), wake: Arc::default() };
        let task = this.clone();
        tokio::spawn(async move {
            loop {
                // Nothing seen, nothing asked: an idle process makes no query for this.
                tokio::select! {
                    () = task.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    () = stop.cancelled() => return,
                }
                task.write().await;
            }
        });
        this
    }

    /// Notes that the session was used now.
    pub fn touch(&self, tenant: TenantId, session: SessionId) {
        if self.seen.put((tenant, session)) {
            self.wake.notify_one();
        }
    }

    /// Writes what was noted and not yet written.
    pub async fn write(&self) {
        let seen: HashSet<_> = self.seen.take();
        if seen.is_empty() {
            return;
        }
        if let Err(error) = store::touch(&self.engine, &seen, self.idle_days).await {
            tracing::warn!(error = %error, sessions = seen.len(), "last access times were not written; trying again");
            for key in seen {
                self.seen.put(key);
            }
            self.wake.notify_one();
        }
    }
}
