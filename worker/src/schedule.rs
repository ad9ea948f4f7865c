//! Cron: every process ticks, and a key per tick lets exactly one ticket in. A job asks "what is due?" rather than doing
//! this tick's share, so a tick that everybody missed is caught up by the next.

use std::time::Duration;

use chrono::Utc;
use shared::{jobs::SCHEDULES, switches::Switches};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::queues::Queue;

/// Writes the tickets of all schedules until stopped; the first of each at once, which catches up a missed tick. Those of a
/// queue that is paused pile up nowhere: the first after it goes on does their work.
pub(crate) async fn tick(
    engine: PgPool,
    queues: Vec<Queue>,
    switches: Switches,
    stopping: CancellationToken,
) {
    let mut last: Vec<i64> = vec![0; SCHEDULES.len()];
    loop {
        let now = Utc::now();
        let mut next = i64::MAX;
        for (schedule, last) in SCHEDULES.iter().zip(&mut last) {
            let due = schedule.tick_at(now);
            next = next.min(schedule.next_after(now).timestamp());
            if *last == due || switches.is_paused(schedule.queue) {
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
                    next = now.timestamp() + 2;
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
