//! The breaker of an agent, for a tenant's admins [A8].

use std::time::Duration;

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    agents::breaker::{self, AgentBreaker, BreakerState},
    error::Error,
};
use utoipa::ToSchema;

use super::agents::named;
use crate::{
    auth::Admin,
    error::{Answer, ErrorBody},
    extract::OptionalJson,
    state::App,
};

/// An agent is left alone for a day at most.
const LONGEST: u64 = 86_400;

/// How a breaker stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BreakerStateView {
    /// Deliveries are made.
    Closed,
    /// The agent is left alone.
    Open,
    /// Its time is over: one delivery finds out how the agent is.
    HalfOpen,
}

/// A breaker.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerView {
    state: BreakerStateView,
    /// In a row.
    failures: i64,
    #[schema(required = true)]
    open_until: Option<DateTime<Utc>>,
    /// Null while the agent has never failed.
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
    /// False while the flag CIRCUIT_BREAKER_ENABLED is off for the agent: an open breaker keeps nothing back then.
    heeded: bool,
}

impl From<AgentBreaker> for BreakerView {
    fn from(breaker: AgentBreaker) -> Self {
        Self {
            state: match breaker.state() {
                BreakerState::Closed => BreakerStateView::Closed,
                BreakerState::Open => BreakerStateView::Open,
                BreakerState::HalfOpen => BreakerStateView::HalfOpen,
            },
            failures: breaker.failures,
            open_until: breaker.open_until,
            updated_at: breaker.updated_at,
            heeded: breaker.is_heeded,
        }
    }
}

/// For how long an agent is left alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenBody {
    /// 1 to 86 400.
    #[serde(default = "an_hour")]
    #[schema(minimum = 1, maximum = 86400, default = 3600)]
    seconds: u64,
}

impl Default for OpenBody {
    fn default() -> Self {
        Self { seconds: an_hour() }
    }
}

fn an_hour() -> u64 {
    3600
}

/// Reads the breaker of an agent, which all workers share.
#[utoipa::path(
    get, path = "/admin/agents/{name}/breaker", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 200, description = "The breaker", body = BreakerView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn get_breaker(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<BreakerView>> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let breaker = breaker::get(&mut tx, &admin, &name).await?;
    tx.commit().await?;
    Ok(JsonAnswer(breaker.into()))
}

/// Closes the breaker, as if the agent had never failed: what waited for it is delivered now.
#[utoipa::path(
    post, path = "/admin/agents/{name}/breaker/reset", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    responses(
        (status = 200, description = "The breaker", body = BreakerView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn reset_breaker(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
) -> Answer<JsonAnswer<BreakerView>> {
    let name = named(&name)?;
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let breaker = breaker::reset(&mut tx, &admin, &name).await?;
    tx.commit().await?;
    app.tell_agents();
    Ok(JsonAnswer(breaker.into()))
}

/// Opens the breaker: the agent is told of nothing for a time, which costs its deliveries no retry.
#[utoipa::path(
    post, path = "/admin/agents/{name}/breaker/open", tag = "agents", security(("apiKey" = [])),
    params(("name" = String, Path, description = "The agent's name")),
    request_body = Option<OpenBody>,
    responses(
        (status = 200, description = "The breaker", body = BreakerView),
        (status = 404, description = "There is no such agent", body = ErrorBody),
    )
)]
pub(crate) async fn open_breaker(
    State(app): State<App>,
    Admin(admin): Admin,
    Path(name): Path<String>,
    OptionalJson(body): OptionalJson<OpenBody>,
) -> Answer<JsonAnswer<BreakerView>> {
    let name = named(&name)?;
    if !(1..=LONGEST).contains(&body.seconds) {
        return Err(Error::unacceptable(format!("seconds: takes 1 to {LONGEST}")).into());
    }
    let mut tx = app.tenants.begin(admin.actor()).await?;
    let breaker = breaker::open(&mut tx, &admin, &name, Duration::from_secs(body.seconds)).await?;
    tx.commit().await?;
    Ok(JsonAnswer(breaker.into()))
}
