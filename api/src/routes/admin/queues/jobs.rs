//! Jobs of a queue: lists of them, and one with all that is known of it.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    error::{Error, Result},
    ids::TenantId,
    queues::{self, Attempt, Filter, Job, QueueDef, Status, Waiting},
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    auth::Steward,
    error::{Answer, ErrorBody},
    extract::Parameters,
    routes::admin::tenants::Page,
    state::App,
};

/// Letters of a text that is looked for at most.
const LONGEST_TEXT: usize = 200;

/// How a job stands.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobStatusView {
    /// Waits; `waiting` says for what.
    Queued,
    Running,
    AwaitingApproval,
    Succeeded,
    /// For a reason that no retry can mend.
    Failed,
    Cancelled,
    /// Its attempts are used up.
    Dead,
}

impl From<JobStatusView> for Status {
    fn from(status: JobStatusView) -> Self {
        match status {
            JobStatusView::Queued => Self::Queued,
            JobStatusView::Running => Self::Running,
            JobStatusView::AwaitingApproval => Self::AwaitingApproval,
            JobStatusView::Succeeded => Self::Succeeded,
            JobStatusView::Failed => Self::Failed,
            JobStatusView::Cancelled => Self::Cancelled,
            JobStatusView::Dead => Self::Dead,
        }
    }
}

impl From<Status> for JobStatusView {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => Self::Queued,
            Status::Running => Self::Running,
            Status::AwaitingApproval => Self::AwaitingApproval,
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
            Status::Dead => Self::Dead,
        }
    }
}

/// Why a job waits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingView {
    /// earlier_turn, tenant_cap, approval, paused, notifications_off, tenant_suspended, agent_disabled, breaker_open, delayed,
    /// earlier_delivery, no_worker or worker.
    #[schema(example = "earlier_turn")]
    reason: &'static str,
    /// The same for people.
    sentence: &'static str,
    /// Until when it waits (delayed, breaker_open), or since when (paused).
    #[schema(required = true)]
    at: Option<DateTime<Utc>>,
    /// The job that it waits for (earlier_turn, earlier_delivery).
    #[schema(required = true)]
    job_id: Option<Uuid>,
}

impl From<Waiting> for WaitingView {
    fn from(waiting: Waiting) -> Self {
        Self {
            reason: waiting.as_str(),
            sentence: waiting.sentence(),
            at: waiting.at(),
            job_id: waiting.job(),
        }
    }
}

/// A job's failure.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobFailure {
    /// Of the taxonomy, for chat turns.
    #[schema(required = true, example = "MODEL-UNAVAILABLE")]
    code: Option<String>,
    message: String,
}

/// A job of a queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueJob {
    id: Uuid,
    #[schema(example = "chat-turns")]
    queue: &'static str,
    /// turn; user_login, user_logout, context_update; item; connection; compaction; the name of a schedule's task.
    #[schema(example = "turn")]
    kind: String,
    status: JobStatusView,
    /// Null for what belongs to the deployment.
    #[schema(required = true, value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    #[schema(required = true)]
    user_id: Option<Uuid>,
    /// The conversation, the agent, the kind of item, the connection.
    #[schema(required = true)]
    subject: Option<String>,
    created_at: DateTime<Utc>,
    /// When it may be taken up.
    #[schema(required = true)]
    due_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    started_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
    attempts: i64,
    #[schema(required = true)]
    max_attempts: Option<i64>,
    #[schema(required = true)]
    error: Option<JobFailure>,
    /// Why it waits; null when it does not.
    #[schema(required = true)]
    waiting: Option<WaitingView>,
    /// Who runs it, or ran it last.
    #[schema(required = true)]
    worker: Option<String>,
    /// Somebody has dealt with its failure.
    discarded: bool,
}

impl QueueJob {
    fn of(queue: &'static QueueDef, job: Job) -> Self {
        let status = job.status().into();
        Self {
            id: job.id,
            queue: queue.name,
            kind: job.kind,
            status,
            tenant_id: job.tenant_id,
            user_id: job.user_id.map(|user| user.0),
            subject: job.subject,
            created_at: job.created_at,
            due_at: job.due_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            error: job.error.map(|message| JobFailure { code: job.error_code, message }),
            waiting: job.waiting.map(WaitingView::from),
            worker: job.worker,
            discarded: job.is_discarded,
        }
    }
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueJobList {
    /// Newest first.
    items: Vec<QueueJob>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// One try at a job.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptView {
    at: DateTime<Utc>,
    /// Whom it asked: a model, an agent; or who tried.
    #[schema(required = true)]
    what: Option<String>,
    /// Null while it is under way.
    #[schema(required = true)]
    outcome: Option<String>,
    #[schema(required = true)]
    duration_ms: Option<i64>,
    /// What was answered, at most 8 KiB, without secrets.
    #[schema(required = true)]
    answer: Option<String>,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let Attempt { at, what, outcome, duration_ms, answer } = attempt;
        Self { at, what, outcome, duration_ms, answer }
    }
}

/// A job with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueJobDetail {
    #[serde(flatten)]
    job: QueueJob,
    /// What it is about, without secrets; each queue's is its own.
    #[schema(value_type = Object)]
    payload: Value,
    /// Oldest first: of a turn its calls of models, of a delivery the last try.
    tries: Vec<AttemptView>,
}

/// Which jobs; what is left out does not matter.
#[derive(Default, Deserialize, IntoParams, ToSchema)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct JobFilter {
    #[param(inline)]
    pub(super) status: Option<JobStatusView>,
    /// Of this tenant, for operators.
    tenant: Option<Uuid>,
    /// turn, user_login, connection, retention and so on.
    kind: Option<String>,
    /// Of this conversation, agent, kind of item or connection.
    subject: Option<String>,
    /// Made at this moment or later.
    since: Option<DateTime<Utc>>,
    /// Made before this moment.
    until: Option<DateTime<Utc>>,
    /// Whose error has this text in it, in whatever case; at most 200 letters.
    error: Option<String>,
    /// Also those that somebody has dealt with.
    #[serde(default)]
    include_discarded: bool,
}

impl JobFilter {
    pub(super) fn filter(self) -> Result<Filter> {
        for (name, text) in [("kind", &self.kind), ("subject", &self.subject), ("error", &self.error)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > LONGEST_TEXT || text.contains('\0')) {
                return Err(Error::unacceptable(format!("{name}: takes at most {LONGEST_TEXT} letters")));
            }
        }
        Ok(Filter {
            status: self.status.map(Status::from),
            tenant: self.tenant.map(TenantId),
            kind: self.kind,
            subject: self.subject,
            since: self.since,
            until: self.until,
            error: self.error,
            with_discarded: self.include_discarded,
        })
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct JobPath {
    /// The queue's name
    queue: String,
    /// The job
    #[param(value_type = Uuid)]
    id: String,
}

impl JobPath {
    /// What can be no queue or no id names nothing.
    pub(super) fn read(&self) -> Result<(&'static QueueDef, Uuid)> {
        let queue = queues::queue(&self.queue)?;
        let id = Uuid::parse_str(&self.id).map_err(|_| Error::not_found("there is no such job"))?;
        Ok((queue, id))
    }
}

/// Lists a queue's jobs, newest first.
#[utoipa::path(
    get, path = "/admin/queues/{queue}/jobs", tag = "queues", security(("apiKey" = [])),
    params(("queue" = String, Path, description = "The queue's name"), JobFilter, Page),
    responses(
        (status = 200, description = "A page of jobs", body = QueueJobList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "There is no such queue", body = ErrorBody),
        (status = 422, description = "A parameter is not acceptable", body = ErrorBody),
    )
)]
pub(crate) async fn list_jobs(
    State(app): State<App>,
    steward: Steward,
    Path(queue): Path<String>,
    Parameters(query): Parameters<JobFilter>,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<QueueJobList>> {
    let queue = queues::queue(&queue)?;
    let (limit, before) = page.read()?;
    let filter = query.filter()?;
    let jobs = app.queues.jobs(&steward.viewer()?, queue, &filter, before, limit).await?;
    let next_cursor = Page::next(limit, jobs.len(), jobs.last().map(|job| job.id));
    let items = jobs.into_iter().map(|job| QueueJob::of(queue, job)).collect();
    Ok(JsonAnswer(QueueJobList { items, next_cursor }))
}

/// Reads a job with all that is known of it.
#[utoipa::path(
    get, path = "/admin/queues/{queue}/jobs/{id}", tag = "queues", security(("apiKey" = [])),
    params(JobPath),
    responses(
        (status = 200, description = "The job", body = QueueJobDetail),
        (status = 404, description = "There is no such queue or job", body = ErrorBody),
    )
)]
pub(crate) async fn get_queue_job(
    State(app): State<App>,
    steward: Steward,
    Path(path): Path<JobPath>,
) -> Answer<JsonAnswer<QueueJobDetail>> {
    let (queue, id) = path.read()?;
    let detail = app.queues.job(&steward.viewer()?, queue, id).await?;
    Ok(JsonAnswer(QueueJobDetail {
        job: QueueJob::of(queue, detail.job),
        payload: detail.payload,
        tries: detail.attempts.into_iter().map(AttemptView::from).collect(),
    }))
}
