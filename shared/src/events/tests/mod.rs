//! The event log over a real Postgres: what is appended is what is followed, whatever happens in between.

mod appending;
mod following;
mod store;

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::timeout;

use super::*;
use crate::{
    bell::{Bell, Channel},
    testing::TestDb,
};

/// A database with an appender and a hub over it.
struct Stage {
    db: TestDb,
    admin: PgPool,
    bell: Bell,
    log: EventLog,
    hub: Hub,
    tenant: TenantId,
}

impl Stage {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let channels = &[Channel::Events, Channel::Turns, Channel::Cancel];
        let bell = Bell::start(db.listen(), &db.engine, channels);
        let log = EventLog::start(db.engine.clone(), bell.clone());
        let hub = Hub::start(db.engine.clone(), bell.clone());
        Self { admin: db.admin(), bell, log, hub, tenant: TenantId::generate(), db }
    }

    /// A running turn, open for appending after its first event.
    async fn turn(&self) -> (Lease, TurnLog) {
        let lease = store::running_turn(&self.admin, self.tenant).await;
        (lease, self.log.open(lease, 2, 5))
    }

    fn follow(&self, lease: Lease, after: i64) -> Follower {
        self.hub.follow(lease.tenant, lease.turn, after)
    }
}

/// Everything until `done`, as bytes on the wire.
async fn transcript(mut follower: Follower) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let events = soon(follower.next()).await;
        if events.is_empty() {
            return bytes;
        }
        events.iter().for_each(|event| bytes.extend_from_slice(&event.frame(1)));
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), wait).await.expect("this should not take 30 s")
}

async fn append_tokens(log: &TurnLog, from: usize, count: usize) {
    for n in from..from + count {
        log.append(EventKind::Token, data::token(&format!("w{n} "))).await.unwrap();
    }
}

async fn finish(log: &TurnLog) {
    log.append(EventKind::Done, data::done("succeeded", 1, 2)).await.unwrap();
    log.flushed().await.unwrap();
}
