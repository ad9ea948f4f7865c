//! Doing something to jobs: one, or many by a filter.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};
use shared::{
    error::Error,
    queues::{self, Action, Batch},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::jobs::{JobFilter, JobPath};
use crate::{
    auth::Steward,
    error::{Answer, ErrorBody},
    extract::Json,
    state::App,
};

/// Jobs of one batch at most.
const LARGEST_BATCH: i64 = 500;

/// What is to be done.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionView {
    /// Begin anew what is dead or failed; what is put off is taken up now.
    Retry,
    /// End what has not ended.
    Cancel,
    /// Take what is dead or failed off the list; what waits ends.
    Discard,
}

impl From<ActionView> for Action {
    fn from(action: ActionView) -> Self {
        match action {
            ActionView::Retry => Self::Retry,
            ActionView::Cancel => Self::Cancel,
            ActionView::Discard => Self::Discard,
        }
    }
}

/// What was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DoneView {
    id: Uuid,
    #[schema(example = "chat-turns")]
    queue: &'static str,
    action: ActionView,
    /// The turn that a retry made, for chat turns: it stands at the end of its conversation's line.
    #[schema(required = true)]
    new_job_id: Option<Uuid>,
}

/// What is to be done to which jobs.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BulkBody {
    action: ActionView,
    /// All that the action can be done to, when left out.
    #[serde(default, deserialize_with = "known_members")]
    filter: JobFilter,
    /// Jobs of this batch, the oldest; 1 to 500.
    #[serde(default = "usual_batch")]
    #[schema(minimum = 1, maximum = 500, default = 100)]
    limit: i64,
    /// `next` of the answer before.
    after: Option<Uuid>,
    /// Only say which they are.
    #[serde(default)]
    dry_run: bool,
}

fn usual_batch() -> i64 {
    100
}

/// A filter with a misspelt member would be a wider one.
fn known_members<'de, D: Deserializer<'de>>(members: D) -> Result<JobFilter, D::Error> {
    let members = Map::<String, Value>::deserialize(members)?;
    let known = ["status", "tenant", "kind", "subject", "since", "until", "error", "includeDiscarded"];
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(D::Error::custom(format!("unknown field `{unknown}`"))),
        None => serde_json::from_value(Value::Object(members)).map_err(D::Error::custom),
    }
}

/// A job with which it could not be done.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedView {
    id: Uuid,
    because: String,
}

/// What a batch came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkView {
    action: ActionView,
    dry_run: bool,
    /// Jobs that matched before, and come after `after`, counted up to 10 000.
    matched: i64,
    /// Those with which it was done; of a dry run, those with which it would be done.
    touched: Vec<Uuid>,
    refused: Vec<RefusedView>,
    /// There are more.
    more: bool,
    /// The same request with this as `after` does it to those; null when there are none.
    #[schema(required = true)]
    next: Option<Uuid>,
}

/// Begins a dead or failed job anew. A dead turn stays as it is; a new one is made at the end of its conversation's line.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/jobs/{id}/retry", tag = "queues", security(("apiKey" = [])),
    params(JobPath),
    responses(
        (status = 200, description = "It begins anew", body = DoneView),
        (status = 404, description = "There is no such queue or job", body = ErrorBody),
        (status = 409, description = "The job does not stand so that it could be retried", body = ErrorBody),
    )
)]
pub(crate) async fn retry_job(
    State(app): State<App>,
    steward: Steward,
    Path(path): Path<JobPath>,
) -> Answer<JsonAnswer<DoneView>> {
    act(&app, &steward, &path, ActionView::Retry).await
}

/// Ends a job that has not ended; a running turn within a second.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/jobs/{id}/cancel", tag = "queues", security(("apiKey" = [])),
    params(JobPath),
    responses(
        (status = 200, description = "It has ended", body = DoneView),
        (status = 404, description = "There is no such queue or job", body = ErrorBody),
        (status = 409, description = "The job does not stand so that it could be cancelled", body = ErrorBody),
    )
)]
pub(crate) async fn cancel_job(
    State(app): State<App>,
    steward: Steward,
    Path(path): Path<JobPath>,
) -> Answer<JsonAnswer<DoneView>> {
    act(&app, &steward, &path, ActionView::Cancel).await
}

/// Takes a dead or failed job off the list of those that somebody has to look at; one that waits ends.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/jobs/{id}/discard", tag = "queues", security(("apiKey" = [])),
    params(JobPath),
    responses(
        (status = 200, description = "It is off the list", body = DoneView),
        (status = 404, description = "There is no such queue or job", body = ErrorBody),
        (status = 409, description = "The job does not stand so that it could be discarded", body = ErrorBody),
    )
)]
pub(crate) async fn discard_job(
    State(app): State<App>,
    steward: Steward,
    Path(path): Path<JobPath>,
) -> Answer<JsonAnswer<DoneView>> {
    act(&app, &steward, &path, ActionView::Discard).await
}

/// Does something to the oldest jobs that match a filter, in one bounded batch; a dry run says which they are.
#[utoipa::path(
    post, path = "/admin/queues/{queue}/bulk", tag = "queues", security(("apiKey" = [])),
    params(("queue" = String, Path, description = "The queue's name")),
    request_body = BulkBody,
    responses(
        (status = 200, description = "What it came to", body = BulkView),
        (status = 404, description = "There is no such queue", body = ErrorBody),
    )
)]
pub(crate) async fn act_on_jobs(
    State(app): State<App>,
    steward: Steward,
    Path(queue): Path<String>,
    Json(body): Json<BulkBody>,
) -> Answer<JsonAnswer<BulkView>> {
    let queue = queues::queue(&queue)?;
    if !(1..=LARGEST_BATCH).contains(&body.limit) {
        return Err(Error::unacceptable(format!("limit: takes 1 to {LARGEST_BATCH}")).into());
    }
    let batch =
        Batch { action: body.action.into(), limit: body.limit, after: body.after, is_dry: body.dry_run };
    let filter = body.filter.filter()?;
    let viewer = steward.viewer()?;
    let done = app.queues.act_on_all(&viewer, queue, &filter, batch, steward.request_id()).await?;
    Ok(JsonAnswer(BulkView {
        action: body.action,
        dry_run: body.dry_run,
        matched: done.matched,
        more: done.next.is_some(),
        next: done.next,
        touched: done.touched,
        refused: done
            .refused
            .into_iter()
            .map(|refused| RefusedView { id: refused.id, because: refused.because })
            .collect(),
    }))
}

async fn act(
    app: &App,
    steward: &Steward,
    path: &JobPath,
    action: ActionView,
) -> Answer<JsonAnswer<DoneView>> {
    let (queue, id) = path.read()?;
    let made = app.queues.act(&steward.viewer()?, queue, id, action.into(), steward.request_id()).await?;
    Ok(JsonAnswer(DoneView { id, queue: queue.name, action, new_job_id: made.map(|turn| turn.0) }))
}
