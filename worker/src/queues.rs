//! The queues, each an apalis worker that this process drives itself: one backend error must not drop what is under way,
//! so the worker's stream is polled to its end and the worker is built anew.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::*;
use apalis_sql::{Config as QueueConfig, PostgresStorage};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use shared::{
    jobs::{
        AGENT_DELIVERIES, CHAT_TURNS, CONNECTION_REFRESH, EMBEDDINGS, MAINTENANCE, MaintenanceTicket,
        RefreshTicket,
    },
    switches::Switches,
};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use crate::{
    jobs::{self, Upkeep},
    wake::Wake,
};

/// Heartbeat of queues with short handlers; a dead process's tickets come back after five of them.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// What a queue's handler works with.
#[derive(Clone)]
pub(crate) struct Handling {
    /// Tells the supervisor to claim turns.
    pub(crate) claim: Arc<Notify>,
    pub(crate) upkeep: Upkeep,
    pub(crate) switches: Switches,
    /// Makes the queue fetch again.
    pub(crate) told: Arc<Notify>,
}

/// One queue of this process.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) name: &'static str,
    /// Tickets fetched at once, which are worked on at once.
    batch: usize,
    /// The least time between two fetches.
    quiet: Duration,
    slow: Duration,
    /// Told when the queue may have work.
    pub(crate) told: Arc<Notify>,
}

/// Every queue that this process works on.
pub(crate) fn queues() -> Vec<Queue> {
    vec![
        Queue {
            name: AGENT_DELIVERIES,
            batch: 1,
            quiet: Duration::from_millis(100),
            slow: Duration::from_secs(30),
            told: Arc::default(),
        },
        // The bell claims turns at once; tickets are the guarantee behind it and are collected in batches.
        Queue {
            name: CHAT_TURNS,
            batch: 256,
            quiet: Duration::from_millis(500),
            slow: Duration::from_secs(30),
            told: Arc::default(),
        },
        Queue {
            name: CONNECTION_REFRESH,
            batch: 8,
            quiet: Duration::from_millis(100),
            slow: Duration::from_secs(30),
            told: Arc::default(),
        },
        Queue {
            name: EMBEDDINGS,
            batch: 1,
            quiet: Duration::from_millis(100),
            slow: Duration::from_secs(30),
            told: Arc::default(),
        },
        Queue {
            name: MAINTENANCE,
            batch: 1,
            quiet: Duration::from_millis(100),
            slow: Duration::from_secs(30),
            told: Arc::default(),
        },
    ]
}

/// Works on a queue until stopped; rebuilds the worker whenever its backend failed. While the queue is paused there is none:
/// what it was working on is finished, what it had fetched beside goes back.
pub(crate) async fn drive(queue: Queue, pool: PgPool, handling: Handling, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        tokio::select! {
            () = handling.switches.until_running(queue.name) => {}
            () = stopping.cancelled() => return,
        }
        let context =
            WorkerContext::new(&format!("{}-{}-{}", queue.name, std::process::id(), Ulid::generate()));
        let config = QueueConfig::default()
            .queue(queue.name)
            .batch_size(queue.batch)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(5);
        let backend = PostgresStorage::<Value>::new(&pool).with_config(config).poll_with_strategy(Wake::new(
            Arc::clone(&queue.told),
            queue.quiet,
            queue.slow,
        ));
        let worker = WorkerBuilder::new(&context)
            .backend(backend)
            .data(handling.clone())
            .concurrency(queue.batch)
            .build(handle);
        let mut events = Box::pin(worker.stream());
        let mut failed = false;
        loop {
            let event = tokio::select! {
                // A backend that lost its connection in the midst of something may panic while it is drained; that must not be
                // the end of the queue.
                event = AssertUnwindSafe(events.next()).catch_unwind() => event.unwrap_or_else(|_| {
                    tracing::warn!(queue = queue.name, "the queue's worker panicked; it is rebuilt");
                    None
                }),
                () = stopping.cancelled(), if !failed => {
                    failed = true;
                    let _ = context.stop();
                    continue;
                }
                () = handling.switches.until_paused(queue.name), if !failed => {
                    tracing::info!(queue = queue.name, "the queue is paused");
                    failed = true;
                    let _ = context.stop();
                    continue;
                }
            };
            match event {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(queue = queue.name, error = %error, "the queue's backend failed; its worker is rebuilt");
                    failed = true;
                    // Otherwise the stream waits for ever after the drain.
                    let _ = context.stop();
                }
                None => break,
            }
        }
        drop(events);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn handle(ticket: Value, queue: Data<Handling>) -> Result<(), BoxDynError> {
    // There may be more: otherwise what one fetch leaves behind waits for the next bell or the slow timer.
    queue.told.notify_one();
    if ticket.get("turn").is_some() {
        // Which turn it was written for does not matter: the process claims what is ready.
        queue.claim.notify_one();
        return Ok(());
    }
    if ticket.get("compact").is_some() {
        return jobs::compact_guarded(ticket, &queue.upkeep).await;
    }
    if ticket.get("connection").is_some() {
        let outcome = match serde_json::from_value::<RefreshTicket>(ticket) {
            Ok(ticket) => jobs::refresh::run(ticket, &queue.upkeep.connections).await,
            Err(error) => Err(AbortError::new(error).into()),
        };
        // Of several tickets at once, an outcome is written with the next poll.
        queue.told.notify_one();
        return outcome;
    }
    match serde_json::from_value::<MaintenanceTicket>(ticket) {
        Ok(ticket) => {
            let outcome = jobs::run_scheduled(&ticket.task, &queue.upkeep).await;
            // It may have written tickets of its own queue.
            queue.told.notify_one();
            outcome
        }
        Err(error) => Err(AbortError::new(error).into()),
    }
}
