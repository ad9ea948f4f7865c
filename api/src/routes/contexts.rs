//! What is known of the caller [A4]: read, changed in part, and the preferences replaced.

use axum::{Json as JsonAnswer, extract::State};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, header};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    agents::contexts::{self, AGENT_PERMISSIONS, Change, ChangedBy, Context},
    identity::Credential,
    ids::SignInId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::CallerBy,
    error::{Answer, ErrorBody},
    extract::{Json, RequestId},
    headers::if_match,
    state::App,
};

/// A context with its version as the entity tag.
type Tagged = ([(HeaderName, String); 1], JsonAnswer<ContextView>);

/// How somebody wants to be dealt with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared::agents::contexts checks it")]
pub(crate) struct Preferences {
    /// conservative, moderate or aggressive.
    #[schema(example = "moderate")]
    trading_style: Option<String>,
    /// At most 100, each once.
    #[schema(example = json!(["energy", "technology"]))]
    sectors_of_interest: Option<Vec<String>>,
    /// The application's own.
    #[schema(value_type = Option<Object>)]
    notification_settings: Option<Value>,
    /// IANA name.
    #[schema(example = "Europe/Berlin")]
    timezone: Option<String>,
}

/// What somebody has, and within which limits. Amounts are decimal numbers in strings.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared::agents::contexts checks it")]
pub(crate) struct PortfolioSettings {
    #[schema(example = "125000.50")]
    total_portfolio_value: Option<String>,
    /// May be below zero.
    #[schema(example = "4200")]
    available_cash: Option<String>,
    /// An amount by name.
    #[schema(value_type = Option<Object>, example = json!({"ACME": "10000"}))]
    position_limits: Option<Value>,
    /// never, daily, weekly, monthly, quarterly or annually.
    #[schema(example = "quarterly")]
    rebalancing_frequency: Option<String>,
}

/// What somebody can bear.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared::agents::contexts checks it")]
pub(crate) struct RiskProfile {
    /// low, medium or high.
    #[schema(example = "low")]
    risk_tolerance: Option<String>,
    #[schema(example = "5000")]
    max_position_size: Option<String>,
    /// 0 to 100.
    #[schema(example = "7.5")]
    stop_loss_percentage: Option<String>,
    /// The application's own.
    #[schema(value_type = Option<Object>)]
    diversification_requirements: Option<Value>,
}

/// What is known of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContextView {
    user_id: Uuid,
    /// Null for some users of outside issuers.
    #[schema(required = true)]
    email: Option<String>,
    /// Whether the user is signed in.
    is_active: bool,
    /// By which sign-in: the caller's own, for others the newest; null for an API key.
    #[schema(required = true)]
    session_id: Option<Uuid>,
    #[schema(value_type = Preferences)]
    preferences: Value,
    #[schema(value_type = PortfolioSettings)]
    portfolio_settings: Value,
    /// Names, or objects with a name.
    #[schema(value_type = Vec<Object>)]
    active_strategies: Value,
    #[schema(value_type = RiskProfile)]
    risk_profile: Value,
    /// By the agent's name: restricted, read_only, read_write or admin, at most. No agent sees this.
    #[schema(value_type = Object, example = json!({"risk_management": "read_only"}))]
    agent_permissions: Value,
    /// Every change moves it by one.
    version: i64,
    /// Null while nothing was ever changed.
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
}

impl ContextView {
    /// The context of somebody who is signed in by this, or not at all.
    pub(super) fn new(context: &Context, sign_in: Option<SignInId>) -> Self {
        let member = |name| context.document.member(name);
        Self {
            user_id: context.user.0,
            email: context.email.clone(),
            is_active: sign_in.is_some(),
            session_id: sign_in.map(|sign_in| sign_in.0),
            preferences: member("preferences"),
            portfolio_settings: member("portfolio_settings"),
            active_strategies: member("active_strategies"),
            risk_profile: member("risk_profile"),
            agent_permissions: member(AGENT_PERMISSIONS),
            version: context.version,
            updated_at: context.updated_at,
        }
    }

    /// The caller's own, who is active by calling.
    fn of_caller(context: &Context, credential: Credential) -> Tagged {
        let sign_in = match credential {
            Credential::Bearer(sign_in) | Credential::Cookie(sign_in) => Some(sign_in),
            Credential::ApiKey(_) | Credential::OutsideBearer => None,
        };
        let view = Self { is_active: true, ..Self::new(context, sign_in) };
        ([etag(context.version)], JsonAnswer(view))
    }
}

/// The version as an entity tag.
pub(super) fn etag(version: i64) -> (HeaderName, String) {
    (header::ETAG, format!("\"{version}\""))
}

/// What to change of a context (JSON merge patch): what is given replaces, null removes, objects are merged.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the shape; shared::agents::contexts checks it")]
pub(crate) struct ContextPatch {
    preferences: Option<Preferences>,
    portfolio_settings: Option<PortfolioSettings>,
    #[schema(value_type = Option<Vec<Object>>)]
    active_strategies: Option<Value>,
    risk_profile: Option<RiskProfile>,
    #[schema(value_type = Option<Object>)]
    agent_permissions: Option<Value>,
}

/// Reads what is known of the caller.
#[utoipa::path(
    get, path = "/api/v1/me/context", tag = "contexts", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The context; version 1 and empty for who never changed it", body = ContextView,
         headers(("ETag" = String, description = "The version"))),
    )
)]
pub(crate) async fn get_my_context(
    State(app): State<App>,
    CallerBy(actor, credential): CallerBy,
) -> Answer<Tagged> {
    let context = app.contexts.get(&actor).await?;
    Ok(ContextView::of_caller(&context, credential))
}

/// Changes what is known of the caller, and has agents told that may see what changed.
#[utoipa::path(
    patch, path = "/api/v1/me/context", tag = "contexts", security(("apiKey" = [])),
    params(("If-Match" = Option<String>, Header, description = "The version that was seen")),
    request_body(content = ContextPatch, content_type = "application/json"),
    responses(
        (status = 200, description = "The context", body = ContextView, headers(("ETag" = String, description = "The version"))),
        (status = 400, description = "Unreadable JSON or If-Match", body = ErrorBody),
        (status = 412, description = "The version is another one by now", body = ErrorBody),
        (status = 422, description = "A field is not acceptable; the member field has its path", body = ErrorBody),
    )
)]
pub(crate) async fn patch_my_context(
    State(app): State<App>,
    caller: CallerBy,
    request: RequestId,
    headers: HeaderMap,
    Json(changes): Json<Map<String, Value>>,
) -> Answer<Tagged> {
    change(&app, caller, &request, &headers, Change::Merge(changes)).await
}

/// Replaces the caller's preferences, all of them.
#[utoipa::path(
    put, path = "/api/v1/me/preferences", tag = "contexts", security(("apiKey" = [])),
    params(("If-Match" = Option<String>, Header, description = "The version of the context that was seen")),
    request_body(content = Preferences, content_type = "application/json"),
    responses(
        (status = 200, description = "The context", body = ContextView, headers(("ETag" = String, description = "The version"))),
        (status = 400, description = "Unreadable JSON or If-Match", body = ErrorBody),
        (status = 412, description = "The version is another one by now", body = ErrorBody),
        (status = 422, description = "A field is not acceptable; the member field has its path", body = ErrorBody),
    )
)]
pub(crate) async fn put_my_preferences(
    State(app): State<App>,
    caller: CallerBy,
    request: RequestId,
    headers: HeaderMap,
    Json(preferences): Json<Map<String, Value>>,
) -> Answer<Tagged> {
    change(&app, caller, &request, &headers, Change::Preferences(preferences)).await
}

async fn change(
    app: &App,
    CallerBy(actor, credential): CallerBy,
    RequestId(request): &RequestId,
    headers: &HeaderMap,
    change: Change,
) -> Answer<Tagged> {
    let if_match = if_match(headers)?;
    let mut tx = app.tenants.begin(&actor).await?;
    let changed = contexts::change(&mut tx, ChangedBy::User, change, if_match, request).await?;
    if changed.is_new {
        tx.commit().await?;
        app.contexts.changed(actor.tenant, &changed.context);
    } else {
        tx.rollback().await?;
    }
    Ok(ContextView::of_caller(&changed.context, credential))
}
