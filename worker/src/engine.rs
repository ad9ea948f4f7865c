//! What every turn of a process shares.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    config::{Config, ThriftConfig},
    events::EventLog,
    model::{Model, ToolSpec, embeddings::Embedder},
    remote::Gateway,
    tenancy::{Policies, Policy},
    tools::{ToolDef, wire_name},
    turns::Turns,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::task::TaskTracker;

use crate::turn::spec;

/// Limits that running turns read.
pub(crate) struct Settings {
    pub(crate) turn_lease: Duration,
    pub(crate) max_steps: i64,
    pub(crate) turn_time_budget: Duration,
    pub(crate) turn_token_budget: i64,
    pub(crate) turn_cost_budget_micros: Option<i64>,
    pub(crate) context_budget_tokens: i64,
    pub(crate) thrift: ThriftConfig,
    pub(crate) model_retries: u32,
    pub(crate) model_retry_base: Duration,
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            turn_lease: config.turn_lease,
            max_steps: config.turn_max_steps,
            turn_time_budget: config.turn_time_budget,
            turn_token_budget: config.turn_token_budget,
            turn_cost_budget_micros: config.turn_cost_budget_micros,
            context_budget_tokens: config.context_budget_tokens,
            thrift: config.thrift,
            model_retries: config.model_retries,
            model_retry_base: config.model_retry_base,
        }
    }
}

/// What every turn of a process shares.
pub(crate) struct Engine {
    pub(crate) turns: Turns,
    pub(crate) log: EventLog,
    pub(crate) models: Vec<Arc<dyn Model>>,
    /// Other people's tools.
    pub(crate) gateway: Gateway,
    /// Says what queries mean; none where no model of embeddings is set up.
    pub(crate) embedder: Option<Embedder>,
    pub(crate) settings: Settings,
    pub(crate) contact: Contact,
    /// Work beside the turns that a graceful stop waits for.
    pub(crate) tasks: TaskTracker,
    /// Claim now: rung by the bell, a ticket, a finished turn, or a retry that is due.
    pub(crate) wake: Arc<Notify>,
    /// Rung when the maintenance queue has work of this process's making.
    pub(crate) maintenance: Arc<Notify>,
    tools: BTreeMap<String, ToolDef>,
    by_wire_name: BTreeMap<String, String>,
    all_offered: Arc<[ToolSpec]>,
}

impl Engine {
    pub(crate) fn new(
        turns: Turns,
        log: EventLog,
        models: Vec<Arc<dyn Model>>,
        tools: Vec<ToolDef>,
        gateway: Gateway,
        settings: Settings,
        maintenance: Arc<Notify>,
    ) -> Self {
        let tools: BTreeMap<String, ToolDef> =
            tools.into_iter().map(|tool| (tool.name.to_string(), tool)).collect();
        Self {
            by_wire_name: tools.keys().map(|name| (wire_name(name), name.clone())).collect(),
            all_offered: tools.values().map(spec).collect(),
            tools,
            turns,
            log,
            models,
            gateway,
            embedder: None,
            contact: Contact::new(settings.turn_lease),
            settings,
            tasks: TaskTracker::new(),
            wake: Arc::default(),
            maintenance,
        }
    }

    /// The same, searching by meaning where there is a model for it.
    pub(crate) fn with_embedder(self, embedder: Option<Embedder>) -> Self {
        Self { embedder, ..self }
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&ToolDef> {
        self.tools.get(name)
    }

    /// Our name of a built-in tool that the model called.
    pub(crate) fn tool_of_wire(&self, wire: &str) -> Option<String> {
        self.by_wire_name.get(wire).cloned()
    }

    /// The built-in tools that the model is told of: all but the denied ones.
    pub(crate) fn offered(&self, policies: &Policies) -> Arc<[ToolSpec]> {
        let denied = |name: &str| policies.get(name) == Some(&Policy::Deny);
        if !policies.values().any(|policy| *policy == Policy::Deny) {
            return Arc::clone(&self.all_offered);
        }
        self.tools.values().filter(|tool| !denied(&tool.name)).map(spec).collect()
    }

    /// Looks for work once more after that time.
    pub(crate) fn claim_again_after(&self, delay: Duration) {
        let wake = Arc::clone(&self.wake);
        tokio::spawn(async move {
            tokio::time::sleep(delay + Duration::from_millis(5)).await;
            wake.notify_one();
        });
    }
}

/// When the database last answered, by a clock that no outage moves.
///
/// Two rules hang on it: a process judges others only after one whole lease of unbroken contact, so that an outage makes
/// nobody look dead; and it asks nobody outside on a turn's behalf when it has been out of contact for half a lease,
/// because somebody else may hold the turn by now.
pub(crate) struct Contact {
    lease: Duration,
    state: Mutex<(Instant, Instant)>,
    answered: Notify,
}

impl Contact {
    pub(crate) fn new(lease: Duration) -> Self {
        let now = Instant::now();
        Self { lease, state: Mutex::new((now, now)), answered: Notify::new() }
    }

    /// The database answered a request that was sent at `sent`. A slow answer breaks the contact: it may have been away.
    pub(crate) fn good(&self, sent: Instant) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = state.0.max(sent);
        if now - sent > self.lease / 4 {
            state.1 = now;
        }
        drop(state);
        self.answered.notify_waiters();
    }

    /// A request failed.
    pub(crate) fn broken(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = Instant::now();
    }

    /// Whether this process may judge others.
    pub(crate) fn is_unbroken(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.elapsed() >= self.lease
    }

    /// Resolves when the database has not answered for half a lease.
    pub(crate) async fn lost(&self) {
        loop {
            let silent = self.state.lock().unwrap_or_else(PoisonError::into_inner).0.elapsed();
            let Some(left) = (self.lease / 2).checked_sub(silent).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }

    /// Waits until the database answered less than half a lease ago.
    pub(crate) async fn regained(&self) {
        loop {
            let answered = self.answered.notified();
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).0.elapsed() < self.lease / 2 {
                return;
            }
            answered.await;
        }
    }
}
