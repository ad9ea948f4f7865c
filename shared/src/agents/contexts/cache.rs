//! Contexts that a process remembers, so that pages that show one cost no look-up. Every process hears of every change by the
//! bell, and drops what is older; a bell that nobody heard costs seconds.
//!
//! Only people's reads of their own context come from here. What agents may see is decided by the database, each time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Context, get};
use crate::{
    bell::{Bell, Heard, Ring},
    db::TenantDb,
    error::Result,
    identity::Actor,
    ids::{TenantId, UserId},
};

/// How long a context is believed without having heard that it changed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Contexts remembered at most; beyond that all are forgotten, which costs a look-up each.
const REMEMBERED: usize = 10_000;

type Key = (TenantId, UserId);

/// The contexts of one process; cheap to clone.
#[derive(Clone)]
pub struct ContextCache {
    tenants: TenantDb,
    bell: Bell,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    contexts: HashMap<Key, (Arc<Context>, Instant)>,
    /// Moves with everything that is heard: what was read before that is not kept.
    moves: u64,
}

impl ContextCache {
    /// Over the bell, which must listen to [`crate::bell::Channel::Contexts`]. The task ends when `stop` is cancelled.
    #[must_use]
    pub fn start(tenants: TenantDb, bell: Bell, stop: CancellationToken) -> Self {
        let cache = Self { tenants, bell, known: Arc::default() };
        let (mut hearing, hearer) = (cache.bell.subscribe(), cache.clone());
        let hear = async move {
            loop {
                match hearing.next().await {
                    Heard::Contexts(changed) => {
                        changed
                            .iter()
                            .for_each(|(tenant, user, version)| hearer.outdate((*tenant, *user), *version));
                    }
                    Heard::Reconnected => hearer.forget_all(),
                    _ => {}
                }
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(hear));
        cache
    }

    /// The actor's own context.
    ///
    /// # Errors
    /// The database's.
    pub async fn get(&self, actor: &Actor) -> Result<Arc<Context>> {
        let key = (actor.tenant, actor.user);
        let moves = {
            let known = self.known();
            if let Some((context, since)) = known.contexts.get(&key)
                && since.elapsed() < BELIEVED
            {
                count("hit");
                return Ok(Arc::clone(context));
            }
            known.moves
        };
        count("miss");
        let begun = Instant::now();
        let mut tx = self.tenants.begin(actor).await?;
        let context = Arc::new(get(&mut tx).await?);
        tx.commit().await?;
        let mut known = self.known();
        if known.moves == moves {
            if known.contexts.len() >= REMEMBERED {
                known.contexts.clear();
            }
            known.contexts.insert(key, (Arc::clone(&context), begun));
        }
        Ok(context)
    }

    /// After the commit of a change: this process forgets at once, the others hear of it, and workers tell agents.
    pub fn changed(&self, tenant: TenantId, context: &Context) {
        let (user, version) = (context.user, context.version);
        self.outdate((tenant, user), version);
        self.bell.ring_all([Ring::Context { tenant, user, version }, Ring::Deliveries]);
    }

    fn outdate(&self, key: Key, version: i64) {
        let mut known = self.known();
        known.moves += 1;
        if known.contexts.get(&key).is_some_and(|(context, _)| context.version < version) {
            known.contexts.remove(&key);
        }
    }

    fn forget_all(&self) {
        let mut known = self.known();
        known.moves += 1;
        known.contexts.clear();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("context_cache_requests_total", "outcome" => outcome).increment(1);
}
