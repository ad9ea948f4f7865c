//! Figures of queues. What ended is added up once a minute; what ended since is read beside it, an hour of it at most. What has
//! not ended is measured when somebody asks and the last measure is old, more seldom the longer it takes: so a look at queues
//! with a million jobs costs the system a few hundredths of its time, and whoever looks next to nothing.

mod store;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

pub(super) use self::store::is_worked_on;
use super::{QUEUES, QueueDef, Queues, Status, Viewer};
use crate::{error::Result, ids::TenantId, jobs::SCHEDULES};

/// Upper bounds of the classes that times are counted in, in milliseconds.
const BOUNDS: [f64; 16] = [
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    3_600_000.0,
];
/// A job's end is written before it is committed, and a commit may be as late as this.
const SETTLING: TimeDelta = TimeDelta::seconds(30);
/// How much time one roll-up adds up.
const STEP: TimeDelta = TimeDelta::hours(1);
/// A measure is good for at least so long.
const FRESH: Duration = Duration::from_secs(1);
/// And for so many times as long as it took.
const PACE: u32 = 20;

/// How many jobs of a queue have not ended, and how.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// Could be taken up now.
    pub due: i64,
    /// Since when the oldest of them waits.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Are not due yet.
    pub delayed: i64,
    pub running: i64,
    /// Wait for a person: for an approval, or for an admin who switches an agent on again.
    pub parked: i64,
}

/// How many jobs ended, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub dead: i64,
}

impl Count {
    fn add(&mut self, status: Status, jobs: i64) {
        match status {
            Status::Failed => self.failed += jobs,
            Status::Cancelled => self.cancelled += jobs,
            Status::Dead => self.dead += jobs,
            _ => self.succeeded += jobs,
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> i64 {
        self.succeeded + self.failed + self.cancelled + self.dead
    }
}

/// How times are spread, in milliseconds. Estimated within classes of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// What ended within the last 30 days, and more of the last hour.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub month: Count,
    pub hour: Count,
    /// From a job's making to its start; none when nothing ended within the hour.
    pub wait: Option<Spread>,
    /// From its start to its end.
    pub run: Option<Spread>,
}

/// A queue's figures.
#[derive(Debug, Clone)]
pub struct Line {
    pub queue: &'static QueueDef,
    pub levels: Levels,
    pub totals: Totals,
}

/// A process that works on queues, or one queue's consumer in it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Worker {
    pub id: Uuid,
    pub host: String,
    pub pid: i64,
    pub started_at: DateTime<Utc>,
    /// Its last heartbeat; an idle one beats once a minute.
    pub seen_at: DateTime<Utc>,
    pub dead_at: Option<DateTime<Utc>>,
    /// Turns that it runs.
    pub running_turns: i64,
}

/// A schedule and when it fires.
#[derive(Debug, Clone)]
pub struct Firing {
    pub task: &'static str,
    pub queue: &'static str,
    pub every: Duration,
    pub last: Option<LastRun>,
    pub next_at: DateTime<Utc>,
}

/// The last time that a schedule's task ran.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LastRun {
    task: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub error: Option<String>,
}

/// Who works, and when what by the clock.
#[derive(Debug, Clone)]
pub struct Processes {
    pub workers: Vec<Worker>,
    pub schedules: Vec<Firing>,
}

/// Ended jobs of one queue and status, by how long they took.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Ended {
    queue: String,
    status: String,
    wait_class: i64,
    run_class: i64,
    jobs: i64,
    wait_ms: i64,
    run_ms: i64,
}

impl Queues {
    /// The figures of every queue, and when what has not ended was measured. An operator may ask for one tenant's.
    ///
    /// # Errors
    /// The database's.
    pub async fn figures(
        &self,
        viewer: &Viewer,
        tenant: Option<TenantId>,
    ) -> Result<(Option<DateTime<Utc>>, Vec<Line>)> {
        let measured_at = measure(&self.engine).await?;
        let hour_ago = Utc::now() - TimeDelta::hours(1);
        let until = store::counted_until(&self.engine).await?;
        let mut reach = self.reach(viewer).await?;
        let view = reach.jobs();
        let connection = reach.connection();
        let levels = store::levels(&mut *connection, tenant).await?;
        let days = store::days(&mut *connection, tenant).await?;
        let hour = store::minutes(&mut *connection, tenant, hour_ago).await?;
        let tail = store::ended_since(&mut *connection, view, tenant, until.max(hour_ago)).await?;
        reach.commit().await?;
        let lines = QUEUES.iter().map(|queue| {
            let mut totals = Totals::default();
            for (name, status, jobs) in &days {
                if name == queue.name {
                    totals.month.add(Status::of_word(status), *jobs);
                }
            }
            let tail: Vec<&Ended> = tail.iter().filter(|ended| ended.queue == queue.name).collect();
            tail.iter().for_each(|ended| totals.month.add(Status::of_word(&ended.status), ended.jobs));
            let recent: Vec<&Ended> =
                hour.iter().filter(|ended| ended.queue == queue.name).chain(tail).collect();
            recent.iter().for_each(|ended| totals.hour.add(Status::of_word(&ended.status), ended.jobs));
            totals.wait = spread(recent.iter().map(|ended| (ended.wait_class, ended.jobs, ended.wait_ms)));
            totals.run = spread(recent.iter().map(|ended| (ended.run_class, ended.jobs, ended.run_ms)));
            Line { queue, levels: levels_of(&levels, queue.name), totals }
        });
        Ok((measured_at, lines.collect()))
    }

    /// Processes and schedules.
    ///
    /// # Errors
    /// The database's.
    pub async fn processes(&self) -> Result<Processes> {
        let workers = store::workers(&self.engine).await?;
        let runs = store::runs(&self.engine).await?;
        let mut runs: BTreeMap<String, LastRun> =
            runs.into_iter().map(|run| (run.task.clone(), run)).collect();
        let now = Utc::now();
        let schedules = SCHEDULES.iter().map(|schedule| Firing {
            task: schedule.task,
            queue: schedule.queue,
            every: schedule.every,
            last: runs.remove(schedule.task),
            next_at: schedule.next_after(now),
        });
        Ok(Processes { workers, schedules: schedules.collect() })
    }
}

/// What has not ended, of every queue and all tenants, for monitoring.
///
/// # Errors
/// The database's.
pub async fn levels(engine: &PgPool) -> Result<Vec<(&'static str, Levels)>> {
    measure(engine).await?;
    let mut connection = engine.acquire().await?;
    let levels = store::levels(&mut connection, None).await?;
    Ok(QUEUES.iter().map(|queue| (queue.name, levels_of(&levels, queue.name))).collect())
}

/// Adds up what ended since the last time; answers whether there is more to add up.
///
/// # Errors
/// The database's.
pub async fn roll_up(engine: &PgPool) -> Result<bool> {
    let mut tx = crate::db::begin(engine).await?;
    let Some(after) = store::lock_counting(&mut tx).await? else { return Ok(false) };
    let settled = Utc::now() - SETTLING;
    let until = settled.min(after + STEP);
    if until <= after {
        return Ok(false);
    }
    store::add_up(&mut tx, after, until).await?;
    store::counted(&mut tx, until).await?;
    tx.commit().await?;
    Ok(until < settled)
}

/// Notes when a schedule's task ran last.
///
/// # Errors
/// The database's.
pub async fn note_run(
    engine: &PgPool,
    task: &str,
    queue: &str,
    started_at: DateTime<Utc>,
    error: Option<&str>,
) -> Result<()> {
    store::note_run(engine, task, queue, started_at, error).await
}

/// Measures unless that was done a moment ago or is being done; answers when it was done last.
async fn measure(engine: &PgPool) -> Result<Option<DateTime<Utc>>> {
    let (at, took_ms, age_ms) = store::measured(engine).await?;
    let good_for = FRESH.max(Duration::from_millis(u64::try_from(took_ms).unwrap_or(0)) * PACE);
    if age_ms.is_some_and(|age| u128::try_from(age).unwrap_or(0) < good_for.as_millis()) {
        return Ok(at);
    }
    match store::measure(engine).await {
        Ok(Some(at)) => Ok(Some(at)),
        Ok(None) => Ok(at),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the queues could not be measured; what was measured before is shown");
            Ok(at)
        }
    }
}

type LevelRow = (String, String, i64, Option<DateTime<Utc>>);

fn levels_of(rows: &[LevelRow], queue: &str) -> Levels {
    let mut levels = Levels::default();
    for (_, level, jobs, oldest_at) in rows.iter().filter(|(name, ..)| name == queue) {
        match level.as_str() {
            "due" => (levels.due, levels.oldest_at) = (*jobs, *oldest_at),
            "delayed" => levels.delayed = *jobs,
            "running" => levels.running = *jobs,
            _ => levels.parked = *jobs,
        }
    }
    levels
}

/// From (class, jobs, their time together).
fn spread(ended: impl Iterator<Item = (i64, i64, i64)>) -> Option<Spread> {
    let mut classes = [0_i64; BOUNDS.len() + 1];
    let mut sum = 0_i64;
    for (class, jobs, milliseconds) in ended {
        let class = usize::try_from(class).unwrap_or(0).min(BOUNDS.len());
        classes[class] += jobs;
        sum += milliseconds;
    }
    let all: i64 = classes.iter().sum();
    (all > 0).then(|| Spread {
        mean: as_float(sum) / as_float(all),
        p50: quantile(&classes, all, 0.5),
        p95: quantile(&classes, all, 0.95),
        p99: quantile(&classes, all, 0.99),
    })
}

/// As if the jobs of a class were evenly spread in it; of the last class only the beginning is known.
fn quantile(classes: &[i64; BOUNDS.len() + 1], all: i64, share: f64) -> f64 {
    let wanted = as_float(all) * share;
    let mut before = 0.0;
    for (place, jobs) in classes.iter().enumerate() {
        let jobs = as_float(*jobs);
        let lower = place.checked_sub(1).map_or(0.0, |lower| BOUNDS[lower]);
        let Some(upper) = BOUNDS.get(place) else { return lower };
        if before + jobs >= wanted && jobs > 0.0 {
            return lower + (upper - lower) * ((wanted - before) / jobs);
        }
        before += jobs;
    }
    0.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn as_float(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_class_that_holds_them() {
        assert_eq!(spread(std::iter::empty()), None);
        // 90 jobs of up to 5 ms, 10 of one to two and a half seconds.
        let spread = spread([(0, 90, 180), (8, 10, 15_000)].into_iter()).unwrap();
        assert!((spread.mean - 151.8).abs() < 0.01, "{spread:?}");
        assert!(spread.p50 > 2.0 && spread.p50 < 5.0, "{spread:?}");
        assert!(spread.p95 >= 1000.0 && spread.p95 <= 2500.0 && spread.p99 > spread.p95, "{spread:?}");
        // Longer than the longest bound.
        assert_eq!(super::spread([(16, 1, 9_000_000)].into_iter()).unwrap().p50, 3_600_000.0);
    }
}
