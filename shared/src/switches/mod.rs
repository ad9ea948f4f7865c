//! What operators switch while processes run: queues that are paused, and feature flags. Each process keeps a copy, which it
//! reads again when the bell says so and, should a bell be lost, every 15 seconds.
//!
//! Invariant: asking costs a read of memory. While the tables have not been read, nothing is paused and every flag is on.

mod store;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    bell::{Bell, Heard},
    flags::Flag,
};

/// How old the copy may get without a bell.
const READ_AGAIN: Duration = Duration::from_secs(15);
/// The pause after a failed read.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What was read last.
#[derive(Debug, Default, PartialEq)]
struct Known {
    has_been_read: bool,
    paused: Vec<String>,
    flags: Vec<Flag>,
}

/// A process's copy.
#[derive(Clone)]
pub struct Switches(watch::Receiver<Arc<Known>>);

impl Switches {
    /// Keeps a copy until stopped. The bell must hear [`Channel::Switches`](crate::bell::Channel::Switches).
    #[must_use]
    pub fn start(engine: PgPool, bell: &Bell, stopping: CancellationToken) -> Self {
        let (tell, copy) = watch::channel(Arc::default());
        let hearing = bell.subscribe();
        tokio::spawn(stopping.run_until_cancelled_owned(keep(engine, hearing, tell)));
        Self(copy)
    }

    /// As long as nobody has read the tables: nothing is paused and every flag is on. For programs that no operator switches.
    #[must_use]
    pub fn untouched() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// Whether a queue stands still.
    #[must_use]
    pub fn is_paused(&self, queue: &str) -> bool {
        self.0.borrow().paused.iter().any(|paused| paused == queue)
    }

    /// Whether a flag is on for this subject: a user's id, an agent's or a server's name.
    #[must_use]
    pub fn is_on(&self, flag: &str, subject: &str) -> bool {
        self.0
            .borrow()
            .flags
            .iter()
            .find(|known| known.name == flag)
            .is_none_or(|flag| flag.is_on_for(subject))
    }

    /// Waits until a queue is known to run.
    pub async fn until_running(&self, queue: &str) {
        self.until(|known| known.has_been_read && !known.paused.iter().any(|paused| paused == queue)).await;
    }

    /// Waits until a queue stands still.
    pub async fn until_paused(&self, queue: &str) {
        self.until(|known| known.paused.iter().any(|paused| paused == queue)).await;
    }

    /// Waits for ever once nobody keeps the copy.
    async fn until(&self, mut is_so: impl FnMut(&Known) -> bool) {
        if self.0.clone().wait_for(|known| is_so(known)).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn keep(engine: PgPool, mut hearing: crate::bell::Hearing, tell: watch::Sender<Arc<Known>>) {
    let mut failed = false;
    loop {
        let pause = match store::read(&engine).await {
            Ok((paused, flags)) => {
                failed = false;
                let read = Known { has_been_read: true, paused, flags };
                tell.send_if_modified(|copy| {
                    let is_new = **copy != read;
                    if is_new {
                        *copy = Arc::new(read);
                    }
                    is_new
                });
                READ_AGAIN
            }
            Err(error) => {
                if !failed {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "switches could not be read; trying again");
                }
                failed = true;
                TRY_AGAIN
            }
        };
        let told = async { while !matches!(hearing.next().await, Heard::Switches | Heard::Reconnected) {} };
        // Elapsed or told: it is read again.
        let _ = tokio::time::timeout(pause, told).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bell::{Channel, Ring},
        flags::{self, CIRCUIT_BREAKER_ENABLED},
        identity::{Actor, Role, Scopes},
        ids::{TenantId, UserId},
        tenancy::OperatorActor,
        testing::TestDb,
    };

    #[tokio::test]
    async fn every_process_hears_of_a_switch_and_one_that_missed_it_reads_it_again() {
        let db = TestDb::new().await;
        let stop = CancellationToken::new();
        let bells = [0, 1].map(|_| Bell::start(db.listen(), &db.engine, &[Channel::Switches]));
        let processes = [0, 1].map(|at| Switches::start(db.engine.clone(), &bells[at], stop.clone()));
        for switches in &processes {
            switches.until_running("maintenance").await;
            assert!(switches.is_on(CIRCUIT_BREAKER_ENABLED, "risk") && switches.is_on("UNKNOWN", "risk"));
        }
        let operator = Actor {
            tenant: TenantId::generate(),
            user: UserId::generate(),
            role: Role::Admin,
            operator: true,
            scopes: Scopes::ALL,
            timezone: "UTC".to_owned(),
        };
        let operator = OperatorActor::of(operator).unwrap();
        flags::set(&db.engine, &bells[0], &operator, CIRCUIT_BREAKER_ENABLED, false, 100).await.unwrap();
        sqlx::query(
            "update queues set paused_at = now(), paused_by = gen_random_uuid() where name = 'maintenance'",
        )
        .execute(&db.engine)
        .await
        .unwrap();
        bells[1].ring(Ring::Switches);
        let begun = tokio::time::Instant::now();
        for switches in &processes {
            switches.until_paused("maintenance").await;
            assert!(!switches.is_on(CIRCUIT_BREAKER_ENABLED, "risk"));
        }
        assert!(begun.elapsed() < READ_AGAIN, "nobody heard the bell");
        stop.cancel();
    }
}
