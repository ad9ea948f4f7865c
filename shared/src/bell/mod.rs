//! The bell.
use crate::ids::{ConversationId, TenantId, TurnId};
use sqlx::{PgPool, postgres::PgConnectOptions};
use std::sync::Arc;

/// What a process listens to.
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
}

/// Something to tell the other processes, after the commit that made it true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// The turn's log reaches to `tail`.
    Events { tenant: TenantId, turn: TurnId, tail: i64 },
    /// The conversation has a turn of this number.
    Turn { tenant: TenantId, conversation: ConversationId, turn_no: i64 },
    /// There is something to claim.
    Work,
    /// Cancel was asked of this turn.
    Cancel(TurnId),
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
    /// The connection was new or deaf, or the listener fell behind: anything may have been missed, so look.
    Reconnected,
}

/// A process's bell.
#[derive(Clone)]
pub struct Bell {}
/// One listener's end.
pub struct Hearing {}

impl Bell {
    /// Starts the listening and the ringing task.
    #[must_use]
    pub fn start(_listen: PgConnectOptions, _engine: PgPool, _channels: &[Channel]) -> Self {
        unimplemented!()
    }
    /// Rings; never blocks.
    pub fn ring(&self, _ring: Ring) {
        unimplemented!()
    }
    /// Hears everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> Hearing {
        unimplemented!()
    }
}
impl Hearing {
    /// The next thing heard. Waits for ever once the bell is gone. Cancel-safe.
    pub async fn next(&mut self) -> Heard {
        unimplemented!()
    }
}
