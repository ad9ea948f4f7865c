//! Sign-ins: listed and revoked by whoever signed in, and the password that new ones begin with.

use std::time::Instant;

use axum::{Json as JsonAnswer, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use shared::{
    error::{Error, Invalid},
    identity::{Credential, Principal, SignIn},
    ids::SignInId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    address::ClientAddress,
    auth::{
        Person,
        event::{About, Event, Outcome, note},
    },
    error::{Answer, ErrorBody},
    extract::{Json, Parameters, SignInOfPath},
    state::App,
};

/// Sign-ins in one page of a list, unless asked for fewer.
const PAGE: i64 = 50;

/// A sign-in that has not ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignInView {
    id: Uuid,
    /// token for programs, cookie for browsers.
    kind: String,
    /// What it may be used for: read, write, chat, admin.
    scopes: Vec<&'static str>,
    /// The program of somebody else that acts for the user, by its client id.
    client_id: Option<String>,
    /// Where it began.
    #[schema(example = "203.0.113.7")]
    address: Option<String>,
    /// What the program or browser called itself then.
    user_agent: Option<String>,
    /// Whether it is the one that asks.
    current: bool,
    created_at: DateTime<Utc>,
    /// Right to some seconds.
    last_used_at: DateTime<Utc>,
    /// When it ends if it is not used.
    expires_at: DateTime<Utc>,
}

impl SignInView {
    fn of(sign_in: SignIn, current: Option<SignInId>) -> Self {
        Self {
            id: sign_in.id.0,
            kind: sign_in.kind,
            scopes: sign_in.scopes.words(),
            client_id: sign_in.client,
            address: sign_in.address,
            user_agent: sign_in.user_agent,
            current: current == Some(sign_in.id),
            created_at: sign_in.created_at,
            last_used_at: sign_in.last_used_at,
            expires_at: sign_in.expires_at,
        }
    }
}

/// The query of GET /api/v1/auth/sign-ins.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SignInsQuery {
    /// Goes on after this sign-in, as `next` says.
    after: Option<Uuid>,
    /// 1 to 200; 50 when left out.
    limit: Option<i64>,
}

/// Sign-ins, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignInsView {
    sign_ins: Vec<SignInView>,
    /// The `after` of the next page, when there may be more.
    next: Option<Uuid>,
}

/// Lists the sign-ins of the credential's user that have not ended.
#[utoipa::path(
    get, path = "/api/v1/auth/sign-ins", tag = "auth", security(("apiKey" = [])),
    params(SignInsQuery),
    responses(
        (status = 200, description = "The sign-ins", body = SignInsView),
        (status = 400, description = "A parameter cannot be read", body = ErrorBody),
        (status = 403, description = "The credential lacks the scope admin", body = ErrorBody),
    )
)]
pub(crate) async fn list_sign_ins(
    State(app): State<App>,
    Person(principal): Person,
    Parameters(query): Parameters<SignInsQuery>,
) -> Answer<JsonAnswer<SignInsView>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=200).contains(&limit) {
        return Err(Error::invalid(Invalid::Unreadable, "limit: takes 1 to 200").into());
    }
    let found = app.callers.sign_ins().list(principal.user, query.after.map(SignInId), limit).await?;
    let is_full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next = found.last().filter(|_| is_full).map(|sign_in| sign_in.id.0);
    let current = own(&principal);
    let sign_ins = found.into_iter().map(|sign_in| SignInView::of(sign_in, current)).collect();
    Ok(JsonAnswer(SignInsView { sign_ins, next }))
}

/// Ends one of the sign-ins of the credential's user: refresh token, access tokens or cookie are good no more, at once on
/// this process and within ten seconds on the others.
#[utoipa::path(
    delete, path = "/api/v1/auth/sign-ins/{id}", tag = "auth", security(("apiKey" = [])),
    params(("id" = Uuid, Path, description = "The sign-in's id")),
    responses(
        (status = 204, description = "Ended"),
        (status = 403, description = "The credential lacks the scope admin, or under cookies the CSRF token", body = ErrorBody),
        (status = 404, description = "The user has no such sign-in, or it has ended", body = ErrorBody),
    )
)]
pub(crate) async fn delete_sign_in(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Person(principal): Person,
    SignInOfPath(id): SignInOfPath,
) -> Answer<StatusCode> {
    let since = Instant::now();
    app.callers.sign_ins().revoke(principal.user, id).await?;
    app.callers.forget(|other| own(other) == Some(id));
    let about = About { address: Some(address), user: Some(principal.user), sign_in: Some(id) };
    note(Event::SignInRevoked, Outcome::Success, since, about);
    Ok(StatusCode::NO_CONTENT)
}

/// The present password and a new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostPassword {
    #[schema(value_type = String, format = Password)]
    current_password: SecretString,
    /// 8 characters or more, 1024 bytes at most.
    #[schema(value_type = String, format = Password)]
    new_password: SecretString,
}

/// Changes the password of the credential's user, and ends their other sign-ins everywhere. API keys stay good.
#[utoipa::path(
    post, path = "/api/v1/auth/password", tag = "auth", security(("apiKey" = [])),
    request_body = PostPassword,
    responses(
        (status = 204, description = "Changed"),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 403, description = "The credential lacks the scope admin, or under cookies the CSRF token", body = ErrorBody),
        (status = 409, description = "The account has no password: an outside issuer signs its user in", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "The present password is wrong, or the new one not acceptable", body = ErrorBody),
        (status = 429, description = "Too many attempts; Retry-After says when", body = ErrorBody),
    )
)]
pub(crate) async fn post_password(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Person(principal): Person,
    Json(body): Json<PostPassword>,
) -> Answer<StatusCode> {
    let since = Instant::now();
    let (user, keep) = (principal.user, own(&principal));
    let about = About { address: Some(address), user: Some(user), sign_in: keep };
    let sign_ins = app.callers.sign_ins();
    let changed =
        sign_ins.change_password(address, user, keep, body.current_password, body.new_password).await;
    if let Err(error) = changed {
        note(Event::PasswordChanged, Outcome::of(&error), since, about);
        return Err(error.into());
    }
    app.callers.forget(|other| other.user == user && own(other) != keep);
    note(Event::PasswordChanged, Outcome::Success, since, about);
    Ok(StatusCode::NO_CONTENT)
}

/// The sign-in of a credential, if it is of one.
fn own(principal: &Principal) -> Option<SignInId> {
    match principal.credential {
        Credential::Bearer(sign_in) | Credential::Cookie(sign_in) => Some(sign_in),
        Credential::ApiKey(_) | Credential::OutsideBearer => None,
    }
}
