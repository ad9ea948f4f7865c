//! The ringing task: merges what is rung while a NOTIFY is under way into the next.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{CachePlace, Channel, Ring, Shared, payload::Packer, store};
use crate::{
    db::OwnConnection,
    error::{Error, Result},
    ids::{ConversationId, TenantId, TurnId, UserId},
};

/// What waits to be rung. Bounded by the number of turns and conversations that something happens to.
#[derive(Default)]
pub(super) struct Pending {
    events: HashMap<(TenantId, TurnId), i64>,
    turns: HashMap<(TenantId, ConversationId), i64>,
    cancels: HashSet<TurnId>,
    changes: HashSet<TenantId>,
    outdated: HashSet<CachePlace>,
    contexts: HashMap<(TenantId, UserId), i64>,
    work: bool,
    deliveries: bool,
    switches: bool,
    echo: bool,
    /// A NOTIFY is under way.
    sending: bool,
}

impl Pending {
    pub(super) fn add(&mut self, ring: Ring) {
        match ring {
            Ring::Events { tenant, turn, tail } => {
                let latest = self.events.entry((tenant, turn)).or_insert(tail);
                *latest = tail.max(*latest);
            }
            Ring::Turn { tenant, conversation, turn_no } => {
                let latest = self.turns.entry((tenant, conversation)).or_insert(turn_no);
                *latest = turn_no.max(*latest);
            }
            Ring::Work => self.work = true,
            Ring::Deliveries => self.deliveries = true,
            Ring::Switches => self.switches = true,
            Ring::Context { tenant, user, version } => {
                let latest = self.contexts.entry((tenant, user)).or_insert(version);
                *latest = version.max(*latest);
            }
            Ring::Cancel(turn) => {
                self.cancels.insert(turn);
            }
            Ring::Changes(tenant) => {
                self.changes.insert(tenant);
            }
            Ring::Cache(place) => {
                self.outdated.insert(place);
            }
        }
    }

    pub(super) fn add_echo(&mut self) {
        self.echo = true;
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_empty() && !self.sending
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.turns.is_empty()
            && self.cancels.is_empty()
            && self.changes.is_empty()
            && self.outdated.is_empty()
            && self.contexts.is_empty()
            && !self.work
            && !self.deliveries
            && !self.switches
            && !self.echo
    }

    /// Takes everything and leaves a pending set that says a NOTIFY is under way.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self { sending: true, ..Self::default() })
    }

    /// Puts back what could not be sent, unless something later was rung meanwhile.
    fn put_back(&mut self, unsent: Self) {
        for ((tenant, turn), tail) in unsent.events {
            self.add(Ring::Events { tenant, turn, tail });
        }
        for ((tenant, conversation), turn_no) in unsent.turns {
            self.add(Ring::Turn { tenant, conversation, turn_no });
        }
        for ((tenant, user), version) in unsent.contexts {
            self.add(Ring::Context { tenant, user, version });
        }
        self.cancels.extend(unsent.cancels);
        self.changes.extend(unsent.changes);
        self.outdated.extend(unsent.outdated);
        self.work |= unsent.work;
        self.deliveries |= unsent.deliveries;
        self.switches |= unsent.switches;
        // An echo is of use only at its time.
    }

    fn pack(&self, echo: &str) -> (Vec<String>, Vec<String>) {
        let (mut channels, mut payloads) = (Vec::new(), Vec::new());
        // First, so that whoever hears of what came of a write has heard before what the write outdated.
        let mut packer = Packer::new(Channel::Cache.name(), &mut channels, &mut payloads);
        for place in &self.outdated {
            packer.counted(place.tenant, place.owner.simple(), place.server);
        }
        let mut packer = Packer::new(Channel::Contexts.name(), &mut channels, &mut payloads);
        for ((tenant, user), version) in &self.contexts {
            packer.counted(*tenant, user.0.simple(), *version);
        }
        let mut packer = Packer::new(Channel::Cancel.name(), &mut channels, &mut payloads);
        self.cancels.iter().for_each(|turn| packer.bare(turn.0));
        let mut packer = Packer::new(Channel::Events.name(), &mut channels, &mut payloads);
        for ((tenant, turn), tail) in &self.events {
            packer.counted(*tenant, turn.0.simple(), *tail);
        }
        let mut packer = Packer::new(Channel::Turns.name(), &mut channels, &mut payloads);
        for ((tenant, conversation), turn_no) in &self.turns {
            packer.counted(*tenant, conversation.0, *turn_no);
        }
        let mut packer = Packer::new(Channel::Changes.name(), &mut channels, &mut payloads);
        self.changes.iter().for_each(|tenant| packer.bare(tenant.0));
        let bare = [
            (Channel::Work.name(), self.work),
            (Channel::Deliveries.name(), self.deliveries),
            (Channel::Switches.name(), self.switches),
            (echo, self.echo),
        ];
        for (channel, wanted) in bare {
            if wanted {
                channels.push(channel.to_owned());
                payloads.push(String::new());
            }
        }
        (channels, payloads)
    }
}

/// How long a NOTIFY may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>, mut connection: OwnConnection, echo: String) {
    let mut backoff = Duration::ZERO;
    loop {
        shared.wake.notified().await;
        let taken = shared.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sent = if taken.is_empty() { Ok(()) } else { send(&mut connection, &taken, &echo).await };
        let failed = {
            let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.sending = false;
            match sent {
                Ok(()) => None,
                Err(error) => {
                    pending.put_back(taken);
                    Some(error)
                }
            }
        };
        match failed {
            None => {
                backoff = Duration::ZERO;
                shared.settled.notify_waiters();
            }
            Some(error) => {
                if backoff.is_zero() {
                    tracing::warn!(%error, "cannot ring the bell; trying again");
                }
                backoff = (backoff * 2).clamp(Duration::from_millis(50), Duration::from_secs(2));
                tokio::time::sleep(backoff).await;
                shared.wake.notify_one();
            }
        }
    }
}

async fn send(connection: &mut OwnConnection, taken: &Pending, echo: &str) -> Result<()> {
    let (channels, payloads) = taken.pack(echo);
    let notify = async {
        let mut engine = connection.take().await?;
        store::notify(&mut engine, &channels, &payloads).await?;
        connection.keep(engine);
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, notify).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::internal("no answer within 5 s")),
    }
}
