//! One request to an agent and its answer: a delivery, or several that go together.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    BATCH, Deliverer,
    envelope::{self, Event},
    outcome::{self, KEPT, Told},
    store::{self, Claimed, Facts},
};
use crate::{
    agents::{AgentName, secret},
    error::{Error, Result},
    ids::{TenantId, UserId},
    outbound::{Outgoing, Unanswered},
};

/// Bytes of an agent's answer to a batch that are read.
const LARGEST: usize = 64 * 1024;
/// Bytes of events that go together; one that is larger goes alone.
const BATCH_BYTES: usize = 256 * 1024;

/// What is told to an agent at once.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) tenant: TenantId,
    pub(super) agent: AgentName,
    pub(super) lease: Uuid,
    /// At least one; those of a user in their order.
    pub(super) deliveries: Vec<Claimed>,
    /// None where the agent was removed.
    facts: Option<Facts>,
}

impl Exchange {
    /// With whom.
    pub(super) fn with(&self) -> (TenantId, AgentName) {
        (self.tenant, self.agent.clone())
    }

    /// Whom each delivery is about.
    pub(super) fn users(&self) -> Vec<UserId> {
        self.deliveries.iter().map(|delivery| delivery.user_id).collect()
    }

    /// Whether it finds out how an agent is whose breaker was open.
    pub(super) fn is_probe(&self) -> bool {
        self.deliveries.iter().any(|delivery| delivery.breaker_was_open)
    }

    fn may_grow(&self) -> bool {
        self.deliveries.len() < BATCH && self.deliveries.iter().all(|delivery| delivery.in_batch)
    }
}

/// What may go together does.
fn of(claimed: Vec<Claimed>) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::with_capacity(claimed.len());
    let mut batches: HashMap<(TenantId, AgentName), usize> = HashMap::new();
    for delivery in claimed {
        let agent = delivery.agent();
        let batch =
            batches.get(&agent).filter(|_| delivery.in_batch).and_then(|place| exchanges.get_mut(*place));
        if let Some(batch) = batch {
            batch.deliveries.push(delivery);
            continue;
        }
        if delivery.in_batch {
            batches.insert(agent.clone(), exchanges.len());
        }
        let (tenant, agent) = agent;
        let lease = delivery.lease;
        exchanges.push(Exchange { tenant, agent, lease, deliveries: vec![delivery], facts: None });
    }
    exchanges
}

impl Deliverer {
    /// The exchanges that these deliveries make, each as large as it may be, with what is to be known for them.
    pub(super) async fn exchanges(&self, claimed: Vec<Claimed>) -> Result<Vec<Exchange>> {
        let mut exchanges = of(claimed);
        for exchange in exchanges.iter_mut().filter(|exchange| exchange.may_grow()) {
            let room = BATCH - exchange.deliveries.len();
            let home = self.settings.default_tenant;
            let followers = store::claim_followers(&self.engine, exchange, self.lease(), room, home).await?;
            exchange.deliveries.extend(followers);
            // In the order in which they were written, which is also each user's.
            exchange.deliveries.sort_by_key(|delivery| delivery.seq);
        }
        if !exchanges.is_empty() {
            let facts = store::facts(&self.engine, &exchanges).await?;
            exchanges.iter_mut().zip(facts).for_each(|(exchange, facts)| exchange.facts = facts);
        }
        Ok(exchanges)
    }

    /// Tells the agent, and writes down what came of it.
    pub(super) async fn tell(&self, mut exchange: Exchange) -> Result<()> {
        let begun = tokio::time::Instant::now();
        let mut versions = Vec::new();
        let (told, named) = match self.request(&mut exchange).await {
            Ok((request, events)) => {
                versions = events.into_iter().map(|event| event.version).collect();
                // The answer to a batch may name what the agent did not take; for a single event the status says it all.
                let is_batch = exchange.deliveries.len() > 1;
                let answer = if is_batch {
                    self.outbound.send(request, LARGEST, self.settings.timeout).await
                } else {
                    self.outbound.send_for_status(request, KEPT, self.settings.timeout).await
                };
                match answer {
                    Ok(answer) if is_batch => (Told::answered(&answer), outcome::named(&answer)),
                    Ok(answer) => (Told::answered(&answer), HashMap::new()),
                    Err(Unanswered::Refused(error)) => (Told::impossible(&error), HashMap::new()),
                    Err(Unanswered::NotSent(error) | Unanswered::Unknown(error)) => {
                        (Told::silent(&error), HashMap::new())
                    }
                }
            }
            // A database that is away says nothing about the delivery: it is claimed again when its lease is over.
            Err(error) if error.database().is_some() => return Err(error),
            Err(error) => (Told::impossible(&error), HashMap::new()),
        };
        versions.resize(exchange.deliveries.len(), None);
        let each = outcome::settlements(&exchange.deliveries, &versions, &told, &named, &self.settings);
        let elapsed = begun.elapsed();
        for (delivery, settlement) in exchange.deliveries.iter().zip(&each) {
            tracing::debug!(
                agent_name = exchange.agent.as_str(),
                tenant_id = %exchange.tenant,
                user_id = %delivery.user_id,
                event_type = delivery.event_type.as_str(),
                outcome = settlement.outcome.as_str(),
                together = exchange.deliveries.len(),
                duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                "a delivery"
            );
        }
        store::settle(&self.engine, &exchange, &told, &each, elapsed, &self.settings).await
    }

    /// What is sent. What is too much for one request is left to others.
    async fn request(&self, exchange: &mut Exchange) -> Result<(Outgoing, Vec<Event>)> {
        let facts = exchange.facts.take().ok_or_else(|| Error::not_found("the agent was removed"))?;
        let mut keys = Vec::with_capacity(facts.secrets.len());
        for (id, sealed) in &facts.secrets {
            keys.push(secret::open(&self.vault, exchange.tenant, &exchange.agent, *id, sealed)?);
        }
        let mut events = envelope::events(&exchange.deliveries, &facts.users);
        let fitting = fitting(&events);
        events.truncate(fitting);
        let left = exchange.deliveries.split_off(fitting);
        if !left.is_empty() {
            store::put_back(&self.engine, &left).await?;
        }
        let request = envelope::request(exchange, &events, &facts.endpoint, &keys, &self.settings)?;
        Ok((request, events))
    }
}

/// How many of the first events go in one request.
fn fitting(events: &[Event]) -> usize {
    let mut bytes = 0;
    let fitting = events.iter().take_while(|event| {
        bytes += event.body.to_string().len();
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}
