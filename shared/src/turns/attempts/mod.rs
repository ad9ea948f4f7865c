//! Taking turns to run them, and giving them back. A claim writes a fresh random lease; a process is alive as long as
//! its row says so by the database's clock.

mod store;

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::{TurnError, Turns, ending::Ending, store as turn_store};
use crate::{
    bell::Ring,
    error::Result,
    events::Lease,
    identity::Actor,
    ids::{ConversationId, ItemUid, ProcessId, SessionId, TurnId},
    jobs,
};

/// A process that runs turns, as registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub ProcessId);

/// How many turns to claim, and of which sort.
#[derive(Debug, Clone, Copy)]
pub struct Claiming {
    /// At most so many.
    pub limit: i64,
    /// Only turns that killed processes before and now run alone; otherwise only the others.
    pub solo: bool,
}

/// A turn that this process runs now.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub lease: Lease,
    pub actor: Actor,
    pub conversation: ConversationId,
    pub chat: ItemUid,
    pub session: SessionId,
    pub turn_no: i64,
    pub slot: i64,
    /// Failed runs before this one.
    pub attempts: i64,
    pub max_attempts: i64,
    pub takeovers: i64,
    /// How long earlier attempts ran, all together.
    pub ran: Duration,
    /// The last event in the log.
    pub last_seq: i64,
    /// Where this attempt's ids start.
    pub next_seq: i64,
    /// The lease was taken from a holder that may have issued ids that never arrived.
    pub taken: bool,
    /// Since the turn was created, by the database's clock.
    pub elapsed_ms: i64,
    pub cancel_requested: bool,
    pub cancel_reason: Option<String>,
    pub request_id: String,
    pub force_refresh: bool,
    /// Ready turns that only a solo process may take were seen.
    pub created_at: chrono::DateTime<chrono::Utc>,
}

impl Claimed {
    /// Nobody ran this turn before: it has no steps.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.last_seq <= 1 && !self.taken && self.ran.is_zero()
    }
}

/// Why a turn is given back unfinished.
#[derive(Debug, Clone)]
pub enum Released {
    /// The process stops; this uses no attempt.
    HandOver,
    /// The run failed with an error that another try may mend.
    Failed(TurnError),
}

impl Turns {
    /// Registers a process under a name of its own; a name is never used twice.
    ///
    /// # Errors
    /// The database's.
    pub async fn register_process(&self, host: &str) -> Result<Process> {
        let process = Process(ProcessId::generate());
        store::register(&self.engine, process.0, host, i64::from(std::process::id())).await?;
        Ok(process)
    }

    /// Says that the process lives, on a pool that no work waits in front of. False: it was declared dead, and
    /// everything it held is somebody else's.
    ///
    /// # Errors
    /// The database's.
    pub async fn heartbeat(&self, pulse: &PgPool, process: Process) -> Result<bool> {
        store::heartbeat(pulse, process.0).await
    }

    /// Removes the row of a process that holds nothing any more.
    ///
    /// # Errors
    /// The database's.
    pub async fn unregister_process(&self, process: Process) -> Result<()> {
        store::unregister(&self.engine, process.0).await
    }

    /// Takes ready turns in claim order.
    ///
    /// # Errors
    /// The database's. When the reply was lost, the claimed turns belong to this process without its knowing; see
    /// [`Turns::forgotten`].
    pub async fn claim(&self, process: Process, claiming: Claiming) -> Result<Vec<Claimed>> {
        store::claim(&self.engine, process.0, claiming).await
    }

    /// Gives back what the database says this process runs and it does not know of: the reply to a claim was lost.
    ///
    /// # Errors
    /// The database's.
    pub async fn forgotten(&self, process: Process, known: &[TurnId]) -> Result<u64> {
        let freed = store::forget(&self.engine, process.0, known).await?;
        if freed > 0 {
            self.bell.ring(Ring::Work);
        }
        Ok(freed)
    }

    /// Whether turns wait for a process of their own.
    ///
    /// # Errors
    /// The database's.
    pub async fn solo_waiting(&self) -> Result<bool> {
        store::solo_waiting(&self.engine).await
    }

    /// Gives a turn back. After a failure it is tried again later, or is dead when its attempts are used up. False:
    /// the lease was lost.
    ///
    /// # Errors
    /// The database's.
    pub async fn release(&self, claimed: &Claimed, released: Released) -> Result<bool> {
        let turn = claimed.lease.turn;
        match released {
            Released::HandOver => {
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                let held = store::hand_back(&mut tx, &claimed.lease).await?;
                if held {
                    jobs::push_turn(tx.connection(), turn).await?;
                }
                tx.commit().await?;
                self.bell.ring(Ring::Work);
                Ok(held)
            }
            Released::Failed(error) if claimed.attempts + 1 >= claimed.max_attempts => {
                tracing::error!(turn_id = %turn, error_code = error.code.as_str(), "a turn has used up its attempts");
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                turn_store::lock_conversation(&mut tx, claimed.conversation).await?;
                if !store::count_attempt(&mut tx, &claimed.lease).await? {
                    return Ok(false);
                }
                let ended = super::cancel::end_given_up(&mut tx, turn, Ending::dead(error)).await?;
                tx.commit().await?;
                self.after_end(&claimed.actor, turn, ended).await;
                Ok(true)
            }
            Released::Failed(_) => {
                let delay = backoff(self.settings.retry_base, claimed.attempts);
                let mut tx = self.tenants.begin(&claimed.actor).await?;
                let held = store::retry_later(&mut tx, &claimed.lease, delay).await?;
                if held {
                    jobs::push_turn_later(tx.connection(), turn, delay).await?;
                }
                tx.commit().await?;
                Ok(held)
            }
        }
    }

    /// Why the turn is to be cancelled, in the words of whoever asked.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel_reason(&self, claimed: &Claimed) -> Result<Option<String>> {
        store::cancel_reason(&self.engine, &claimed.lease).await
    }

    /// How long a failed turn waits before its next attempt.
    #[must_use]
    pub fn retry_delay(&self, claimed: &Claimed) -> Duration {
        backoff(self.settings.retry_base, claimed.attempts)
    }
}

fn backoff(base: Duration, failures: i64) -> Duration {
    let doublings = u32::try_from(failures.clamp(0, 10)).unwrap_or(0);
    base.saturating_mul(1 << doublings).min(Duration::from_secs(60))
}

pub(super) fn fresh_lease() -> Uuid {
    Uuid::new_v4()
}
