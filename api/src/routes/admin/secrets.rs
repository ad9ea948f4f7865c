//! A tenant's header secrets, for operators. Every reading is in the audit log.

use axum::{
    Json as JsonAnswer,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use shared::{
    error::Error,
    tenancy::secrets::{self, Delivery, HeaderSecret, HeaderSecretInfo},
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::Operator,
    error::{Answer, ErrorBody},
    extract::TenantOfPath,
    state::App,
};

/// A header secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretView {
    id: Uuid,
    /// What X-TB-Signature is made with.
    secret: String,
}

impl From<HeaderSecret> for SecretView {
    fn from(secret: HeaderSecret) -> Self {
        Self { id: secret.id, secret: secret.secret.expose_secret().to_owned() }
    }
}

/// What is told of a secret without reading it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretInfo {
    id: Uuid,
    created_at: DateTime<Utc>,
    /// When whoever signs was given it; null while it waits to be fetched, or for the worker to put it in its folder.
    #[schema(required = true)]
    delivered_at: Option<DateTime<Utc>>,
    /// When it is good no more; null for the newest.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
}

impl From<HeaderSecretInfo> for SecretInfo {
    fn from(info: HeaderSecretInfo) -> Self {
        let HeaderSecretInfo { id, created_at, delivered_at, expires_at } = info;
        Self { id, created_at, delivered_at, expires_at }
    }
}

/// The secrets that are good.
#[derive(Serialize, ToSchema)]
pub(crate) struct SecretList {
    /// Newest first.
    items: Vec<SecretInfo>,
}

/// Lists the tenant's header secrets that are good, without reading them.
#[utoipa::path(
    get, path = "/admin/tenants/{id}/secrets", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 200, description = "The secrets", body = SecretList),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
    )
)]
pub(crate) async fn list_secrets(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<JsonAnswer<SecretList>> {
    let items = secrets::list(&app.engine, &operator, id).await?;
    Ok(JsonAnswer(SecretList { items: items.into_iter().map(SecretInfo::from).collect() }))
}

/// Makes a new header secret. The one before stays good for seven days after the new one was delivered, older ones end now.
#[utoipa::path(
    post, path = "/admin/tenants/{id}/secrets", tag = "operator", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The tenant's id")),
    responses(
        (status = 201, description = "The new secret", body = SecretView),
        (status = 404, description = "There is no such tenant, or it is deleted", body = ErrorBody),
    )
)]
pub(crate) async fn post_secret(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
) -> Answer<(StatusCode, JsonAnswer<SecretView>)> {
    let delivery = Delivery::of(&app.config.tenants);
    let made = secrets::rotate(&app.engine, &app.vault, &operator, id, delivery).await?;
    app.callers.tenants.changed(id);
    Ok((StatusCode::CREATED, JsonAnswer(made.into())))
}

/// Reads a header secret that is good; without TENANT_SECRETS_FOLDER that delivers it, and those before it end seven days later.
#[utoipa::path(
    get, path = "/admin/tenants/{id}/secrets/{secretId}", tag = "operator", security(("apiKey" = [])),
    params(
        ("id" = Uuid, Path, description = "The tenant's id"),
        ("secretId" = Uuid, Path, description = "The secret's id"),
    ),
    responses(
        (status = 200, description = "The secret", body = SecretView),
        (status = 404, description = "There is no such tenant or secret", body = ErrorBody),
    )
)]
pub(crate) async fn get_secret(
    State(app): State<App>,
    Operator(operator): Operator,
    TenantOfPath(id): TenantOfPath,
    path: Result<Path<SecretOfPath>, axum::extract::rejection::PathRejection>,
) -> Answer<JsonAnswer<SecretView>> {
    let Ok(Path(SecretOfPath { secret_id })) = path else {
        return Err(Error::not_found("the tenant has no such secret").into());
    };
    let delivery = Delivery::of(&app.config.tenants);
    let read = secrets::read(&app.engine, &app.vault, &operator, id, secret_id, delivery).await?;
    Ok(JsonAnswer(read.into()))
}

/// The secret that a path names.
#[derive(Deserialize)]
pub(crate) struct SecretOfPath {
    #[serde(rename = "secretId")]
    secret_id: Uuid,
}
