//! The doorbell between processes: one LISTEN connection and one ringing task each.
//!
//! A bell carries ids and a hint of the new tail, never data, and a lost one costs a delay: whoever hears must also
//! look on connect, on [`Heard::Reconnected`] and on a slow timer. It is rung after the commit that made it true, in a
//! statement of its own, because Postgres serialises the commits of transactions that carry a NOTIFY. What is rung
//! while the last NOTIFY is under way goes into the next one, the latest tail of each turn.
//!
//! The bell rings itself every five seconds; two echoes missing mean a connection that is open but deaf.

mod listen;
mod payload;
mod ring;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Notify, broadcast},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{
    db::OwnConnection,
    ids::{ConversationId, TenantId, TurnId, UserId},
};

/// How many notifications a slow hearer may be behind before it is told to look for itself.
const BACKLOG: usize = 1024;

/// What a process listens to. A process hears (and pays for) only what it names at start; it may ring them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Logs grew.
    Events,
    /// Turns were posted.
    Turns,
    /// A turn is ready to be claimed, or a queue has work.
    Work,
    /// A running turn is to be cancelled.
    Cancel,
    /// Items changed.
    Changes,
    /// Cached answers of tools are outdated.
    Cache,
    /// Agents are to be told of something.
    Deliveries,
    /// What operators switch.
    Switches,
    /// What is known of a user changed.
    Contexts,
}

/// Something to tell the other processes, after the commit that made it true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// The turn's log reaches to `tail`.
    Events {
        /// The turn's tenant.
        tenant: TenantId,
        /// The turn.
        turn: TurnId,
        /// Id of its last event.
        tail: i64,
    },
    /// The conversation has a turn of this number.
    Turn {
        /// The conversation's tenant.
        tenant: TenantId,
        /// The conversation.
        conversation: ConversationId,
        /// Number of its latest turn.
        turn_no: i64,
    },
    /// There is something to claim.
    Work,
    /// Cancel was asked of this turn.
    Cancel(TurnId),
    /// Items of this tenant changed, other than by a turn that rings for itself.
    Changes(TenantId),
    /// Cached answers of this place are outdated.
    Cache(CachePlace),
    /// Agents are to be told of something.
    Deliveries,
    /// A queue was paused or goes on, or a feature flag was set.
    Switches,
    /// What is known of this user has this version now.
    Context {
        /// The context's tenant.
        tenant: TenantId,
        /// Whose it is.
        user: UserId,
        /// Its version.
        version: i64,
    },
}

/// Whose answers of which server a cache keeps together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CachePlace {
    /// The tenant; nil for what belongs to the deployment.
    pub tenant: TenantId,
    /// The user or the tenant, or nil.
    pub owner: Uuid,
    /// A hash of the server's name; two servers of one hash only outdate each other.
    pub server: i64,
}

impl CachePlace {
    /// All there is.
    pub const EVERYTHING: Self = Self { tenant: TenantId(Uuid::nil()), owner: Uuid::nil(), server: 0 };
}

/// What was heard.
#[derive(Debug, Clone)]
pub enum Heard {
    /// Logs grew, each to this tail.
    Events(Arc<[(TenantId, TurnId, i64)]>),
    /// Turns were posted: the latest number of each conversation.
    Turns(Arc<[(TenantId, ConversationId, i64)]>),
    /// There is something to claim.
    Work,
    /// Cancel was asked of these turns.
    Cancel(Arc<[TurnId]>),
    /// Items of these tenants changed.
    Changes(Arc<[TenantId]>),
    /// Cached answers of these places are outdated.
    Cache(Arc<[CachePlace]>),
    /// Agents are to be told of something.
    Deliveries,
    /// A queue was paused or goes on, or a feature flag was set.
    Switches,
    /// What is known of these users changed, to this version.
    Contexts(Arc<[(TenantId, UserId, i64)]>),
    /// The connection is new or was deaf, or this hearer fell behind: anything may have been missed, so look.
    Reconnected,
}

/// A process's bell. The tasks end with the last clone.
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

struct Shared {
    pending: std::sync::Mutex<ring::Pending>,
    wake: Notify,
    settled: Notify,
    heard: broadcast::Sender<Heard>,
}

struct Tasks([JoinHandle<()>; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// One hearer's end.
pub struct Hearing(broadcast::Receiver<Heard>);

impl Bell {
    /// Starts the listening task, on a connection of its own that must not go through a transaction-mode pooler, and
    /// the ringing task, on one that it makes as the engine's pool does.
    #[must_use]
    pub fn start(listen: PgConnectOptions, engine: &PgPool, channels: &[Channel]) -> Self {
        let shared = Arc::new(Shared {
            pending: std::sync::Mutex::default(),
            wake: Notify::new(),
            settled: Notify::new(),
            heard: broadcast::channel(BACKLOG).0,
        });
        let echo = payload::echo_channel();
        let ringing = tokio::spawn(ring::run(Arc::clone(&shared), OwnConnection::like(engine), echo.clone()));
        let listening = tokio::spawn(listen::run(Arc::clone(&shared), listen, channels.to_vec(), echo));
        Self { shared, _tasks: Arc::new(Tasks([ringing, listening])) }
    }

    /// Rings; never blocks.
    pub fn ring(&self, ring: Ring) {
        self.shared.ring(|pending| pending.add(ring));
    }

    /// Rings for many at once.
    pub fn ring_all(&self, rings: impl IntoIterator<Item = Ring>) {
        self.shared.ring(|pending| rings.into_iter().for_each(|ring| pending.add(ring)));
    }

    /// Waits until all that was rung has been sent, for a process that is about to end. The caller bounds the wait.
    pub async fn settled(&self) {
        loop {
            let settled = self.shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.shared.is_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Hears everything from now on, of the channels that were named at start.
    #[must_use]
    pub fn subscribe(&self) -> Hearing {
        Hearing(self.shared.heard.subscribe())
    }
}

impl Shared {
    fn ring(&self, add: impl FnOnce(&mut ring::Pending)) {
        add(&mut self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.wake.notify_one();
    }

    fn is_settled(&self) -> bool {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_settled()
    }
}

impl Hearing {
    /// The next thing heard. Waits for ever once the bell is gone. Cancel-safe.
    pub async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(_)) => Heard::Reconnected,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
