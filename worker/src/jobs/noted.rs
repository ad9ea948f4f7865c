//! Noting when schedules ran.

use apalis::prelude::BoxDynError;
use chrono::{DateTime, Utc};
use shared::{jobs::SCHEDULES, queues};
use sqlx::PgPool;

/// Notes a run of a schedule's task. That it cannot is logged and nothing else: it is for people who look.
pub(super) async fn note(
    engine: &PgPool,
    task: &str,
    started_at: DateTime<Utc>,
    error: Option<&BoxDynError>,
) {
    let Some(schedule) = SCHEDULES.iter().find(|schedule| schedule.task == task) else { return };
    let error = error.map(ToString::to_string);
    let noted = queues::note_run(engine, schedule.task, schedule.queue, started_at, error.as_deref());
    if let Err(error) = noted.await {
        tracing::warn!(task, error = &error as &dyn std::error::Error, "a run was not noted");
    }
}
