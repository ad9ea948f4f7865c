//! Cron: every process ticks, and a key per tick lets exactly one ticket in. A job asks "what is due?" rather than doing
//! this tick's share, so a tick that everybody missed is caught up by the next.

use std::time::Duration;

use chrono::Utc;
use shared::jobs::{AGENT_DELIVERIES, CONNECTION_REFRESH, MAINTENANCE};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::queues::Queue;

/// A task of a queue and how often it is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) queue: &'static str,
    pub(crate) task: &'static str,
    pub(crate) every: Duration,
}

/// Every schedule, sorted by task.
pub(crate) const SCHEDULES: &[Schedule] = &[
    Schedule { queue: MAINTENANCE, task: "agents", every: Duration::from_secs(60) },
    Schedule { queue: CONNECTION_REFRESH, task: "connections", every: Duration::from_secs(60) },
    Schedule { queue: MAINTENANCE, task: "deleted-tenants", every: Duration::from_secs(60) },
    Schedule { queue: AGENT_DELIVERIES, task: "deliver", every: Duration::from_secs(30) },
    Schedule { queue: MAINTENANCE, task: "header-secrets", every: Duration::from_secs(3600) },
    Schedule { queue: MAINTENANCE, task: "mcp-servers", every: Duration::from_secs(60) },
    Schedule { queue: MAINTENANCE, task: "partitions", every: Duration::from_secs(3600) },
    Schedule { queue: MAINTENANCE, task: "retention", every: Duration::from_secs(300) },
    Schedule { queue: MAINTENANCE, task: "search", every: Duration::from_secs(30) },
    Schedule { queue: MAINTENANCE, task: "tickets", every: Duration::from_secs(60) },
];

/// Writes the tickets of all schedules until stopped; the first of each at once, which catches up a missed tick.
pub(crate) async fn tick(engine: PgPool, queues: Vec<Queue>, stopping: CancellationToken) {
    let mut last: Vec<i64> = vec![0; SCHEDULES.len()];
    loop {
        let now = Utc::now().timestamp();
        let mut next = i64::MAX;
        for (schedule, last) in SCHEDULES.iter().zip(&mut last) {
            let every = i64::try_from(schedule.every.as_secs()).unwrap_or(i64::MAX);
            let due = now / every;
            next = next.min((due + 1) * every);
            if *last == due {
                continue;
            }
            match crate::jobs::store::push_tick(&engine, schedule.queue, schedule.task, due).await {
                Ok(mine) => {
                    *last = due;
                    if mine && let Some(queue) = queues.iter().find(|queue| queue.name == schedule.queue) {
                        queue.told.notify_one();
                    }
                }
                Err(error) => {
                    tracing::warn!(task = schedule.task, error = %error, "a tick was not written; trying again");
                    next = now + 2;
                }
            }
        }
        let wait = u64::try_from((next - Utc::now().timestamp()).clamp(1, 3600)).unwrap_or(1);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
            () = stopping.cancelled() => return,
        }
    }
}
