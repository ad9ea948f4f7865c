//! API keys: made, listed, revoked by their owners.

use std::time::Instant;

use axum::{Json as JsonAnswer, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use http::header;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Invalid},
    identity::{
        Credential, Scope, Scopes,
        api_keys::{self, ApiKey, NewApiKey},
    },
    ids::ApiKeyId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::chat::without_nul;
use crate::{
    auth::{
        Caller,
        event::{About, Event, Outcome, note},
    },
    error::{Answer, ErrorBody},
    extract::{ApiKeyOfPath, Json, Parameters},
    state::App,
};

/// Keys in one page of a list, unless asked for fewer.
const PAGE: i64 = 50;

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostKey {
    /// What its owner calls it, up to 200 characters.
    #[serde(default)]
    #[schema(example = "laptop")]
    name: String,
    /// read, write, chat, admin; the first three when left out.
    scopes: Option<Vec<String>>,
    /// When it ends; left out, when it is revoked.
    expires_at: Option<DateTime<Utc>>,
}

/// An API key, without the key itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyView {
    id: Uuid,
    name: String,
    scopes: Vec<&'static str>,
    /// The tenant it is good in.
    tenant_id: Uuid,
    /// Whose it is.
    user_id: Uuid,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    /// Right to some seconds.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.0,
            name: key.name,
            scopes: key.scopes.words(),
            tenant_id: key.tenant.0,
            user_id: key.user.0,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewKeyView {
    /// The key, for the header X-API-Key. It is shown this once.
    key: String,
    #[serde(flatten)]
    made: KeyView,
}

/// Makes an API key in the caller's tenant. It may do nothing that the caller's own credential may not.
#[utoipa::path(
    post, path = "/api/v1/auth/keys", tag = "auth", security(("apiKey" = [])),
    request_body = PostKey,
    responses(
        (status = 201, description = "The key", body = NewKeyView,
         headers(("Location" = String, description = "/api/v1/auth/keys/{id}"))),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 403, description = "The credential lacks the scope admin, or one that the key is to have", body = ErrorBody),
        (status = 409, description = "There are too many keys", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "A member is not acceptable", body = ErrorBody),
    )
)]
pub(crate) async fn post_key(
    State(app): State<App>,
    Caller(actor): Caller,
    Json(body): Json<PostKey>,
) -> Answer<(StatusCode, [(header::HeaderName, String); 1], JsonAnswer<NewKeyView>)> {
    let since = Instant::now();
    let scopes = match &body.scopes {
        Some(words) => scopes(words)?,
        None => Scopes::ALL.and(Scopes::NONE.with(Scope::Read).with(Scope::Write).with(Scope::Chat)),
    };
    let new = NewApiKey { name: without_nul(body.name), scopes, expires_at: body.expires_at };
    let mut tx = app.tenants.begin(&actor).await?;
    let (made, key) = api_keys::create(&mut tx, new).await?;
    tx.commit().await?;
    note(Event::KeyMade, Outcome::Success, since, About { user: Some(actor.user), ..About::default() });
    let location = (header::LOCATION, format!("/api/v1/auth/keys/{}", made.id));
    let made = NewKeyView { key: key.expose_secret().to_owned(), made: made.into() };
    Ok((StatusCode::CREATED, [location], JsonAnswer(made)))
}

fn scopes(words: &[String]) -> Result<Scopes, Error> {
    let mut scopes = Scopes::NONE;
    for word in words {
        let Some(scope) = Scope::from_word(word) else {
            return Err(Error::unacceptable("scopes: takes read, write, chat and admin"));
        };
        scopes = scopes.with(scope);
    }
    Ok(scopes)
}

/// The query of GET /api/v1/auth/keys.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeysQuery {
    /// Goes on after this key, as `next` says.
    after: Option<Uuid>,
    /// 1 to 200; 50 when left out.
    limit: Option<i64>,
}

/// Keys, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeysView {
    keys: Vec<KeyView>,
    /// The `after` of the next page, when there may be more.
    next: Option<Uuid>,
}

/// Lists live API keys of the caller's tenant: their own, and for an admin everybody's.
#[utoipa::path(
    get, path = "/api/v1/auth/keys", tag = "auth", security(("apiKey" = [])),
    params(KeysQuery),
    responses(
        (status = 200, description = "The keys", body = KeysView),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 403, description = "The credential lacks the scope admin", body = ErrorBody),
    )
)]
pub(crate) async fn list_keys(
    State(app): State<App>,
    Caller(actor): Caller,
    Parameters(query): Parameters<KeysQuery>,
) -> Answer<JsonAnswer<KeysView>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=200).contains(&limit) {
        return Err(Error::invalid(Invalid::Unreadable, "limit: takes 1 to 200").into());
    }
    let mut tx = app.tenants.begin(&actor).await?;
    let keys = api_keys::list(&mut tx, query.after.map(ApiKeyId), limit).await?;
    tx.commit().await?;
    let is_full = i64::try_from(keys.len()).is_ok_and(|length| length == limit);
    let next = keys.last().filter(|_| is_full).map(|key| key.id.0);
    Ok(JsonAnswer(KeysView { keys: keys.into_iter().map(KeyView::from).collect(), next }))
}

/// Revokes an API key: at once on this process, within ten seconds on the others.
#[utoipa::path(
    delete, path = "/api/v1/auth/keys/{id}", tag = "auth", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The key's id")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 403, description = "The credential lacks the scope admin", body = ErrorBody),
        (status = 404, description = "There is no such key", body = ErrorBody),
    )
)]
pub(crate) async fn delete_key(
    State(app): State<App>,
    Caller(actor): Caller,
    ApiKeyOfPath(id): ApiKeyOfPath,
) -> Answer<StatusCode> {
    let since = Instant::now();
    let mut tx = app.tenants.begin(&actor).await?;
    api_keys::revoke(&mut tx, id).await?;
    tx.commit().await?;
    app.callers.forget(|other| other.credential == Credential::ApiKey(id));
    note(Event::KeyRevoked, Outcome::Success, since, About { user: Some(actor.user), ..About::default() });
    Ok(StatusCode::NO_CONTENT)
}
