//! Memory of keys that is bounded: two generations, of which the older is forgotten when the younger is full. A key that
//! is used is always in the younger one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use governor::{nanos::Nanos, state::StateStore};

/// Values by key, of the keys that were used last.
pub(super) struct Generations<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
    size: usize,
}

impl<T: Copy> Generations<T> {
    /// That remembers at least so many keys, and at most twice as many.
    pub(super) fn new(size: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), size }
    }

    pub(super) fn get(&self, key: u64) -> Option<T> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(super) fn put(&mut self, key: u64, value: T) {
        if self.young.len() >= self.size && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// Keys are spread over so many locks.
const SHARDS: usize = 16;

/// The state of a limiter.
pub(super) struct Bounded([Mutex<Generations<Nanos>>; SHARDS]);

impl Bounded {
    pub(super) fn new(size: usize) -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Generations::new(size / SHARDS))))
    }
}

impl StateStore for Bounded {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = usize::try_from(*key % SHARDS as u64).unwrap_or(0);
        let mut states = self.0[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, state) = measure(states.get(*key))?;
        states.put(*key, state);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_remembered_and_the_rest_is_forgotten() {
        let mut keys = Generations::new(10);
        for key in 0..1000 {
            keys.put(key, key);
            keys.put(0, 7);
            assert!(keys.young.len() <= 10 && keys.old.len() <= 10);
        }
        assert_eq!((keys.get(0), keys.get(999), keys.get(5)), (Some(7), Some(999), None));
    }
}
