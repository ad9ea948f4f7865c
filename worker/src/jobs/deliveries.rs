//! The queue `agent-deliveries`. What is to be delivered stands in the deliveries' own table and is claimed there: as soon as a
//! bell tells of it, and by the schedule's ticket when a bell was lost. A ticket that is lost, doubled or stolen does no harm.

use std::{sync::Arc, time::Duration};

use shared::{Error, agents::deliveries::Deliverer, jobs::AGENT_DELIVERIES, switches::Switches};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A delivery that is due within this time is waited for; a later one is found by the schedule.
const PATIENCE: Duration = Duration::from_secs(30);
/// The least pause between two looks at what others may be busy with.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after the database failed.
const RECOVERY: Duration = Duration::from_secs(1);

/// Delivers what is due, and what soon will be.
#[derive(Clone)]
pub(crate) struct Deliveries {
    deliverer: Deliverer,
    /// Tells that something may be due.
    told: Arc<Notify>,
    stopping: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(deliverer: Deliverer, told: Arc<Notify>, stopping: CancellationToken) -> Self {
        Self { deliverer, told, stopping }
    }

    /// A ticket's work: to have it looked whether something is due, whoever should have told of it.
    pub(crate) fn look(&self) {
        self.told.notify_one();
    }

    /// Delivers whenever it is told that something may be due, and again what failed, until the worker stops. A bell makes no
    /// ticket: one for each sign-in would cost several times what the sign-in does.
    pub(crate) async fn when_told(self, switches: Switches) {
        // What a process that died had claimed is looked for at once.
        self.told.notify_one();
        let mut wait = None;
        loop {
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = self.stopping.cancelled() => return,
            }
            tokio::select! {
                () = switches.until_running(AGENT_DELIVERIES) => {}
                () = self.stopping.cancelled() => return,
            }
            wait = self.until_none_is_due().await.unwrap_or_else(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "agents could not be told; trying again");
                Some(RECOVERY)
            });
        }
    }

    /// Answers how long until a next one is due, while that is soon. A sign-in of which nobody is told costs one question.
    async fn until_none_is_due(&self) -> Result<Option<Duration>, Error> {
        loop {
            match self.deliverer.next_due().await? {
                Some(wait) if wait.is_zero() => {
                    if self.deliverer.run(&self.told, &self.stopping).await? == 0 {
                        return Ok(Some(PAUSE));
                    }
                }
                wait => return Ok(wait.filter(|wait| *wait <= PATIENCE)),
            }
        }
    }

    /// Makes dead what could not be delivered within a day.
    pub(crate) async fn give_up_old(&self) -> Result<u64, Error> {
        self.deliverer.give_up_old().await
    }
}
