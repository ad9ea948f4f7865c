//! Deliveries to agents, for admins: what became of them, and telling dead letters again.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    agents::deliveries::{self, Delivery, Filter, Status},
    error::{Error, Result},
    ids::UserId,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tenants::Page;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::{Json, Parameters},
    state::App,
};

/// How a delivery stands.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StatusView {
    Pending,
    Delivered,
    Retry,
    /// A dead letter.
    Failed,
}

impl From<StatusView> for Status {
    fn from(status: StatusView) -> Self {
        match status {
            StatusView::Pending => Self::Pending,
            StatusView::Delivered => Self::Delivered,
            StatusView::Retry => Self::Retry,
            StatusView::Failed => Self::Failed,
        }
    }
}

/// A delivery.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryView {
    id: Uuid,
    /// What the agent knows the event by, however often it is told.
    event_id: Uuid,
    #[schema(example = "risk_management")]
    target_agent: String,
    #[schema(value_type = Uuid)]
    user_id: UserId,
    #[schema(example = "user_login")]
    event_type: String,
    #[schema(value_type = Object)]
    payload: Value,
    #[schema(value_type = StatusView)]
    status: String,
    #[schema(required = true)]
    error_message: Option<String>,
    retry_count: i64,
    max_retries: i64,
    #[schema(required = true)]
    correlation_id: Option<String>,
    created_at: DateTime<Utc>,
    #[schema(required = true)]
    processed_at: Option<DateTime<Utc>>,
    /// When it may be tried next.
    due_at: DateTime<Utc>,
    #[schema(required = true)]
    response_status: Option<i64>,
    /// The beginning of what the agent last answered, at most 8 KiB.
    #[schema(required = true)]
    response_body: Option<String>,
    #[schema(required = true)]
    duration_ms: Option<i64>,
    /// When the agent said that it has dealt with the event.
    #[schema(required = true)]
    acknowledged_at: Option<DateTime<Utc>>,
}

impl From<Delivery> for DeliveryView {
    fn from(row: Delivery) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            target_agent: row.target_agent.as_str().to_owned(),
            user_id: row.user_id,
            event_type: row.event_type,
            payload: row.payload,
            status: row.status,
            error_message: row.error_message,
            retry_count: row.retry_count,
            max_retries: row.max_retries,
            correlation_id: row.correlation_id,
            created_at: row.created_at,
            processed_at: row.processed_at,
            due_at: row.due_at,
            response_status: row.response_status,
            response_body: row.response_body,
            duration_ms: row.duration_ms,
            acknowledged_at: row.acknowledged_at,
        }
    }
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryList {
    /// Newest first.
    items: Vec<DeliveryView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveriesQuery {
    /// To this agent.
    agent: Option<String>,
    #[param(inline)]
    status: Option<StatusView>,
    /// About this user.
    user_id: Option<Uuid>,
    /// Written at this moment or later.
    since: Option<DateTime<Utc>>,
    /// Written before this moment.
    until: Option<DateTime<Utc>>,
}

impl DeliveriesQuery {
    fn filter(self) -> Result<Filter> {
        Ok(Filter {
            agent: self.agent.as_deref().map(super::agents::named).transpose()?,
            status: self.status.map(Status::from),
            user: self.user_id.map(UserId),
            since: self.since,
            until: self.until,
        })
    }
}

/// Which dead letters to tell again; what is left out does not matter.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReplayBody {
    /// To this agent.
    agent: Option<String>,
    /// About this user.
    user_id: Option<Uuid>,
    /// Written at this moment or later.
    since: Option<DateTime<Utc>>,
    /// Written before this moment.
    until: Option<DateTime<Utc>>,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
}

/// What a replay came to.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReplayView {
    /// Dead letters that match.
    matched: i64,
    /// Of them, those that are delivered again now: at most 10 000 at once.
    replayed: i64,
}

/// Lists deliveries, newest first.
#[utoipa::path(
    get, path = "/admin/deliveries", tag = "agents", security(("apiKey" = [])), params(DeliveriesQuery, Page),
    responses(
        (status = 200, description = "A page of deliveries", body = DeliveryList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn list_deliveries(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(query): Parameters<DeliveriesQuery>,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<DeliveryList>> {
    let (limit, before) = page.read()?;
    let filter = query.filter()?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let rows = deliveries::list(&mut tx, &admin, &filter, before, limit).await?;
    tx.commit().await?;
    let next_cursor = Page::next(limit, rows.len(), rows.last().map(|row| row.id));
    Ok(JsonAnswer(DeliveryList { items: rows.into_iter().map(DeliveryView::from).collect(), next_cursor }))
}

/// Reads a delivery.
#[utoipa::path(
    get, path = "/admin/deliveries/{id}", tag = "agents", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryView),
        (status = 404, description = "There is no such delivery", body = ErrorBody),
    )
)]
pub(crate) async fn get_delivery(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(id): Path<String>,
) -> Answer<JsonAnswer<DeliveryView>> {
    let id = identified(&id)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let delivery = deliveries::get(&mut tx, &admin, id).await?;
    tx.commit().await?;
    Ok(JsonAnswer(delivery.into()))
}

/// Has a dead letter delivered again.
#[utoipa::path(
    post, path = "/admin/deliveries/{id}/replay", tag = "agents", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryView),
        (status = 404, description = "There is no such delivery", body = ErrorBody),
        (status = 409, description = "It is no dead letter, or its agent is gone", body = ErrorBody),
    )
)]
pub(crate) async fn replay_delivery(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(id): Path<String>,
) -> Answer<JsonAnswer<DeliveryView>> {
    let id = identified(&id)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let delivery = deliveries::replay(&mut tx, &admin, id).await?;
    tx.commit().await?;
    app.tell_agents();
    Ok(JsonAnswer(delivery.into()))
}

/// Has dead letters delivered again, in the order in which they were written.
#[utoipa::path(
    post, path = "/admin/deliveries/replay", tag = "agents", security(("apiKey" = [])),
    request_body = ReplayBody,
    responses(
        (status = 200, description = "How many", body = ReplayView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn replay_deliveries(
    State(app): State<App>,
    Admin(admin): Admin,
    Json(body): Json<ReplayBody>,
) -> Answer<JsonAnswer<ReplayView>> {
    let filter = Filter {
        agent: body.agent.as_deref().map(super::agents::named).transpose()?,
        status: None,
        user: body.user_id.map(UserId),
        since: body.since,
        until: body.until,
    };
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let done = deliveries::replay_all(&mut tx, &admin, &filter, body.dry_run).await?;
    tx.commit().await?;
    if done.replayed > 0 {
        app.tell_agents();
    }
    Ok(JsonAnswer(ReplayView { matched: done.matched, replayed: done.replayed }))
}

fn identified(text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| Error::not_found("the tenant has no such delivery"))
}
