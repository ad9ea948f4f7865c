//! Feature flags, for operators [A7].

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::flags::{self, Flag};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::Operator,
    error::{Answer, ErrorBody},
    extract::Json,
    state::App,
};

/// A feature flag.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlagView {
    #[schema(example = "MCP_AGENT_NOTIFICATIONS")]
    name: String,
    /// What it governs.
    about: &'static str,
    enabled: bool,
    /// While it is enabled: for so many of a hundred users or agents, always the same ones.
    percent: i64,
    updated_at: DateTime<Utc>,
    /// Null while nobody has set it.
    #[schema(required = true)]
    updated_by: Option<Uuid>,
}

impl From<Flag> for FlagView {
    fn from(flag: Flag) -> Self {
        Self {
            about: flags::about(&flag.name),
            name: flag.name,
            enabled: flag.enabled,
            percent: flag.percent,
            updated_at: flag.updated_at,
            updated_by: flag.updated_by.map(|user| user.0),
        }
    }
}

/// Every flag.
#[derive(Serialize, ToSchema)]
pub(crate) struct FlagList {
    items: Vec<FlagView>,
}

/// How a flag shall stand.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlagBody {
    enabled: bool,
    /// 100, when left out.
    #[serde(default = "everybody")]
    #[schema(minimum = 0, maximum = 100, default = 100)]
    percent: i64,
}

fn everybody() -> i64 {
    100
}

/// Lists the feature flags.
#[utoipa::path(
    get, path = "/admin/flags", tag = "operator", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The flags, by name", body = FlagList),
    )
)]
pub(crate) async fn list_flags(
    State(app): State<App>,
    Operator(operator): Operator,
) -> Answer<JsonAnswer<FlagList>> {
    let items = flags::list(&app.engine, &operator).await?.into_iter().map(FlagView::from).collect();
    Ok(JsonAnswer(FlagList { items }))
}

/// Sets a feature flag. Every process heeds it within a moment.
#[utoipa::path(
    put, path = "/admin/flags/{name}", tag = "operator", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The flag's name")),
    request_body = FlagBody,
    responses(
        (status = 200, description = "The flag", body = FlagView),
        (status = 404, description = "There is no such flag", body = ErrorBody),
    )
)]
pub(crate) async fn put_flag(
    State(app): State<App>,
    Operator(operator): Operator,
    Path(name): Path<String>,
    Json(body): Json<FlagBody>,
) -> Answer<JsonAnswer<FlagView>> {
    let flag = flags::set(&app.engine, &app.bell, &operator, &name, body.enabled, body.percent).await?;
    Ok(JsonAnswer(flag.into()))
}
