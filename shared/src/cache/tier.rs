//! The answers that a process holds in its memory: all there is with `CACHE_BACKEND=memory`, otherwise in front of
//! Postgres. Bounded in bytes; what was used least lately goes first.
//!
//! Each part of a place has an epoch, which moves with every write that this process makes or hears of. An answer is kept
//! only if the epoch is still the one of when its read began, and given only while it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::place::Place;
use crate::bell::CachePlace;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) content: Arc<str>,
    pub(super) content_hash: Arc<str>,
    pub(super) good_until: Instant,
}

impl Answer {
    pub(super) fn ttl(&self) -> Duration {
        self.good_until.saturating_duration_since(Instant::now())
    }
}

/// Where and under which key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) key: Arc<str>,
}

/// When something was current; only equality means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Epoch(u64, u64);

pub(super) struct Tier {
    state: Mutex<State>,
    most_bytes: usize,
    /// How long an answer is given without asking Postgres again, so that a bell that nobody hears costs no more.
    trusted: Duration,
}

#[derive(Default)]
struct State {
    kept: HashMap<Slot, Kept>,
    /// Slots by when they were last used.
    order: BTreeMap<u64, Slot>,
    tick: u64,
    bytes: usize,
    epochs: HashMap<CachePlace, u64>,
    /// Moves when all epochs are forgotten.
    base: u64,
}

struct Kept {
    answer: Answer,
    server: CachePlace,
    epoch: Epoch,
    since: Instant,
    tick: u64,
}

/// Places whose epochs are told apart; one more and everything is forgotten.
const MOST_EPOCHS: usize = 10_000;
/// What an entry weighs beside its content.
const OVERHEAD: usize = 400;

impl State {
    fn epoch(&self, server: CachePlace) -> Epoch {
        Epoch(self.base, self.epochs.get(&server).copied().unwrap_or(0))
    }

    fn remove(&mut self, slot: &Slot) {
        if let Some(gone) = self.kept.remove(slot) {
            self.order.remove(&gone.tick);
            self.bytes -= weight(slot, &gone.answer);
        }
    }

    fn clear(&mut self) {
        *self = Self { base: self.base + 1, tick: self.tick, ..Self::default() };
    }
}

fn weight(slot: &Slot, answer: &Answer) -> usize {
    slot.key.len() + answer.content.len() + answer.content_hash.len() + OVERHEAD
}

impl Tier {
    pub(super) fn new(most_bytes: usize, trusted: Duration) -> Self {
        Self { state: Mutex::default(), most_bytes, trusted }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self, server: CachePlace) -> Epoch {
        self.state().epoch(server)
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<Answer> {
        let mut state = self.state();
        let kept = state.kept.get(slot)?;
        let now = Instant::now();
        if kept.answer.good_until <= now
            || kept.epoch != state.epoch(kept.server)
            || now - kept.since > self.trusted
        {
            state.remove(slot);
            return None;
        }
        state.tick += 1;
        let tick = state.tick;
        let kept = state.kept.get_mut(slot)?;
        let (answer, before) = (kept.answer.clone(), std::mem::replace(&mut kept.tick, tick));
        state.order.remove(&before);
        state.order.insert(tick, slot.clone());
        Some(answer)
    }

    /// Keeps an answer, unless its part of the place has moved on since `epoch`.
    pub(super) fn put(&self, slot: Slot, server: CachePlace, epoch: Epoch, answer: Answer) {
        let weight = weight(&slot, &answer);
        let mut state = self.state();
        if weight > self.most_bytes / 8 || state.epoch(server) != epoch {
            return;
        }
        state.remove(&slot);
        while state.bytes + weight > self.most_bytes {
            let Some(oldest) = state.order.values().next().cloned() else { break };
            state.remove(&oldest);
        }
        state.tick += 1;
        let tick = state.tick;
        state.bytes += weight;
        state.order.insert(tick, slot.clone());
        state.kept.insert(slot, Kept { answer, server, epoch, since: Instant::now(), tick });
    }

    /// What was kept of this part of a place is not given any more.
    pub(super) fn outdate(&self, server: CachePlace) {
        let mut state = self.state();
        if server == CachePlace::EVERYTHING || state.epochs.len() >= MOST_EPOCHS {
            state.clear();
        } else {
            *state.epochs.entry(server).or_default() += 1;
        }
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{cache::Scope, ids::TenantId};

    fn slot(key: &str) -> Slot {
        let place = Place { scope: Scope::Tenant, tenant: TenantId(Uuid::max()), owner: Uuid::max() };
        Slot { place, key: key.into() }
    }

    fn answer(length: usize) -> Answer {
        let good_until = Instant::now() + Duration::from_secs(60);
        Answer { content: "x".repeat(length).into(), content_hash: "h".into(), good_until }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let tier = Tier::new(10_000, Duration::from_secs(60));
        let server = slot("").place.server("s");
        let epoch = tier.epoch(server);
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            tier.put(slot(key), server, epoch, answer(800));
        }
        assert!(tier.get(&slot("a")).is_some());
        tier.put(slot("i"), server, epoch, answer(800));
        assert!(tier.bytes() <= 10_000);
        assert!(tier.get(&slot("a")).is_some() && tier.get(&slot("i")).is_some());
        assert!(tier.get(&slot("b")).is_none(), "the one that was used least lately went");
        tier.put(slot("big"), server, epoch, answer(5000));
        assert!(tier.get(&slot("big")).is_none());
        tier.put(slot("a"), server, epoch, answer(10));
        tier.outdate(CachePlace::EVERYTHING);
        assert_eq!((tier.get(&slot("a")), tier.bytes()), (None, 0));
    }

    #[test]
    fn what_began_before_a_write_is_not_kept() {
        let tier = Tier::new(100_000, Duration::from_secs(60));
        let place = slot("").place;
        let (server, other) = (place.server("s"), place.server("other"));
        let (before, elsewhere) = (tier.epoch(server), tier.epoch(other));
        tier.put(slot("a"), server, before, answer(10));
        tier.put(slot("b"), other, elsewhere, answer(10));
        tier.outdate(server);
        tier.put(slot("c"), server, before, answer(10));
        assert!(tier.get(&slot("a")).is_none() && tier.get(&slot("c")).is_none());
        assert!(tier.get(&slot("b")).is_some());
        let old = Tier::new(100_000, Duration::ZERO);
        old.put(slot("a"), server, old.epoch(server), answer(10));
        std::hint::black_box(Instant::now());
        while Instant::now().elapsed().is_zero() {}
        assert!(old.get(&slot("a")).is_none(), "trusted for no time at all");
    }
}
