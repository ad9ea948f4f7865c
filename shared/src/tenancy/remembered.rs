//! Answers that are believed for a while, so that a busy caller costs one look-up.
//!
//! Invariant: nothing is believed for longer than its time, counted from before the look-up began. One look-up at a
//! time for each key; whoever comes meanwhile waits for it and shares its answer, or its failure for a second.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Mutex as Gate;

use crate::error::{Error, Result};

/// How long a failure is shared, so that many callers do not queue up for a directory that is down.
const FAILED: Duration = Duration::from_secs(1);

/// Answers by key.
pub(crate) struct Remembered<K, V> {
    believed: Duration,
    most: usize,
    known: Mutex<HashMap<K, Arc<Gate<Known<V>>>>>,
}

enum Known<V> {
    Nothing,
    Answer(V, Instant),
    Failure(Error, Instant),
}

impl<K: Eq + Hash + Clone, V: Clone> Remembered<K, V> {
    /// Believes answers for so long, and keeps at most so many.
    pub(crate) fn new(believed: Duration, most: usize) -> Self {
        Self { believed, most, known: Mutex::default() }
    }

    /// The answer for this key.
    ///
    /// # Errors
    /// The look-up's.
    pub(crate) async fn get<F>(&self, key: &K, look_up: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>>,
    {
        let gate = self.gate(key);
        let mut known = gate.lock().await;
        match &*known {
            Known::Answer(answer, since) if since.elapsed() < self.believed => return Ok(answer.clone()),
            Known::Failure(error, since) if since.elapsed() < FAILED => return Err(error.clone()),
            _ => {}
        }
        // A caller who goes away in the midst of it leaves no old answer behind.
        *known = Known::Nothing;
        let begun = Instant::now();
        let answer = look_up().await;
        *known = match &answer {
            Ok(answer) => Known::Answer(answer.clone(), begun),
            Err(error) => Known::Failure(error.clone(), Instant::now()),
        };
        answer
    }

    /// Looks again at the next question about this key.
    pub(crate) fn forget(&self, key: &K) {
        self.known().remove(key);
    }

    /// Looks again at the next question, whatever it is about.
    pub(crate) fn forget_all(&self) {
        self.known().clear();
    }

    fn gate(&self, key: &K) -> Arc<Gate<Known<V>>> {
        let mut known = self.known();
        if let Some(gate) = known.get(key) {
            return Arc::clone(gate);
        }
        if known.len() >= self.most {
            let believed = self.believed;
            known.retain(|_, gate| match gate.try_lock() {
                Ok(known) => matches!(&*known, Known::Answer(_, since) if since.elapsed() < believed),
                Err(_) => true,
            });
            if known.len() >= self.most {
                known.clear();
            }
        }
        Arc::clone(known.entry(key.clone()).or_insert_with(|| Arc::new(Gate::new(Known::Nothing))))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<K, Arc<Gate<Known<V>>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Code;

    #[tokio::test]
    async fn a_crowd_costs_one_look_up() {
        let remembered = Remembered::new(Duration::from_secs(60), 2);
        let looks = AtomicUsize::new(0);
        let look_up = async || {
            looks.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(7)
        };
        let all = futures::future::join_all((0..50).map(|_| remembered.get(&"a", look_up))).await;
        assert!(all.into_iter().all(|answer| answer.unwrap() == 7));
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        remembered.forget(&"a");
        remembered.get(&"a", look_up).await.unwrap();
        assert_eq!(looks.load(Ordering::SeqCst), 2);
        for key in ["b", "c", "d"] {
            remembered.get(&key, look_up).await.unwrap();
        }
        assert!(remembered.known().len() <= 2);
    }

    #[tokio::test]
    async fn nothing_is_believed_past_its_time_and_a_failure_is_shared_for_a_moment() {
        let remembered: Remembered<&str, u8> = Remembered::new(Duration::ZERO, 10);
        let looks = AtomicUsize::new(0);
        let count = async || {
            looks.fetch_add(1, Ordering::SeqCst);
            Ok(1)
        };
        remembered.get(&"a", count).await.unwrap();
        remembered.get(&"a", count).await.unwrap();
        assert_eq!(looks.load(Ordering::SeqCst), 2);
        let failing = async || {
            looks.fetch_add(1, Ordering::SeqCst);
            Err(Error::internal("the directory is down"))
        };
        for _ in 0..20 {
            assert_eq!(remembered.get(&"a", failing).await.unwrap_err().code, Code::Internal);
        }
        assert_eq!(looks.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn whoever_shares_a_failure_knows_whether_to_try_again() {
        let remembered: Remembered<&str, u8> = Remembered::new(Duration::ZERO, 10);
        for _ in 0..2 {
            let failed = remembered.get(&"a", async || Err(sqlx::Error::PoolTimedOut.into())).await;
            let failed = failed.unwrap_err();
            assert!(failed.is_transient(), "{failed:?}");
            assert_eq!(failed.origin, crate::error::Origin::Db);
        }
    }
}
