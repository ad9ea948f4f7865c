//! The hub.
use crate::{
    bell::Bell,
    events::Event,
    ids::{ConversationId, TenantId, TurnId},
};
use sqlx::PgPool;
use std::{sync::Arc, time::Instant};

/// Reads for all followers of a process.
#[derive(Clone)]
pub struct Hub {}
/// Somebody who follows a turn.
pub struct Follower {}
/// Somebody who waits for the next turn of a conversation.
pub struct TurnPosted {}

impl Hub {
    /// Starts the hub's tasks.
    #[must_use]
    pub fn start(_engine: PgPool, _bell: Bell) -> Self {
        unimplemented!()
    }
    /// Follows a turn from after this event (0 for all). Authorise first: the hub reads as the engine.
    #[must_use]
    pub fn follow(&self, _tenant: TenantId, _turn: TurnId, _after_seq: i64) -> Follower {
        unimplemented!()
    }
    /// Watches for turns posted to a conversation.
    #[must_use]
    pub fn turn_posted(&self, _tenant: TenantId, _conversation: ConversationId) -> TurnPosted {
        unimplemented!()
    }
    /// Since when the database has not answered, if it does not.
    #[must_use]
    pub fn trouble_since(&self) -> Option<Instant> {
        unimplemented!()
    }
}
impl Follower {
    /// The next events in order, never empty; waits for them. Empty after `done` was given. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Arc<Event>> {
        unimplemented!()
    }
    /// Id of the last event given.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        unimplemented!()
    }
}
impl TurnPosted {
    /// The latest turn number known, 0 before the first look.
    #[must_use]
    pub fn latest(&self) -> i64 {
        unimplemented!()
    }
    /// Waits until the conversation's latest turn is above `turn_no`, and answers it. Cancel-safe.
    pub async fn after(&mut self, _turn_no: i64) -> i64 {
        unimplemented!()
    }
}
