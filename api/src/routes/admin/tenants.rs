//! The control plane: what operators do with tenants [I4].

use axum::{
    Json as JsonAnswer,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize};
use shared::{
    error::{Error, Result},
    ids::{TenantId, UserId},
    tenancy::{
        OperatorActor,
        control::{self, Change, HostName, Move, NewTenant, Tenant},
        secrets::Delivery,
    },
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{members::InvitationView, secrets::SecretView};
use crate::{
    auth::Operator,
    error::{Answer, ErrorBody, unreadable},
    extract::{Json, Parameters, TenantOfPath},
    routes::chat::without_nul,
    state::App,
};

/// The most that a tenant may be given.
const MOST_RUNNING_TURNS: i64 = 100_000;
const LONGEST_NAME: usize = 200;

/// A tenant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantView {
    #[schema(value_type = Uuid)]
    id: TenantId,
    name: String,
    /// active, suspended or deleting.
    #[schema(example = "active")]
    state: &'static str,
    state_since: DateTime<Utc>,
    created_at: DateTime<Utc>,
    /// Its organisation at WorkOS.
    #[schema(required = true)]
    external_id: Option<String>,
    limits: Limits,
    /// Host names that stand for it.
    hosts: Vec<String>,
}

/// What a tenant may use.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Limits {
    /// The most of its turns that run at once.
    #[schema(minimum = 1, maximum = 100_000)]
    running_turns: i64,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            state: tenant.state.as_str(),
            state_since: tenant.state_since,
            created_at: tenant.created_at,
            external_id: tenant.external_id,
            limits: Limits { running_turns: tenant.running_turns },
            hosts: tenant.hosts,
        }
    }
}

/// A page of tenants.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantList {
    items: Vec<TenantView>,
    /// For the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Items of a page at most, 1 to 1000.
    #[serde(default = "usual_limit")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: i64,
    /// The nextCursor of the page before.
    pub(super) cursor: Option<String>,
}

fn usual_limit() -> i64 {
    100
}

impl Page {
    /// The limit, and the id that the page begins after.
    pub(in crate::routes) fn read(&self) -> Answer<(i64, Option<Uuid>)> {
        if !(1..=1000).contains(&self.limit) {
            return Err(unreadable("limit: takes 1 to 1000"));
        }
        let after = self.cursor.as_deref().map(Uuid::parse_str).transpose();
        let after =
            after.map_err(|_| unreadable("cursor: takes the nextCursor of an earlier page, unchanged"))?;
        Ok((self.limit, after))
    }

    /// The cursor of the page that follows one of so many items.
    pub(in crate::routes) fn next(limit: i64, items: usize, last: Option<Uuid>) -> Option<String> {
        let is_full = i64::try_from(items).unwrap_or(i64::MAX) >= limit;
        last.filter(|_| is_full).map(|last| last.to_string())
    }
}

/// What a new tenant is made from.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TenantBody {
    #[schema(max_length = 200)]
    name: String,
    /// Whose address the first admin has; made when nobody has it.
    #[schema(example = "ann@example.com")]
    admin_email: String,
    /// Its organisation at WorkOS.
    external_id: Option<String>,
    /// Without them, those of TENANT_RUNNING_TURNS.
    limits: Option<Limits>,
    /// Host names that stand for it.
    #[serde(default)]
    hosts: Vec<String>,
}

/// What to change of a tenant; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TenantPatch {
    #[schema(max_length = 200)]
    name: Option<String>,
    /// Null takes the organisation away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    external_id: Option<Option<String>>,
    limits: Option<Limits>,
    /// All of them.
    hosts: Option<Vec<String>>,
}

/// Tells null from what is left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A new tenant with what opens it. Neither key nor secret is stored in clear: keep them now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProvisionedView {
    tenant: TenantView,
    #[schema(value_type = Uuid)]
    admin_user_id: UserId,
    /// The first admin's API key. The first admin is a user that was made for the tenant, until the invitation is accepted by
    /// registering.
    admin_key: String,
    /// For the person with the admin's address to come in by, as an admin. Null when an outside issuer vouched for the
    /// address before: they are the first admin then.
    #[schema(required = true)]
    invitation: Option<InvitationView>,
    header_secret: SecretView,
}

/// Makes a tenant with its first admin, their key and its header secret.
#[utoipa::path(
    post, path = "/admin/tenants", tag = "operator", security(("apiKey" = [])),
    request_body = TenantBody,
    responses(
        (status = 201, description = "The tenant; Location names it", body = ProvisionedView),
        (status = 409, description = "A host or the organisation is another tenant's", body = ErrorBody),
    )
)]
pub(crate) async fn post_tenant(
    State(app): State<App>,
    Operator(operator): Operator,
    Json(body): Json<TenantBody>,
) -> Answer<Response> {
    let new = NewTenant {
        name: name(body.name)?,
        admin_email: super::members::email(&body.admin_email)?,
        external_id: body.external_id.map(external_id).transpose()?,
        running_turns: running_turns(body.limits.as_ref())?.unwrap_or(app.config.tenant_running_turns),
        hosts: hosts(&body.hosts)?,
    };
    let delivery = Delivery::of(&app.config.tenants);
    let made = control::provision(&app.engine, &app.vault, &operator, new, delivery).await?;
    app.callers.tenants.changed(made.tenant.id);
    let location = format!("/admin/tenants/{}", made.tenant.id);
    let view = ProvisionedView {
        tenant: made.tenant.into(),
        admin_user_id: made.admin,
        admin_key: made.admin_key.expose_secret().to_owned(),
        invitation: made.invitation.map(InvitationView::from),
        header_secret: made.header_secret.into(),
    };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], JsonAnswer(view)).into_response())
}

/// Lists the tenants that are not deleted.
#[utoipa::path(
    get, path = "/admin/tenants", tag = "operator", security(("apiKey" = [])),
    params(Page),
    responses(
        (status = 200, description = "A page of tenants", body = TenantList),
        (status = 400, description = "An unreadable parameter", body = ErrorBody),
    )
)]
pub(crate) async fn list_tenants(
    State(app): State<App>,
    Operator(operator): Operator,
    Parameters(page): Parameters<Page>,
) -> Answer<JsonAnswer<TenantList>> {
    let (limit, after) = page.read()?;
    let tenants = control::list(&app.engine, &operator, after.map(TenantId), limit).await?;
    let next_cursor = Page::next(limit, tenants.len(), tenants.last().map(|tenant| tenant.id.0));
    Ok(JsonAnswer(TenantList { items: tenants.into_iter().map(TenantView::from).collect(), next_cursor }))
}

/// Reads a tenant.
#[utoipa::path(
    get, path = "/admin/tenants/{id}", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
    )
)]
pub(crate) async fn get_tenant(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<JsonAnswer<TenantView>> {
    Ok(JsonAnswer(control::one(&app.engine, &operator, id).await?.into()))
}

/// Changes a tenant's name, organisation, limits or hosts.
#[utoipa::path(
    patch, path = "/admin/tenants/{id}", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    request_body = TenantPatch,
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
        (status = 409, description = "A host or the organisation is another tenant's, or it is being deleted", body = ErrorBody),
    )
)]
pub(crate) async fn patch_tenant(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
    Json(body): Json<TenantPatch>,
) -> Answer<JsonAnswer<TenantView>> {
    let change = Change {
        name: body.name.map(name).transpose()?,
        external_id: body.external_id.map(|given| given.map(external_id).transpose()).transpose()?,
        running_turns: running_turns(body.limits.as_ref())?,
        hosts: body.hosts.as_deref().map(hosts).transpose()?,
    };
    let tenant = control::change(&app.engine, &operator, id, &change).await?;
    app.callers.tenants.changed(id);
    Ok(JsonAnswer(tenant.into()))
}

/// Refuses the tenant's requests from now on; its data stays, and turns that were accepted still end.
#[utoipa::path(
    post, path = "/admin/tenants/{id}/suspend", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
        (status = 409, description = "It is the default tenant, or is being deleted", body = ErrorBody),
    )
)]
pub(crate) async fn suspend(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<JsonAnswer<TenantView>> {
    Ok(JsonAnswer(move_to(&app, &operator, id, Move::Suspend).await?))
}

/// Serves a suspended tenant again.
#[utoipa::path(
    post, path = "/admin/tenants/{id}/resume", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
        (status = 409, description = "It is being deleted", body = ErrorBody),
    )
)]
pub(crate) async fn resume(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<JsonAnswer<TenantView>> {
    Ok(JsonAnswer(move_to(&app, &operator, id, Move::Resume).await?))
}

/// Deletes a tenant: refuses its requests, and has a worker erase its data. Export it first.
#[utoipa::path(
    delete, path = "/admin/tenants/{id}", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 202, description = "It is being erased; 404 once it is", body = TenantView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
        (status = 409, description = "It is the default tenant", body = ErrorBody),
    )
)]
pub(crate) async fn delete_tenant(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<(StatusCode, JsonAnswer<TenantView>)> {
    Ok((StatusCode::ACCEPTED, JsonAnswer(move_to(&app, &operator, id, Move::Delete).await?)))
}

/// Downloads all that a tenant has, as JSON lines; an answer that ends without the line {"end":true} is not whole.
#[utoipa::path(
    get, path = "/admin/tenants/{id}/export", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 200, description = "Lines of {\"table\",\"row\"}", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
    )
)]
pub(crate) async fn export(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<Response> {
    control::one(&app.engine, &operator, id).await?;
    let lines = control::export(&app.tenants, &operator, id).await?;
    let chunks = stream::unfold(Some(lines), async |lines| {
        let mut lines = lines?;
        match lines.next().await {
            Ok(Some(text)) => Some((Ok(text), Some(lines))),
            Ok(None) => Some((Ok("{\"end\":true}\n".to_owned()), None)),
            // The status is out already: the missing last line tells.
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an export broke off");
                Some((Err(error), None))
            }
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let file = HeaderValue::from_str(&format!("attachment; filename=\"tenant-{id}.jsonl\""));
    headers.insert(header::CONTENT_DISPOSITION, file.map_err(Error::internal)?);
    Ok(response)
}

async fn move_to(app: &App, operator: &OperatorActor, id: TenantId, to: Move) -> Result<TenantView> {
    let tenant = control::move_to(&app.engine, operator, app.config.default_tenant, id, to).await?;
    app.callers.tenants.changed(id);
    Ok(tenant.into())
}

fn name(name: String) -> Result<String> {
    let name = without_nul(name).trim().to_owned();
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Error::unacceptable("name: takes 1 to 200 bytes"));
    }
    Ok(name)
}

fn external_id(id: String) -> Result<String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !(1..=128).contains(&id.len()) || !id.bytes().all(is_safe) {
        return Err(Error::unacceptable("externalId: takes 1 to 128 letters, digits, '_', '-' and '.'"));
    }
    Ok(id)
}

fn running_turns(limits: Option<&Limits>) -> Result<Option<i64>> {
    match limits.map(|limits| limits.running_turns) {
        Some(wanted) if !(1..=MOST_RUNNING_TURNS).contains(&wanted) => {
            Err(Error::unacceptable(format!("limits.runningTurns: takes 1 to {MOST_RUNNING_TURNS}")))
        }
        wanted => Ok(wanted),
    }
}

fn hosts(hosts: &[String]) -> Result<Vec<HostName>> {
    if hosts.len() > 100 {
        return Err(Error::unacceptable("hosts: takes at most 100"));
    }
    hosts.iter().map(|host| host.parse()).collect()
}
