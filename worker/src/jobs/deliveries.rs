//! The queue `agent-deliveries`: a ticket says that something may be due. What it is stands in the deliveries' own table, so a
//! ticket that is lost, doubled or stolen does no harm.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{Error, agents::deliveries::Deliverer, jobs::AGENT_DELIVERIES, switches::Switches};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A delivery that is due within this time is waited for; a later one is found by the schedule.
const PATIENCE: Duration = Duration::from_secs(30);
/// The least pause between two looks at what others may be busy with.
const PAUSE: Duration = Duration::from_millis(50);
/// A ticket is worked on for so long at most, well within the guard's limit.
const AT_MOST: Duration = Duration::from_secs(180);

/// Delivers what is due, and what soon will be.
#[derive(Clone)]
pub(crate) struct Deliveries {
    deliverer: Deliverer,
    /// One handler of this process waits for what is due later; the others leave that to it.
    waiting: Arc<AtomicBool>,
    /// Tells it that something may be due sooner.
    sooner: Arc<Notify>,
    stopping: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(deliverer: Deliverer, stopping: CancellationToken) -> Self {
        Self { deliverer, waiting: Arc::default(), sooner: Arc::default(), stopping }
    }

    pub(crate) async fn run(&self) -> Result<(), Error> {
        let begun = tokio::time::Instant::now();
        loop {
            self.deliverer.run(&self.stopping).await?;
            let wait = match self.deliverer.next_due().await? {
                Some(wait) if wait <= PATIENCE && begun.elapsed() + wait < AT_MOST => wait.max(PAUSE),
                _ => return Ok(()),
            };
            if self.stopping.is_cancelled() {
                return Ok(());
            }
            if self.waiting.swap(true, Ordering::SeqCst) {
                self.sooner.notify_one();
                return Ok(());
            }
            let _waits = Waits(&self.waiting);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.sooner.notified() => {}
                () = self.stopping.cancelled() => return Ok(()),
            }
        }
    }

    /// Makes dead what could not be delivered within a day.
    pub(crate) async fn give_up_old(&self) -> Result<u64, Error> {
        self.deliverer.give_up_old().await
    }
}

/// Ends the waiting, also when the handler is dropped in the midst of it.
struct Waits<'a>(&'a AtomicBool);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Writes a ticket whenever a bell told that agents are to be told, and has the queue fetch it.
pub(crate) async fn when_told(
    engine: PgPool,
    due: Arc<Notify>,
    queue: Arc<Notify>,
    switches: Switches,
    stopping: CancellationToken,
) {
    // What a process that died had claimed is looked for at once.
    due.notify_one();
    loop {
        tokio::select! {
            () = due.notified() => {}
            () = stopping.cancelled() => return,
        }
        // While the queue is paused its tickets would only pile up.
        tokio::select! {
            () = switches.until_running(AGENT_DELIVERIES) => {}
            () = stopping.cancelled() => return,
        }
        // Each bell a ticket of its own: the one before may have been worked on just before this commit.
        match super::store::push_tick(&engine, AGENT_DELIVERIES, "deliver", rand::random()).await {
            Ok(_) => queue.notify_one(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a ticket for deliveries was not written; the schedule's finds them"
                );
            }
        }
    }
}
