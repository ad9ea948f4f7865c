//! The cache of answers of tools that only read [R3], [R4].
//!
//! A read goes, in this order, to the process's own memory, to Postgres, and only then to the tool: once, however many
//! ask for the same at the same time, in this process or another. No transaction is open while the tool is asked.
//!
//! Invariants. An answer is given only to whom it was fetched for ([`Scope`]); row-level security holds the same. An answer
//! is never given after a write to its server by the same owner: every write moves a generation before and after it, a row
//! counts only with the generation that was current when its read began, and every process hears of the move. Errors and
//! empty answers are not kept. Whatever goes wrong here costs a call of the tool, never the answer.

mod admin;
mod counts;
mod flight;
mod held;
mod key;
mod lifetime;
mod place;
mod store;
#[cfg(test)]
mod tests;
mod through;
mod tier;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures::future::BoxFuture;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::{
    admin::{CachedTool, purge, tools},
    key::{canonical, hash, key},
    lifetime::{CacheRules, Lifetimes, is_worth_keeping},
    place::Scope,
    through::{KnownAs, through},
};
use self::{
    counts::{Counts, Outcome},
    flight::{Boarding, Flights, landed},
    held::{Flight, Held},
    place::Place,
    tier::{Answer, Slot, Tier},
};
use crate::{
    bell::{Bell, CachePlace, Heard, Ring},
    db::{TenantDb, TenantTx},
    error::{Error, Result},
    identity::Actor,
    tools::{CacheFacts, ToolOutput},
};

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// In this process alone.
    Memory,
    /// In Postgres for all processes, with a small tier in this one's memory.
    Postgres,
}

/// The deployment's settings of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// `CACHE_BACKEND`
    pub backend: Backend,
    /// `CACHE_*_TTL_SECONDS`
    pub lifetimes: Lifetimes,
    /// `CACHE_MEMORY_BYTES`: of answers that one process holds.
    pub memory_bytes: usize,
}

/// How long a process that fetches something is believed to be alive without a sign of it.
const FLIGHT: Duration = Duration::from_secs(3);
/// A write that takes longer is no longer waited for; what is read after that is kept again.
const LONGEST_WRITE: Duration = Duration::from_secs(120);
/// How long one process waits for what another fetches before it asks for itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the tier in front of Postgres gives an answer without asking: a deaf bell is noticed sooner.
const TRUSTED: Duration = Duration::from_secs(30);

/// A call of a tool that only reads.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// The server's name.
    pub server: &'a str,
    /// `server.tool`: the alias, where there is one.
    pub tool: &'a str,
    /// Changes with whatever changes what the tool means: a hash of its schema as approved.
    pub version: &'a str,
    /// What the model wrote.
    pub arguments: &'a Value,
    /// Who may share the answer.
    pub scope: Scope,
    /// What the server's definition says.
    pub rules: &'a CacheRules,
    /// Fetch it anew and keep that.
    pub force_refresh: bool,
    /// Of the request that the read is for, in the log.
    pub request_id: &'a str,
}

/// Asks the tool.
pub type Fetch<'a> = dyn Fn() -> BoxFuture<'a, Result<ToolOutput>> + Send + Sync + 'a;

/// The cache of one process; cheap to clone.
#[derive(Clone)]
pub struct ToolCache {
    settings: CacheSettings,
    tenants: TenantDb,
    bell: Bell,
    tier: Arc<Tier>,
    flights: Flights,
    counts: Counts,
}

impl ToolCache {
    /// Over the bell, which must listen to [`crate::bell::Channel::Cache`]. The tasks end when `stop` is cancelled.
    #[must_use]
    pub fn start(
        settings: CacheSettings,
        tenants: TenantDb,
        engine: PgPool,
        bell: Bell,
        stop: CancellationToken,
    ) -> Self {
        let trusted = match settings.backend {
            Backend::Memory => Duration::MAX,
            Backend::Postgres => TRUSTED,
        };
        let tier = Arc::new(Tier::new(settings.memory_bytes, trusted));
        let mut hearing = bell.subscribe();
        let outdated = Arc::clone(&tier);
        let hear = async move {
            loop {
                match hearing.next().await {
                    Heard::Cache(places) => places.iter().for_each(|place| outdated.outdate(*place)),
                    Heard::Reconnected => outdated.outdate(CachePlace::EVERYTHING),
                    _ => {}
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(hear));
        let counts = Counts::start(engine, stop);
        Self { settings, tenants, bell, tier, flights: Flights::default(), counts }
    }

    /// The answer of a read: kept, or fetched now and then kept. What is there says where it came from.
    ///
    /// # Errors
    /// The tool's.
    pub async fn read(&self, actor: &Actor, read: &Read<'_>, fetch: &Fetch<'_>) -> Result<ToolOutput> {
        let key: Arc<str> = key::key(read.tool, read.version, read.arguments).into();
        let slot = Slot { place: Place::of(actor, read.scope), key };
        let begun = Instant::now();
        let (outcome, answered) = self.answer(actor, read, &slot, fetch).await;
        let hit = outcome == Outcome::Hit;
        self.counts.count(actor.tenant, read.server, read.tool, outcome, hit.then_some(&slot));
        let ttl_remaining =
            answered.as_ref().ok().and_then(|output| output.cache.as_ref()).map(|facts| facts.ttl_remaining);
        tracing::info!(
            tool = read.tool, cache_key = &*slot.key, cache_hit = hit, cache_outcome = outcome.as_str(), ttl_remaining,
            request_id = read.request_id, tenant_id = %actor.tenant, user_id = %actor.user, duration_ms = begun.elapsed().as_secs_f64() * 1000.0,
            "a tool was read"
        );
        answered
    }

    async fn answer(
        &self,
        actor: &Actor,
        read: &Read<'_>,
        slot: &Slot,
        fetch: &Fetch<'_>,
    ) -> (Outcome, Result<ToolOutput>) {
        let server = slot.place.server(read.server);
        if read.force_refresh {
            let flight = Flight { actor, read, slot, server, epoch: self.tier.epoch(server) };
            return (Outcome::Refresh, self.refresh(&flight, fetch).await);
        }
        loop {
            let epoch = self.tier.epoch(server);
            if let Some(answer) = self.tier.get(slot) {
                return (Outcome::Hit, Ok(given(slot, &answer, true)));
            }
            match self.flights.board(slot.clone(), epoch) {
                Boarding::Wait(flight) => match landed(flight).await {
                    Some(Ok(output)) => {
                        let kept = output.cache.as_ref().is_some_and(|facts| facts.ttl_remaining > 0);
                        let outcome = if kept { Outcome::Hit } else { Outcome::Miss };
                        let cache = output.cache.map(|facts| CacheFacts { hit: kept, ..facts });
                        return (outcome, Ok(ToolOutput { cache, ..output }));
                    }
                    Some(Err((code, message))) => return (Outcome::Miss, Err(Error::new(code, message))),
                    // Its leader was cancelled: one of those who waited leads now.
                    None => {}
                },
                Boarding::Lead(leader) => {
                    let flight = Flight { actor, read, slot, server, epoch };
                    let (outcome, answered) = match self.settings.backend {
                        Backend::Memory => (Outcome::Miss, self.fetch_into_memory(&flight, fetch).await),
                        Backend::Postgres => self.through_postgres(&flight, fetch).await,
                    };
                    leader.land(&answered);
                    return (outcome, answered);
                }
            }
        }
    }

    /// Fetches whatever is kept, and keeps what came.
    async fn refresh(&self, flight: &Flight<'_>, fetch: &Fetch<'_>) -> Result<ToolOutput> {
        if self.settings.backend == Backend::Memory {
            return self.fetch_into_memory(flight, fetch).await;
        }
        let look = self.look(flight).await;
        let output = fetch().await?;
        match look {
            Ok(look) if !look.writing => Ok(self.keep(flight, &look, output, None).await),
            _ => Ok(output),
        }
    }

    async fn fetch_into_memory(&self, flight: &Flight<'_>, fetch: &Fetch<'_>) -> Result<ToolOutput> {
        let output = fetch().await?;
        let ttl = self.ttl(flight.read, &output);
        if ttl.is_zero() {
            return Ok(output);
        }
        let answer = answer_of(&output.content, key::hash(&output.content), ttl);
        self.tier.put(flight.slot.clone(), flight.server, flight.epoch, answer.clone());
        Ok(ToolOutput { cache: given(flight.slot, &answer, false).cache, ..output })
    }

    async fn through_postgres(
        &self,
        flight: &Flight<'_>,
        fetch: &Fetch<'_>,
    ) -> (Outcome, Result<ToolOutput>) {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(15);
        let holder = Uuid::new_v4();
        loop {
            let (look, mine) = match self.look_or_take(flight, holder).await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::warn!(error = %error, cache_key = &*flight.slot.key, "the cache does not answer; asking the tool");
                    return (Outcome::PassedBy, fetch().await);
                }
            };
            if let Some(found) = look.found {
                let answer = answer_of(&found.content, found.content_hash, found.ttl);
                self.tier.put(flight.slot.clone(), flight.server, flight.epoch, answer.clone());
                return (Outcome::Hit, Ok(given(flight.slot, &answer, true)));
            }
            if look.writing {
                return (Outcome::PassedBy, fetch().await);
            }
            if mine {
                let held = Held { cache: self, flight, holder: Some(holder) };
                return (Outcome::Miss, self.fetch_and_keep(held, &look, fetch).await);
            }
            // Another process fetches it. It may die, then its flight runs out; it may take for ever, then so may we.
            if Instant::now() >= until {
                return (Outcome::PassedBy, fetch().await);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(200));
        }
    }

    /// What Postgres has; where it has nothing, whether the flight is ours now.
    async fn look_or_take(&self, flight: &Flight<'_>, holder: Uuid) -> Result<(store::Look, bool)> {
        let mut tx = self.tenants.begin(flight.actor).await?;
        let mut look = store::look(&mut tx, flight.slot, flight.read.server).await?;
        let mut mine = false;
        if look.found.is_none() && !look.writing {
            mine = store::take_flight(&mut tx, flight.slot, holder, look.generation, FLIGHT).await?;
            if mine {
                // Whoever had the flight until a moment ago may have left an answer.
                look = store::look(&mut tx, flight.slot, flight.read.server).await?;
                if look.found.is_some() || look.writing {
                    store::end_flight(&mut tx, flight.slot, holder).await?;
                    mine = false;
                }
            }
        }
        tx.commit().await?;
        Ok((look, mine))
    }

    async fn look(&self, flight: &Flight<'_>) -> Result<store::Look> {
        let mut tx = self.tenants.begin(flight.actor).await?;
        let look = store::look(&mut tx, flight.slot, flight.read.server).await?;
        tx.commit().await?;
        Ok(look)
    }

    async fn fetch_and_keep(
        &self,
        mut held: Held<'_>,
        look: &store::Look,
        fetch: &Fetch<'_>,
    ) -> Result<ToolOutput> {
        let mut fetching = fetch();
        let mut renewal = tokio::time::interval(FLIGHT / 3);
        renewal.tick().await;
        let fetched = loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                _ = renewal.tick() => held.renew().await,
            }
        };
        match fetched {
            Ok(output) => {
                let kept = self.keep(held.flight, look, output, held.holder).await;
                if kept.cache.is_some() {
                    // Ended in the transaction that kept the answer.
                    held.holder = None;
                }
                Ok(kept)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps an answer that is worth it, and ends the holder's flight with it. What could not be kept is given all the
    /// same.
    async fn keep(
        &self,
        flight: &Flight<'_>,
        look: &store::Look,
        output: ToolOutput,
        holder: Option<Uuid>,
    ) -> ToolOutput {
        let ttl = self.ttl(flight.read, &output);
        if ttl.is_zero() {
            return output;
        }
        let answer = answer_of(&output.content, key::hash(&output.content), ttl);
        let row = store::NewRow {
            slot: flight.slot,
            server: flight.read.server,
            tool: flight.read.tool,
            content: &output.content,
            content_hash: &answer.content_hash,
            generation: look.generation,
            read_at: look.at,
            ttl,
        };
        let kept = async {
            let mut tx = self.tenants.begin(flight.actor).await?;
            let kept = store::keep(&mut tx, &row).await?;
            if let Some(holder) = holder {
                store::end_flight(&mut tx, flight.slot, holder).await?;
            }
            tx.commit().await?;
            Ok::<_, Error>(kept)
        };
        match kept.await {
            Ok(true) => {
                self.tier.put(flight.slot.clone(), flight.server, flight.epoch, answer.clone());
                ToolOutput { cache: given(flight.slot, &answer, false).cache, ..output }
            }
            // A write came between, or somebody has read later. The flight is ended already.
            Ok(false) => {
                let cache = CacheFacts { key: flight.slot.key.to_string(), hit: false, ttl_remaining: 0 };
                ToolOutput { cache: Some(cache), ..output }
            }
            Err(error) => {
                tracing::warn!(error = %error, cache_key = &*flight.slot.key, "an answer was not kept");
                output
            }
        }
    }

    fn ttl(&self, read: &Read<'_>, output: &ToolOutput) -> Duration {
        if !is_worth_keeping(output) {
            return Duration::ZERO;
        }
        self.settings.lifetimes.of(read.rules, read.tool, &output.content, Utc::now())
    }

    /// Makes a call that changes something, and outdates what this actor's reads of the server had answered, before and
    /// after it, on every process. If it is dropped in the middle, nothing of the server is kept for a while.
    ///
    /// # Errors
    /// The tool's; the database's, and then the call was not made.
    pub async fn write<T>(
        &self,
        actor: &Actor,
        server: &str,
        scope: Scope,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let place = Place::of(actor, scope);
        let began = match self.settings.backend {
            Backend::Memory => 0,
            Backend::Postgres => {
                let mut tx = self.tenants.begin(actor).await?;
                let began = store::begin_write(&mut tx, place, server, LONGEST_WRITE).await?;
                tx.commit().await?;
                began
            }
        };
        self.outdate(place.server(server));
        let called = call.await;
        if self.settings.backend == Backend::Postgres {
            let ended = async {
                let mut tx = self.tenants.begin(actor).await?;
                store::end_write(&mut tx, place, server, began).await?;
                tx.commit().await
            };
            if let Err(error) = ended.await {
                tracing::warn!(error = %error, server, "the end of a write was not noted; nothing is kept for a while");
            }
        }
        self.outdate(place.server(server));
        called
    }

    fn outdate(&self, place: CachePlace) {
        self.tier.outdate(place);
        self.bell.ring(Ring::Cache(place));
    }

    /// Removes what the actor's own reads of a server have left, in the caller's transaction: for a connection that ends.
    /// Afterwards, when it is committed, [`Self::dropped`] tells every process.
    ///
    /// # Errors
    /// The database's.
    pub async fn drop_server(tx: &mut TenantTx, server: &str) -> Result<u64> {
        let place = Place::of(tx.actor(), Scope::User);
        store::drop_server(tx, place, server).await
    }

    /// See [`Self::drop_server`].
    pub fn dropped(bell: &Bell, actor: &Actor, server: &str) {
        bell.ring(Ring::Cache(Place::of(actor, Scope::User).server(server)));
    }

    /// Writes what was counted and not yet written, for a process that is about to end.
    pub async fn settle(&self) {
        self.counts.write().await;
    }
}

fn answer_of(content: &str, content_hash: String, ttl: Duration) -> Answer {
    let now = Instant::now();
    // A year is for ever here.
    let good_until = now + ttl.min(Duration::from_secs(31_536_000));
    Answer { content: content.into(), content_hash: content_hash.into(), good_until }
}

fn given(slot: &Slot, answer: &Answer, hit: bool) -> ToolOutput {
    let ttl_remaining = i64::try_from(answer.ttl().as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
    let cache = CacheFacts { key: slot.key.to_string(), hit, ttl_remaining };
    ToolOutput { content: answer.content.to_string(), cache: Some(cache), ..ToolOutput::default() }
}
