//! What the cache was asked, counted in memory and written in batches: a row that every hit updates would be a hot one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{store, tier::Slot};
use crate::ids::TenantId;

/// What came of asking the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Miss,
    /// The caller wanted it fresh.
    Refresh,
    /// Not asked, because a write was under way or the cache is away.
    PassedBy,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Refresh => "refresh",
            Self::PassedBy => "passed_by",
        }
    }
}

/// Of one tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) hits: i64,
    pub(super) misses: i64,
    pub(super) refreshes: i64,
    pub(super) passed_by: i64,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.hits += more.hits;
        self.misses += more.misses;
        self.refreshes += more.refreshes;
        self.passed_by += more.passed_by;
    }
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) rows: HashMap<Slot, i64>,
    /// By tenant, server and tool.
    pub(super) tools: HashMap<(TenantId, String, String), Tally>,
}

/// Counts for one process.
#[derive(Clone)]
pub(super) struct Counts {
    engine: PgPool,
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
}

const EVERY: Duration = Duration::from_secs(5);

impl Counts {
    pub(super) fn start(engine: PgPool, stop: CancellationToken) -> Self {
        let this = Self { engine, pending: Arc::default(), wake: Arc::default() };
        let task = this.clone();
        tokio::spawn(async move {
            loop {
                // Nothing counted, nothing asked: an idle process makes no query for this.
                tokio::select! {
                    () = task.wake.notified() => {}
                    () = stop.cancelled() => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    () = stop.cancelled() => {}
                }
                task.write().await;
            }
        });
        this
    }

    pub(super) fn count(
        &self,
        tenant: TenantId,
        server: &str,
        tool: &str,
        outcome: Outcome,
        row: Option<&Slot>,
    ) {
        metrics::counter!("cache_requests_total", "tool" => tool.to_owned(), "outcome" => outcome.as_str())
            .increment(1);
        let one = |is: bool| i64::from(is);
        let tally = Tally {
            hits: one(outcome == Outcome::Hit),
            misses: one(outcome == Outcome::Miss),
            refreshes: one(outcome == Outcome::Refresh),
            passed_by: one(outcome == Outcome::PassedBy),
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = row {
            *pending.rows.entry(slot.clone()).or_default() += 1;
        }
        pending.tools.entry((tenant, server.to_owned(), tool.to_owned())).or_default().add(tally);
        drop(pending);
        self.wake.notify_one();
    }

    /// Writes what was counted and not yet written.
    pub(super) async fn write(&self) {
        let taken = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.tools.is_empty() {
            return;
        }
        if let Err(error) = store::count(&self.engine, &taken).await {
            tracing::warn!(error = %error, "the cache's counts were not written; trying again");
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            for (slot, hits) in taken.rows {
                *pending.rows.entry(slot).or_default() += hits;
            }
            for (tool, tally) in taken.tools {
                pending.tools.entry(tool).or_default().add(tally);
            }
            drop(pending);
            self.wake.notify_one();
        }
    }
}
