//! Figures over the actor's items, or the tenant's for its admin. What was deleted counts nowhere but in `deleted`.

mod store;

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::Serialize;

use crate::{db::TenantTx, error::Result};

/// For so many days it is told how many items were made.
pub const DAYS: i32 = 30;

/// All figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// By kind; a kind without items is left out.
    pub kinds: BTreeMap<String, KindStats>,
    /// Tasks that are not done.
    pub tasks: TaskStats,
    /// Items made on each of the last 30 days (UTC), by kind; days without are left out.
    pub created: BTreeMap<NaiveDate, BTreeMap<String, i64>>,
}

/// Figures of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindStats {
    /// Items that are there, archived ones included.
    pub total: i64,
    /// Of them, those that are archived.
    pub archived: i64,
    /// Items that were deleted.
    pub deleted: i64,
    /// Of those that are there, by state, for kinds that have states.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_status: BTreeMap<String, i64>,
}

/// Figures of the tasks that are not done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStats {
    /// To do or in progress.
    pub pending: i64,
    /// Of them, those whose time has passed.
    pub overdue: i64,
    /// Of them, those due within the next seven days.
    pub due_soon: i64,
}

/// Counts.
///
/// # Errors
/// The database's.
pub async fn stats(tx: &mut TenantTx) -> Result<Stats> {
    let mut stats = Stats::default();
    for count in store::counts(tx).await? {
        let kind = stats.kinds.entry(count.kind.clone()).or_default();
        if count.deleted {
            kind.deleted += count.items;
            continue;
        }
        kind.total += count.items;
        kind.archived += if count.archived { count.items } else { 0 };
        let Some(status) = count.status else { continue };
        if count.kind == "task" && matches!(status.as_str(), "todo" | "in_progress") {
            stats.tasks.pending += count.items;
            stats.tasks.overdue += count.overdue;
            stats.tasks.due_soon += count.due_soon;
        }
        *kind.by_status.entry(status).or_default() += count.items;
    }
    for day in store::created(tx, DAYS).await? {
        stats.created.entry(day.day).or_default().insert(day.kind, day.items);
    }
    Ok(stats)
}
