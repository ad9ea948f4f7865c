//! Figures over items [W7].

use std::collections::BTreeMap;

use axum::{Json as JsonAnswer, extract::State};
use chrono::NaiveDate;
use shared::workspace::stats::{self, Stats};
use utoipa::ToSchema;

use crate::{auth::Caller, error::Answer, state::App};

/// Figures over the caller's items.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct StatsView {
    /// By kind; a kind without items is left out.
    kinds: BTreeMap<String, KindView>,
    tasks: TasksView,
    /// Items made on each of the last 30 days (UTC), by kind; days without are left out.
    created: BTreeMap<NaiveDate, BTreeMap<String, i64>>,
}

/// Figures of one kind.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct KindView {
    /// Items that are there, archived ones included.
    total: i64,
    archived: i64,
    deleted: i64,
    /// Of those that are there; only for kinds that have states.
    by_status: Option<BTreeMap<String, i64>>,
}

/// Tasks that are not done.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; shared writes it")]
pub(crate) struct TasksView {
    pending: i64,
    /// Pending, and their time has passed.
    overdue: i64,
    /// Pending, and due within the next seven days.
    due_soon: i64,
}

/// Counts the caller's items, or for an admin the tenant's.
#[utoipa::path(
    get, path = "/v1/stats", tag = "workspace", security(("apiKey" = [])),
    responses((status = 200, description = "The figures", body = StatsView))
)]
pub(crate) async fn get_stats(State(app): State<App>, Caller(actor): Caller) -> Answer<JsonAnswer<Stats>> {
    let mut tx = app.tenants.begin(&actor).await?;
    let stats = stats::stats(&mut tx).await?;
    tx.commit().await?;
    Ok(JsonAnswer(stats))
}
