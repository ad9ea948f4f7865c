//! Noting when schedules ran. Queues have tickets beside their schedule's, many a second perhaps, so that a run that went as the
//! one before is noted now and then only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apalis::prelude::BoxDynError;
use chrono::{DateTime, Utc};
use shared::{jobs::SCHEDULES, queues};
use sqlx::PgPool;
use tokio::time::Instant;

/// The least time between two notes of the same.
const PAUSE: Duration = Duration::from_secs(5);

/// What was noted last, by task: when, and whether the run failed.
#[derive(Clone, Default)]
pub(crate) struct Noted(Arc<Mutex<HashMap<&'static str, (Instant, bool)>>>);

impl Noted {
    /// Notes a run. That it cannot is logged and nothing else: it is for people who look.
    pub(super) async fn note(
        &self,
        engine: &PgPool,
        task: &str,
        started_at: DateTime<Utc>,
        error: Option<&BoxDynError>,
    ) {
        let Some(schedule) = SCHEDULES.iter().find(|schedule| schedule.task == task) else { return };
        if !self.is_news(schedule.task, error.is_some()) {
            return;
        }
        let error = error.map(ToString::to_string);
        let noted = queues::note_run(engine, schedule.task, schedule.queue, started_at, error.as_deref());
        if let Err(error) = noted.await {
            tracing::warn!(task, error = &error as &dyn std::error::Error, "a run was not noted");
        }
    }

    fn is_news(&self, task: &'static str, has_failed: bool) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            noted.get(task).is_some_and(|(at, had_failed)| at.elapsed() < PAUSE && *had_failed == has_failed);
        if !is_known {
            noted.insert(task, (Instant::now(), has_failed));
        }
        !is_known
    }
}
