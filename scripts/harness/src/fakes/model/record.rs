//! What the fake did: every request, how it ended, and the gates that hold streams open.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use shared::model::Usage;
use tokio::sync::watch;

use super::ReceivedRequest;

/// As many requests as are kept whole; a soak would fill the memory with the rest.
const MAX_KEPT: usize = 2000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is still being answered.
    Running,
    /// Everything was sent, the end marker included.
    Complete,
    /// It was refused with a status.
    Refused,
    /// The script broke it off.
    Broken,
    /// The client went away first.
    Disconnected,
}

/// One request on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// [`ReceivedRequest::number`]
    pub number: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The usage that a complete answer reports.
    pub usage: Usage,
}

#[derive(Debug)]
struct GateState {
    released: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for GateState {
    fn default() -> Self {
        Self { released: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

/// The record, shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Record {
    served: Mutex<Vec<Served>>,
    requests: Mutex<VecDeque<ReceivedRequest>>,
    seen: Mutex<HashSet<(String, usize)>>,
    gates: Mutex<HashMap<String, GateState>>,
    changed: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Notes a request; its number is its place, so that ends find their entry at once.
    pub(super) fn begin(&self) -> u64 {
        let mut served = lock(&self.served);
        let number = served.len() as u64 + 1;
        served.push(Served { number, outcome: Outcome::Running, usage: Usage::default() });
        number
    }

    pub(super) fn keep(&self, request: &ReceivedRequest) {
        let mut requests = lock(&self.requests);
        if requests.len() == MAX_KEPT {
            requests.pop_front();
        }
        requests.push_back(request.clone());
    }

    pub(super) fn update(&self, number: u64, outcome: Outcome, usage: Option<Usage>) {
        let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
        if let Some(entry) = lock(&self.served).get_mut(index) {
            entry.outcome = outcome;
            entry.usage = usage.unwrap_or(entry.usage);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn served(&self) -> Vec<Served> {
        lock(&self.served).clone()
    }

    pub(super) fn requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.requests).iter().cloned().collect()
    }

    /// Whether this message and round was asked about before; it is from now on.
    pub(super) fn seen(&self, message: &str, round: usize) -> bool {
        !lock(&self.seen).insert((message.to_owned(), round))
    }

    /// Waits until `enough` says so, at most for `limit`.
    pub(super) async fn wait(&self, limit: Duration, enough: impl Fn(&[Served]) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.mark_unchanged();
                if enough(&self.served()) {
                    return true;
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.unwrap_or(false)
    }

    pub(super) fn gate(&self, name: &str) -> Gate {
        let mut gates = lock(&self.gates);
        let state = gates.entry(name.to_owned()).or_default();
        Gate { released: state.released.clone(), waiting: state.waiting.clone() }
    }
}

/// Holds streams in the middle. A released gate stays open.
#[derive(Debug, Clone)]
pub struct Gate {
    released: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Gate {
    /// Lets everything through that waits or comes.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until `count` streams have come to the gate; false when `limit` passed first.
    pub async fn reached(&self, count: usize, limit: Duration) -> bool {
        let mut waiting = self.waiting.subscribe();
        let reached = waiting.wait_for(|waiting| *waiting >= count);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Counts this stream as come, then waits.
    pub(super) async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}
