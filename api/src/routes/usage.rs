//! What models cost.

use axum::{Json as JsonAnswer, extract::State};
use chrono::{Days, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    error::Error,
    usage::{self, UsageDay},
};
use utoipa::ToSchema;

use crate::{
    auth::Caller,
    error::{Answer, ErrorBody},
    extract::Parameters,
    state::App,
};

/// Days of one answer at most.
const MOST_DAYS: i64 = 366;

/// The query of GET /v1/usage.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageQuery {
    /// First day, UTC; 29 days before `to` when left out.
    #[param(example = "2026-11-01")]
    from: Option<NaiveDate>,
    /// Last day, UTC; today when left out.
    #[param(example = "2026-11-30")]
    to: Option<NaiveDate>,
}

/// Tokens and cost.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageView {
    from: NaiveDate,
    to: NaiveDate,
    /// One row a day and model; days without use are left out.
    days: Vec<UsageDayView>,
    total: Amounts,
}

/// What one model used on one day.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageDayView {
    day: NaiveDate,
    #[schema(example = "anthropic")]
    provider: String,
    model: String,
    #[serde(flatten)]
    amounts: Amounts,
}

/// Sums.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Amounts {
    /// Calls to models that were sent, whether or not they succeeded.
    calls: i64,
    /// All prompt tokens, cached ones included.
    input_tokens: i64,
    output_tokens: i64,
    cache_read_tokens: i64,
    cache_write_tokens: i64,
    /// Millionths of a dollar.
    cost_micros: i64,
}

impl Amounts {
    fn of(day: &UsageDay) -> Self {
        Self {
            calls: day.calls,
            input_tokens: day.input_tokens,
            output_tokens: day.output_tokens,
            cache_read_tokens: day.cache_read_tokens,
            cache_write_tokens: day.cache_write_tokens,
            cost_micros: day.cost_micros,
        }
    }

    fn add(&mut self, day: &UsageDay) {
        self.calls += day.calls;
        self.input_tokens += day.input_tokens;
        self.output_tokens += day.output_tokens;
        self.cache_read_tokens += day.cache_read_tokens;
        self.cache_write_tokens += day.cache_write_tokens;
        self.cost_micros += day.cost_micros;
    }
}

/// Tokens and cost by day and model: the caller's own, or for an admin the tenant's.
#[utoipa::path(
    get, path = "/v1/usage", tag = "usage", security(("apiKey" = [])), params(UsageQuery),
    responses(
        (status = 200, description = "Usage", body = UsageView),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 422, description = "The range ends before it begins, or is longer than 366 days", body = ErrorBody),
    )
)]
pub(crate) async fn get_usage(
    State(app): State<App>,
    Caller(actor): Caller,
    Parameters(query): Parameters<UsageQuery>,
) -> Answer<JsonAnswer<UsageView>> {
    let to = query.to.unwrap_or_else(|| Utc::now().date_naive());
    let from = query.from.or_else(|| to.checked_sub_days(Days::new(29))).unwrap_or(to);
    let range = to.signed_duration_since(from).num_days();
    if !(0..MOST_DAYS).contains(&range) {
        return Err(Error::unacceptable(format!("from, to: a range takes 1 to {MOST_DAYS} days")).into());
    }
    let days = usage::by_day(&app.tenants, &actor, from, to).await?;
    let mut total = Amounts::default();
    days.iter().for_each(|day| total.add(day));
    let view = |day: UsageDay| UsageDayView {
        day: day.day.date_naive(),
        amounts: Amounts::of(&day),
        provider: day.provider,
        model: day.model,
    };
    Ok(JsonAnswer(UsageView { from, to, days: days.into_iter().map(view).collect(), total }))
}
