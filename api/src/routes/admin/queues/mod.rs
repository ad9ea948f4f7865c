//! The queues [Q2]: figures, who works on them, what fires by the clock, and standing still.

pub(crate) mod actions;
pub(crate) mod jobs;

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    error::Error,
    ids::TenantId,
    queues::{self, Count, Firing, Levels, Line, Paused, Processes, Spread, Viewer, Worker},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    auth::{Operator, Steward},
    error::{Answer, ErrorBody},
    extract::{OptionalJson, Parameters},
    routes::chat::without_nul,
    state::App,
};

/// Letters of a reason at most.
const LONGEST_REASON: usize = 500;

/// Since when a queue stands still, and why.
#[derive(Serialize, ToSchema)]
pub(crate) struct PausedView {
    since: DateTime<Utc>,
    /// Who stopped it; null for a tenant's admin.
    #[schema(required = true)]
    by: Option<Uuid>,
    #[schema(required = true)]
    because: Option<String>,
}

/// How many jobs ended, and how.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedView {
    succeeded: i64,
    /// For a reason that no retry can mend.
    failed: i64,
    cancelled: i64,
    /// Their attempts were used up.
    dead: i64,
}

impl From<Count> for EndedView {
    fn from(count: Count) -> Self {
        let Count { succeeded, failed, cancelled, dead } = count;
        Self { succeeded, failed, cancelled, dead }
    }
}

/// How times are spread, in milliseconds; estimated.
#[derive(Serialize, ToSchema)]
pub(crate) struct SpreadView {
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
}

impl From<Spread> for SpreadView {
    fn from(spread: Spread) -> Self {
        let Spread { mean, p50, p95, p99 } = spread;
        Self { mean, p50, p95, p99 }
    }
}

/// What ended within the last hour.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HourView {
    #[serde(flatten)]
    ended: EndedView,
    /// Jobs that ended, a minute.
    per_minute: f64,
    /// From a job's making to its start; null when none ended.
    #[schema(required = true)]
    wait_ms: Option<SpreadView>,
    /// From its start to its end; null when none ended.
    #[schema(required = true)]
    run_ms: Option<SpreadView>,
}

/// A queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueView {
    #[schema(example = "chat-turns")]
    name: &'static str,
    /// What it does.
    about: &'static str,
    /// Null while it runs.
    #[schema(required = true)]
    paused: Option<PausedView>,
    /// Jobs that could be taken up now.
    depth: i64,
    /// How long the oldest of them has waited; 0 when there is none.
    oldest_seconds: f64,
    #[schema(required = true)]
    oldest_at: Option<DateTime<Utc>>,
    /// Jobs that are not due yet.
    delayed: i64,
    running: i64,
    /// Jobs that wait for a person: turns for a decision, deliveries for an agent that is switched off.
    awaiting_approval: i64,
    /// What ended within the last 30 days.
    ended: EndedView,
    last_hour: HourView,
}

/// A process that works on queues.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerView {
    id: Uuid,
    host: String,
    pid: i64,
    started_at: DateTime<Utc>,
    /// Its last heartbeat: every few seconds while it runs turns, otherwise once a minute.
    last_seen: DateTime<Utc>,
    /// Since when it counts as dead; null while it lives.
    #[schema(required = true)]
    dead_at: Option<DateTime<Utc>>,
    /// Turns that it runs.
    running_turns: i64,
}

impl From<Worker> for WorkerView {
    fn from(worker: Worker) -> Self {
        let Worker { id, host, pid, started_at, seen_at, dead_at, running_turns } = worker;
        Self { id, host, pid, started_at, last_seen: seen_at, dead_at, running_turns }
    }
}

/// The last time that a task was done by the clock.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastRunView {
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
    duration_ms: i64,
    /// Why it failed; null when it did not.
    #[schema(required = true)]
    error: Option<String>,
}

/// What is done by the clock.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScheduleView {
    #[schema(example = "retention")]
    task: &'static str,
    #[schema(example = "maintenance")]
    queue: &'static str,
    every_seconds: u64,
    /// Null before the first.
    #[schema(required = true)]
    last_run: Option<LastRunView>,
    /// Null while the queue is paused.
    #[schema(required = true)]
    next_run: Option<DateTime<Utc>>,
}

/// Every queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueList {
    queues: Vec<QueueView>,
    /// Whose jobs are counted; null for everybody's.
    #[schema(required = true, value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// When depth, oldest, delayed, running and awaitingApproval were measured: a second ago, or more when the lines are
    /// very long.
    #[schema(required = true)]
    measured_at: Option<DateTime<Utc>>,
    /// Newest first; for operators only.
    workers: Vec<WorkerView>,
    /// For operators only.
    schedules: Vec<ScheduleView>,
}

/// Whose jobs.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct QueuesQuery {
    /// Of this tenant only, for operators; an admin sees their own in any case.
    tenant: Option<Uuid>,
}

/// Why a queue is paused.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseBody {
    /// For whoever looks; at most 500 letters.
    #[schema(max_length = 500)]
    because: Option<String>,
}

/// Whether a queue stands still.
#[derive(Serialize, ToSchema)]
pub(crate) struct PauseView {
    #[schema(example = "chat-turns")]
    queue: &'static str,
    paused: bool,
    /// False when it was so before.
    changed: bool,
}

/// Lists the queues with their figures; for operators, everybody's, with workers and schedules.
#[utoipa::path(
    get, path = "/admin/queues", tag = "queues", security(("apiKey" = [])), params(QueuesQuery),
    responses(
        (status = 200, description = "The queues", body = QueueList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn list_queues(
    State(app): State<App>,
    steward: Steward,
    Parameters(query): Parameters<QueuesQuery>,
) -> Answer<JsonAnswer<QueueList>> {
    let viewer = steward.viewer()?;
    let (tenant_id, is_operator) = match &viewer {
        Viewer::Admin(admin) => (Some(admin.actor().tenant), false),
        Viewer::Operator(_) => (query.tenant.map(TenantId), true),
    };
    let (measured_at, lines) = app.queues.figures(&viewer, tenant_id).await?;
    let paused = app.queues.paused().await?;
    let (workers, schedules) = match is_operator {
        true => processes(app.queues.processes().await?, &paused),
        false => (Vec::new(), Vec::new()),
    };
    let queues = lines.iter().map(|line| shown(line, &paused, is_operator)).collect();
    Ok(JsonAnswer(QueueList { queues, tenant_id, measured_at, workers, schedules }))
}

/// Pauses a queue: what runs is finished, and no process takes up more until the queue goes on, also after a restart.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/pause", tag = "queues", security(("apiKey" = [])),
    params(("queue" = String, Path, description = "The queue's name")),
    request_body = Option<PauseBody>,
    responses(
        (status = 200, description = "It stands still", body = PauseView),
        (status = 403, description = "The caller is not an operator", body = ErrorBody),
        (status = 404, description = "There is no such queue", body = ErrorBody),
    )
)]
pub(crate) async fn pause_queue(
    State(app): State<App>,
    Operator(operator): Operator,
    Path(queue): Path<String>,
    OptionalJson(body): OptionalJson<PauseBody>,
) -> Answer<JsonAnswer<PauseView>> {
    let queue = queues::queue(&queue)?;
    let because = body.because.map(without_nul);
    if because.as_ref().is_some_and(|because| because.chars().count() > LONGEST_REASON) {
        return Err(
            Error::unacceptable(format!("because: is longer than {LONGEST_REASON} characters")).into()
        );
    }
    let changed = app.queues.pause(&operator, queue, because.as_deref()).await?;
    Ok(JsonAnswer(PauseView { queue: queue.name, paused: true, changed }))
}

/// Lets a paused queue go on.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/resume", tag = "queues", security(("apiKey" = [])),
    params(("queue" = String, Path, description = "The queue's name")),
    responses(
        (status = 200, description = "It goes on", body = PauseView),
        (status = 403, description = "The caller is not an operator", body = ErrorBody),
        (status = 404, description = "There is no such queue", body = ErrorBody),
    )
)]
pub(crate) async fn resume_queue(
    State(app): State<App>,
    Operator(operator): Operator,
    Path(queue): Path<String>,
) -> Answer<JsonAnswer<PauseView>> {
    let queue = queues::queue(&queue)?;
    let changed = app.queues.resume(&operator, queue).await?;
    Ok(JsonAnswer(PauseView { queue: queue.name, paused: false, changed }))
}

fn shown(line: &Line, paused: &[Paused], is_operator: bool) -> QueueView {
    let Levels { due, oldest_at, delayed, running, parked } = line.levels;
    let waited = oldest_at.map_or(0.0, |at| (Utc::now() - at).as_seconds_f64().max(0.0));
    let per_minute = i32::try_from(line.totals.hour.all()).map_or(f64::INFINITY, f64::from) / 60.0;
    let paused = paused.iter().find(|paused| paused.queue == line.queue.name);
    QueueView {
        name: line.queue.name,
        about: line.queue.about,
        paused: paused.map(|paused| PausedView {
            since: paused.since,
            by: is_operator.then_some(paused.by.0),
            because: paused.because.clone(),
        }),
        depth: due,
        oldest_seconds: waited,
        oldest_at,
        delayed,
        running,
        awaiting_approval: parked,
        ended: line.totals.month.into(),
        last_hour: HourView {
            ended: line.totals.hour.into(),
            per_minute,
            wait_ms: line.totals.wait.map(SpreadView::from),
            run_ms: line.totals.run.map(SpreadView::from),
        },
    }
}

fn processes(processes: Processes, paused: &[Paused]) -> (Vec<WorkerView>, Vec<ScheduleView>) {
    let schedule = |firing: Firing| ScheduleView {
        task: firing.task,
        queue: firing.queue,
        every_seconds: firing.every.as_secs(),
        last_run: firing.last.map(|run| LastRunView {
            started_at: run.started_at,
            finished_at: run.finished_at,
            duration_ms: (run.finished_at - run.started_at).num_milliseconds().max(0),
            error: run.error,
        }),
        next_run: (!paused.iter().any(|paused| paused.queue == firing.queue)).then_some(firing.next_at),
    };
    let workers = processes.workers.into_iter().map(WorkerView::from).collect();
    (workers, processes.schedules.into_iter().map(schedule).collect())
}
