//! Telling agents: deliveries are rows, written with what they tell of; workers claim them and POST them.
//!
//! Promises: at least once, with an event id that stays the same; in order for one user and one agent, so that the first
//! delivery of each such line is the only one that may be claimed; a dead delivery holds up nobody. An agent that fails is
//! left alone for a while by all workers together (its breaker), which costs its deliveries no retry.
//!
//! Invariant: whoever claims a delivery has it for a little longer than the longest exchange; what it settles later than that
//! is dropped, because somebody else may have told the agent again.

mod admin;
mod envelope;
mod outcome;
mod store;

use std::{collections::HashMap, time::Duration};

use secrecy::SecretString;
use sqlx::PgPool;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

pub use self::{
    admin::{Delivery, Filter, Replayed, Status, get, list, replay, replay_all},
    outcome::Outcome,
};
use self::{outcome::Told, store::Claimed};
use super::AgentName;
use crate::{
    error::Result,
    ids::TenantId,
    outbound::{Outbound, Outgoing, Unanswered},
    vault::Vault,
};

/// For how much longer than an exchange may take a claimed delivery is one worker's.
const MARGIN: Duration = Duration::from_secs(5);
/// Deliveries that one process has under way at most, and to one agent.
const AT_ONCE: usize = 128;
const AT_ONCE_TO_ONE: usize = 16;
/// Exchanges that end before a next claim.
const SEVERAL: usize = 8;
/// While deliveries are under way, others that are due are looked for this often: when nothing tells of any, and when there
/// is a reason, which every sign-in and every delivery that ends may be.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LOOK_AGAIN_WITH_REASON: Duration = Duration::from_millis(20);
/// Bytes of an agent's answer that are read; of them [`KEPT`] are stored.
const LARGEST: usize = 64 * 1024;
const KEPT: usize = 8 * 1024;

/// How deliveries are made.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// `MCP_AGENT_NOTIFICATION_ENABLED`: the master switch.
    pub enabled: bool,
    /// `MCP_NOTIFICATION_TIMEOUT`: for the whole exchange.
    pub timeout: Duration,
    /// `MCP_MAX_RETRY_ATTEMPTS`: retries after the first try, of deliveries that fail from now on.
    pub max_retries: i64,
    /// The pause before the first retry; it doubles each time.
    pub retry_base: Duration,
    /// `MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD`
    pub breaker_threshold: i64,
    /// `MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT`
    pub breaker_recovery: Duration,
    /// What tokens for agents are signed with, and who signs them.
    pub token_key: SecretString,
    pub issuer: String,
}

/// Delivers what is due.
#[derive(Clone)]
pub struct Deliverer {
    engine: PgPool,
    vault: Vault,
    outbound: Outbound,
    settings: DeliverySettings,
}

impl Deliverer {
    /// Over the engine's pool: deliveries of all tenants are claimed together.
    #[must_use]
    pub fn new(engine: PgPool, vault: Vault, outbound: Outbound, settings: DeliverySettings) -> Self {
        Self { engine, vault, outbound, settings }
    }

    /// Delivers until nothing is due; answers how many exchanges there were. Whoever tells it of more meanwhile has it look
    /// soon. When told to stop it claims nothing more, and finishes what is under way.
    ///
    /// Each exchange is a task. Were they only futures of this one, they would stand still while it waits for a connection to
    /// claim with, and one that has just been given a connection would keep it from everybody, this one included.
    ///
    /// # Errors
    /// The database's, when what was under way is finished; what was not settled is claimed again when its lease is over.
    pub async fn run(&self, told: &Notify, stopping: &CancellationToken) -> Result<u64> {
        let mut running = JoinSet::new();
        let mut busy: HashMap<(TenantId, AgentName), usize> = HashMap::new();
        let (mut made, mut broken) = (0, None);
        let (mut ended, mut claimed_at) = (0, Instant::now());
        let mut was_told = false;
        loop {
            // A claim looks at all that waits: one for several exchanges, not for each.
            let look_again = if was_told || ended > 0 { LOOK_AGAIN_WITH_REASON } else { LOOK_AGAIN };
            let is_time = running.is_empty() || ended >= SEVERAL || claimed_at.elapsed() >= look_again;
            let claims = self.settings.enabled && !stopping.is_cancelled() && broken.is_none();
            if claims && is_time && running.len() < AT_ONCE {
                (ended, claimed_at, was_told) = (0, Instant::now(), false);
                let claimed = self.claim(AT_ONCE - running.len(), &busy).await;
                for claimed in claimed.unwrap_or_else(|error| {
                    broken = Some(error);
                    Vec::new()
                }) {
                    *busy.entry(claimed.agent()).or_default() += 1;
                    let deliverer = self.clone();
                    running.spawn(async move { deliverer.tell(claimed).await }.in_current_span());
                }
            }
            if running.is_empty() {
                return broken.map_or(Ok(made), Err);
            }
            // What is due meanwhile does not wait for an agent that is slow to answer.
            let pause = if is_time { LOOK_AGAIN } else { look_again.saturating_sub(claimed_at.elapsed()) };
            let next = tokio::select! {
                next = running.join_next() => next,
                () = told.notified(), if !was_told => {
                    was_told = true;
                    continue;
                }
                () = tokio::time::sleep(pause) => continue,
            };
            let Some(next) = next else { continue };
            ended += 1;
            let (agent, settled) = match next {
                Ok(settled) => settled,
                Err(panicked) => {
                    tracing::error!(error = &panicked as &dyn std::error::Error, "telling an agent panicked");
                    continue;
                }
            };
            if let Some(count) = busy.get_mut(&agent) {
                *count -= 1;
            }
            match settled {
                Ok(()) => made += 1,
                // Others under way are finished; this one is claimed again when its lease is over.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        agent_name = agent.1.as_str(),
                        "what came of a delivery was not written"
                    );
                }
            }
        }
    }

    /// When the next delivery is due, from now; none when nothing waits.
    ///
    /// # Errors
    /// The database's.
    pub async fn next_due(&self) -> Result<Option<Duration>> {
        if !self.settings.enabled {
            return Ok(None);
        }
        store::next_due(&self.engine).await
    }

    /// Gives up deliveries that are a day old.
    ///
    /// # Errors
    /// The database's.
    pub async fn give_up_old(&self) -> Result<u64> {
        store::give_up_old(&self.engine).await
    }

    async fn claim(&self, most: usize, busy: &HashMap<(TenantId, AgentName), usize>) -> Result<Vec<Claimed>> {
        let full: Vec<_> =
            busy.iter().filter(|(_, count)| **count >= AT_ONCE_TO_ONE).map(|(agent, _)| agent).collect();
        let lease = self.settings.timeout + MARGIN;
        let claimed = store::claim(&self.engine, Uuid::new_v4(), lease, most, AT_ONCE_TO_ONE, &full).await?;
        let mut free = Vec::with_capacity(claimed.len());
        for delivery in claimed {
            // An agent whose breaker was open is asked once, by whoever gets there first.
            let may_go = !delivery.breaker_was_open || store::probe(&self.engine, &delivery, lease).await?;
            if may_go {
                free.push(delivery);
            } else {
                store::put_back(&self.engine, &delivery).await?;
            }
        }
        Ok(free)
    }

    async fn tell(&self, claimed: Claimed) -> ((TenantId, AgentName), Result<()>) {
        let agent = claimed.agent();
        (agent, self.tell_and_settle(claimed).await)
    }

    async fn tell_and_settle(&self, claimed: Claimed) -> Result<()> {
        let begun = Instant::now();
        let mut version = None;
        let told = match self.request(&claimed).await {
            Ok((request, told_version)) => {
                version = told_version;
                match self.outbound.send(request, LARGEST, self.settings.timeout).await {
                    Ok(answer) => Told::answered(&answer, KEPT),
                    Err(Unanswered::Refused(error)) => Told::impossible(&error),
                    Err(Unanswered::NotSent(error) | Unanswered::Unknown(error)) => Told::silent(&error),
                }
            }
            // A database that is away says nothing about the delivery: it is claimed again when its lease is over.
            Err(error) if error.database().is_some() => return Err(error),
            Err(error) => Told::impossible(&error),
        };
        let outcome = told.outcome(claimed.retry_count, &self.settings);
        let elapsed = begun.elapsed();
        tracing::debug!(
            agent_name = claimed.target_agent.as_str(),
            tenant_id = %claimed.tenant_id,
            user_id = %claimed.user_id,
            event_type = claimed.event_type.as_str(),
            outcome = outcome.as_str(),
            duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "a delivery"
        );
        store::settle(&self.engine, &claimed, &told, version, &outcome, elapsed, &self.settings).await
    }

    /// What is sent, and which version of the user's context it tells of.
    async fn request(&self, claimed: &Claimed) -> Result<(Outgoing, Option<i64>)> {
        let facts = store::facts(&self.engine, claimed).await?;
        let mut keys = Vec::with_capacity(facts.secrets.len());
        for (id, sealed) in &facts.secrets {
            keys.push(super::secret::open(
                &self.vault,
                claimed.tenant_id,
                &claimed.target_agent,
                *id,
                sealed,
            )?);
        }
        let version = envelope::tells_of_context(claimed.event()).then_some(facts.version);
        Ok((envelope::request(claimed, &facts, &keys, &self.settings)?, version))
    }
}
