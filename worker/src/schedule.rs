//! Cron: every process ticks, and a key per tick lets exactly one ticket in. A job asks "what is due?" rather than doing
//! this tick's share, so a tick that everybody missed is caught up by the next.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A task of the maintenance queue and how often it is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) task: &'static str,
    pub(crate) every: Duration,
}

/// Every schedule, sorted by task.
pub(crate) const SCHEDULES: &[Schedule] = &[
    Schedule { task: "deleted-tenants", every: Duration::from_secs(60) },
    Schedule { task: "header-secrets", every: Duration::from_secs(3600) },
    Schedule { task: "partitions", every: Duration::from_secs(3600) },
    Schedule { task: "retention", every: Duration::from_secs(300) },
    Schedule { task: "search", every: Duration::from_secs(30) },
    Schedule { task: "tickets", every: Duration::from_secs(60) },
];

/// Writes the tickets of all schedules until stopped; the first of each at once, which catches up a missed tick.
pub(crate) async fn tick(engine: PgPool, maintenance: Arc<Notify>, stopping: CancellationToken) {
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
            match crate::jobs::store::push_tick(&engine, schedule.task, due).await {
                Ok(mine) => {
                    *last = due;
                    if mine {
                        maintenance.notify_one();
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
