//! What the cache of tool results does for a tenant, and emptying it.

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::cache::{self, CachedTool};
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::Admin,
    error::{Answer, ErrorBody, unreadable},
    extract::Parameters,
    state::App,
};

/// How far back.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Days {
    /// Days that are counted, 1 to 90.
    #[serde(default = "a_week")]
    #[param(minimum = 1, maximum = 90, default = 7)]
    days: i32,
}

fn a_week() -> i32 {
    7
}

/// What is removed; all without a parameter.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Of this server only.
    server: Option<String>,
    /// Of this tool only, written server.tool.
    tool: Option<String>,
}

/// What the cache did for one tool.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CachedToolView {
    server: String,
    #[schema(example = "notion.get_page")]
    tool: String,
    /// Reads that the cache answered.
    hits: i64,
    /// Reads that the tool answered.
    misses: i64,
    /// Reads that wanted a fresh answer.
    refreshes: i64,
    /// Reads that the cache had no part in: a write was under way, or the database away.
    passed_by: i64,
    /// hits / (hits + misses); null before the first of them.
    #[schema(required = true)]
    hit_rate: Option<f64>,
    /// Answers of the tenant and its people that are good now.
    entries: i64,
    /// How often those were given.
    entry_hits: i64,
    #[schema(required = true)]
    last_accessed: Option<DateTime<Utc>>,
}

/// What the cache did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheView {
    days: i32,
    /// Of all tools together.
    #[schema(required = true)]
    hit_rate: Option<f64>,
    tools: Vec<CachedToolView>,
}

/// How many answers were removed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Removed {
    removed: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn rate(hits: i64, misses: i64) -> Option<f64> {
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}

impl From<CachedTool> for CachedToolView {
    fn from(tool: CachedTool) -> Self {
        Self {
            hit_rate: rate(tool.hits, tool.misses),
            server: tool.server,
            tool: tool.tool,
            hits: tool.hits,
            misses: tool.misses,
            refreshes: tool.refreshes,
            passed_by: tool.passed_by,
            entries: tool.entries,
            entry_hits: tool.entry_hits,
            last_accessed: tool.last_accessed,
        }
    }
}

/// Tells how often the cache answered, tool by tool. Processes count in memory and write every few seconds.
#[utoipa::path(
    get, path = "/admin/cache", tag = "admin", security(("apiKey" = [])),
    params(Days),
    responses(
        (status = 200, description = "Hit rates", body = CacheView),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn get_cache(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(Days { days }): Parameters<Days>,
) -> Answer<JsonAnswer<CacheView>> {
    if !(1..=90).contains(&days) {
        return Err(unreadable("days: takes 1 to 90"));
    }
    let tools = cache::tools(&app.engine, &admin, days).await?;
    let (hits, misses) =
        tools.iter().fold((0, 0), |(hits, misses), tool| (hits + tool.hits, misses + tool.misses));
    let tools = tools.into_iter().map(CachedToolView::from).collect();
    Ok(JsonAnswer(CacheView { days, hit_rate: rate(hits, misses), tools }))
}

/// Removes cached answers of the tenant and its people, on every process.
#[utoipa::path(
    delete, path = "/admin/cache", tag = "admin", security(("apiKey" = [])),
    params(Which),
    responses(
        (status = 200, description = "They are gone", body = Removed),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn delete_cache(
    State(app): State<App>,
    Admin(admin): Admin,
    Parameters(which): Parameters<Which>,
) -> Answer<JsonAnswer<Removed>> {
    if [&which.server, &which.tool].into_iter().flatten().any(|name| name.contains('\0')) {
        return Err(unreadable("a name cannot have U+0000 in it"));
    }
    let (server, tool) = (which.server.as_deref(), which.tool.as_deref());
    let removed = cache::purge(&app.tenants, &app.engine, &app.bell, &admin, server, tool).await?;
    Ok(JsonAnswer(Removed { removed }))
}
