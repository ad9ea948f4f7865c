//! Signing up, in and out [I2].
//!
//! Nothing here tells who has an account: a wrong password and an unknown address have one answer after the same work,
//! and so has registering a free address and a taken one.

use std::{net::IpAddr, time::Instant};

use axum::{
    Json as JsonAnswer,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, Utc};
use http::{HeaderValue, header, request::Parts};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use shared::{
    error::{Code, Error, Result},
    identity::{
        Credential, EmailAddress, EndedBecause, Principal, PublishedKey, Refreshed, Scope, Tokens, User,
        not_good,
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    address::{ClientAddress, sign_in_from},
    auth::{
        Person,
        event::{About, Event, Outcome, note},
        note_route,
    },
    error::{Answer, ErrorBody},
    extract::{Json, OptionalJson},
    state::App,
};

/// An address and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    #[schema(example = "ann@example.com")]
    email: String,
    /// 8 characters or more, 1024 bytes at most.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The code of an invitation: the account belongs to its tenant, also where accounts are not for everybody.
    #[schema(value_type = Option<String>)]
    invitation: Option<SecretString>,
}

/// What registering answers, whether or not the address had an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Registered {
    message: &'static str,
}

/// Makes an account. The answer is the same when the address has one already, which then stays as it is, and an invitation
/// open: POST /api/v1/auth/invitations/accept accepts it for whoever has signed in.
#[utoipa::path(
    post, path = "/api/v1/auth/register", tag = "auth",
    request_body = Registration,
    responses(
        (status = 202, description = "The address has an account now, this one or the one it had: sign in", body = Registered),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 403, description = "This deployment makes no accounts by itself", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "The address, the password or the invitation is not acceptable", body = ErrorBody),
        (status = 429, description = "Too many accounts from one address; Retry-After says when", body = ErrorBody),
    )
)]
pub(crate) async fn register(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Json(body): Json<Registration>,
) -> Answer<(StatusCode, JsonAnswer<Registered>)> {
    let since = Instant::now();
    let about = About { address: Some(address), ..About::default() };
    let made = match try_to_register(&app, address, body).await {
        Ok(made) => made,
        Err(error) => {
            note(Event::Register, Outcome::of(&error), since, about);
            return Err(error.into());
        }
    };
    let outcome = if made.is_some() { Outcome::Success } else { Outcome::Taken };
    note(Event::Register, outcome, since, About { user: made, ..about });
    let message = "if the address was free it has an account now; sign in with POST /api/v1/auth/login";
    Ok((StatusCode::ACCEPTED, JsonAnswer(Registered { message })))
}

async fn try_to_register(
    app: &App,
    address: IpAddr,
    body: Registration,
) -> Result<Option<shared::ids::UserId>> {
    if !app.config.sign_ins.registration && body.invitation.is_none() {
        return Err(Error::new(Code::Forbidden, "accounts are made by the operators of this deployment"));
    }
    let email = EmailAddress::parse(&body.email)?;
    let sign_ins = app.callers.sign_ins();
    let Some(code) = &body.invitation else {
        return sign_ins.register(address, &email, body.password).await;
    };
    let made = sign_ins.register_invited(address, &email, body.password, code).await?;
    if let Some(user) = made {
        app.callers.tenants.directory.forget(user);
    }
    Ok(made)
}

/// An address, its password, and what is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    #[schema(example = "ann@example.com")]
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// Set cookies for a browser, and answer without tokens.
    #[serde(default)]
    cookie: bool,
}

/// A person, as they see themselves.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserView {
    id: Uuid,
    /// A short number for people.
    number: i64,
    /// Null for a user of an outside issuer that vouched for no address, or for one that somebody else has.
    email: Option<String>,
    /// Whether somebody whom the deployment trusts has checked the address.
    email_verified: bool,
    /// IANA name.
    timezone: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.0,
            number: user.number,
            email: user.email,
            email_verified: user.email_verified,
            timezone: user.timezone,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// Someone who signed in. Without tokens when cookies were wanted.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// For `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Bearer")]
    token_type: Option<&'static str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    /// For one POST /api/v1/auth/refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    user: UserView,
}

impl SignedIn {
    fn with_tokens(tokens: &Tokens, user: User) -> Self {
        Self {
            access_token: Some(tokens.access.expose_secret().to_owned()),
            token_type: Some("Bearer"),
            expires_in: Some(tokens.access_life.as_secs()),
            refresh_token: Some(tokens.refresh.expose_secret().to_owned()),
            user: user.into(),
        }
    }

    fn with_cookies(user: User) -> Self {
        Self {
            access_token: None,
            token_type: None,
            expires_in: None,
            refresh_token: None,
            user: user.into(),
        }
    }
}

/// Signs in with a password: tokens, or with `"cookie": true` a browser's session.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth",
    request_body = Login,
    responses(
        (status = 200, description = "Signed in", body = SignedIn,
         headers(("Set-Cookie" = Option<String>, description = "With cookies: the session and its CSRF token"))),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 401, description = "The address or the password is wrong", body = ErrorBody),
        (status = 403, description = "Cookies were wanted by a page of another site", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "A member is not acceptable", body = ErrorBody),
        (status = 429, description = "Too many attempts; Retry-After says when", body = ErrorBody),
    )
)]
pub(crate) async fn login(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    parts: Parts,
    Json(body): Json<Login>,
) -> Answer<Response> {
    let since = Instant::now();
    let about = About { address: Some(address), ..About::default() };
    match try_to_login(&app, address, &parts, body).await {
        Ok((response, about)) => {
            note(Event::Login, Outcome::Success, since, About { address: Some(address), ..about });
            Ok(response)
        }
        Err(error) => {
            note(Event::Login, Outcome::of(&error), since, about);
            Err(error.into())
        }
    }
}

async fn try_to_login(app: &App, address: IpAddr, parts: &Parts, body: Login) -> Result<(Response, About)> {
    let (sign_ins, cookies) = (app.callers.sign_ins(), app.callers.cookies());
    if body.cookie {
        // Nobody is to be signed in to an account that another site has chosen.
        cookies.must_be_own_page(parts)?;
    }
    let email = EmailAddress::parse(&body.email)?;
    let wrong = || Error::new(Code::Auth, "the address or the password is wrong");
    let proven = sign_ins.authenticate(address, &email, body.password).await?.ok_or_else(wrong)?;
    let about = About { user: Some(proven.user.id), ..About::default() };
    let from = sign_in_from(Some(address), &parts.headers);
    // None when the password was changed since it was checked.
    if body.cookie {
        let session = sign_ins.log_in_cookie(&proven, &from).await?.ok_or_else(wrong)?;
        let about = About { sign_in: Some(session.sign_in), ..about };
        let answer = JsonAnswer(SignedIn::with_cookies(proven.user));
        return Ok((with_cookies(cookies.set(&session), answer), about));
    }
    let tokens = sign_ins.log_in_tokens(&proven, &from).await?.ok_or_else(wrong)?;
    let about = About { sign_in: Some(tokens.sign_in), ..about };
    Ok((JsonAnswer(SignedIn::with_tokens(&tokens, proven.user)).into_response(), about))
}

fn with_cookies(cookies: [HeaderValue; 2], answer: impl axum::response::IntoResponse) -> Response {
    let mut response = answer.into_response();
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A refresh token; browsers with cookies leave it out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
}

/// Exchanges a refresh token for new tokens; under cookies, extends the session. A refresh token is good for one use: using
/// one that was replaced ends the sign-in, except in the seconds after, when it has the same answer again.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", tag = "auth",
    request_body = Option<Refresh>,
    responses(
        (status = 200, description = "New tokens, or the cookies again", body = SignedIn),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 401, description = "The refresh token or the session is not good", body = ErrorBody),
        (status = 403, description = "Under cookies: the CSRF token is missing or wrong", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "A member is not acceptable", body = ErrorBody),
    )
)]
pub(crate) async fn refresh(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    parts: Parts,
    OptionalJson(body): OptionalJson<Refresh>,
) -> Answer<Response> {
    let since = Instant::now();
    let about = About { address: Some(address), ..About::default() };
    let refreshed = match body.refresh_token {
        Some(token) => refresh_tokens(&app, &token).await,
        None => extend_cookie(&app, &parts).await,
    };
    match refreshed {
        Ok((response, outcome, found)) => {
            note(Event::Refresh, outcome, since, About { address: Some(address), ..found });
            response.map_err(Into::into)
        }
        Err(error) => {
            note(Event::Refresh, Outcome::of(&error), since, about);
            Err(error.into())
        }
    }
}

type RefreshEnd = (Result<Response>, Outcome, About);

async fn refresh_tokens(app: &App, token: &SecretString) -> Result<RefreshEnd> {
    let sign_ins = app.callers.sign_ins();
    match sign_ins.refresh(token, None).await? {
        Refreshed::Tokens(tokens) => {
            let user = sign_ins.user(tokens.user).await?.ok_or_else(not_good)?;
            let about = About { user: Some(tokens.user), sign_in: Some(tokens.sign_in), address: None };
            let answer = JsonAnswer(SignedIn::with_tokens(&tokens, user)).into_response();
            Ok((Ok(answer), Outcome::Success, about))
        }
        Refreshed::Refused => Ok((Err(not_good()), Outcome::Refused, About::default())),
        Refreshed::Reused { user, sign_in } => {
            forget(app, &Credential::Bearer(sign_in));
            let about = About { user: Some(user), sign_in: Some(sign_in), address: None };
            Ok((Err(not_good()), Outcome::Reused, about))
        }
    }
}

async fn extend_cookie(app: &App, parts: &Parts) -> Result<RefreshEnd> {
    let (sign_ins, cookies) = (app.callers.sign_ins(), app.callers.cookies());
    let Some(cookie) = cookies.session(&parts.headers) else {
        return Err(Error::new(Code::Auth, "refresh_token is required, or the cookie of a session"));
    };
    cookies.must_be_meant(parts, sign_ins, &cookie)?;
    let ended = || Error::new(Code::Auth, "the session has ended; sign in again");
    let session = sign_ins.extend_cookie(&cookie).await?.ok_or_else(ended)?;
    let user = sign_ins.user(session.user).await?.ok_or_else(ended)?;
    let about = About { user: Some(session.user), sign_in: Some(session.sign_in), address: None };
    let answer = with_cookies(cookies.set(&session), JsonAnswer(SignedIn::with_cookies(user)));
    Ok((Ok(answer), Outcome::Success, about))
}

/// What to sign out of.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logout {
    /// The sign-in of this token; without it, that of the request's credential.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
    /// All sign-ins of the credential's user, everywhere; needs the scope admin.
    #[serde(default)]
    everywhere: bool,
}

/// Signs out: refresh token and access tokens of the sign-in are good no more (on other processes within ten seconds), and
/// cookies are removed.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "auth",
    request_body = Option<Logout>,
    responses(
        (status = 204, description = "Signed out, now or before"),
        (status = 400, description = "Unreadable JSON", body = ErrorBody),
        (status = 401, description = "Neither a refresh token nor a credential", body = ErrorBody),
        (status = 403, description = "Everywhere: the credential lacks the scope admin; under cookies: the CSRF token is missing or wrong", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 422, description = "A member is not acceptable", body = ErrorBody),
    )
)]
pub(crate) async fn logout(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    parts: Parts,
    OptionalJson(body): OptionalJson<Logout>,
) -> Answer<Response> {
    note_route(&parts);
    let since = Instant::now();
    let about = match &body.refresh_token {
        Some(token) if !body.everywhere => end_of_token(&app, token).await?,
        _ => {
            let principal = app.callers.principal(&parts).await?;
            if body.everywhere {
                // As for ending sign-ins one by one.
                principal.scopes.must_have(Scope::Admin)?;
            }
            end_of(&app, &principal, body.everywhere).await?
        }
    };
    note(Event::Logout, Outcome::Success, since, About { address: Some(address), ..about });
    let answer = StatusCode::NO_CONTENT.into_response();
    if app.callers.cookies().session(&parts.headers).is_some() {
        return Ok(with_cookies(app.callers.cookies().clear(), answer));
    }
    Ok(answer)
}

async fn end_of_token(app: &App, token: &SecretString) -> Result<About> {
    let Some((sign_in, user)) = app.callers.sign_ins().end_of_refresh_token(token).await? else {
        return Ok(About::default());
    };
    forget(app, &Credential::Bearer(sign_in));
    Ok(About { user: Some(user), sign_in: Some(sign_in), address: None })
}

async fn end_of(app: &App, principal: &Principal, everywhere: bool) -> Result<About> {
    let sign_ins = app.callers.sign_ins();
    let mut about = About { user: Some(principal.user), ..About::default() };
    if everywhere {
        sign_ins.end_all(principal.user).await?;
        let user = principal.user;
        app.callers.forget(|other| other.user == user);
    } else if let Credential::Bearer(sign_in) | Credential::Cookie(sign_in) = principal.credential {
        sign_ins.end(sign_in, EndedBecause::Logout).await?;
        forget(app, &principal.credential);
        about.sign_in = Some(sign_in);
    }
    Ok(about)
}

fn forget(app: &App, credential: &Credential) {
    app.callers.forget(|other| other.credential == *credential);
}

/// Who the credential belongs to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    #[serde(flatten)]
    user: UserView,
    /// What the credential may be used for: read, write, chat, admin.
    scopes: Vec<&'static str>,
    /// Whether the credential operates the deployment.
    operator: bool,
}

/// Says who the credential belongs to.
#[utoipa::path(
    get, path = "/api/v1/auth/me", tag = "auth", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The user", body = Me),
        (status = 403, description = "The credential lacks the scope read", body = ErrorBody),
    )
)]
pub(crate) async fn me(State(app): State<App>, Person(principal): Person) -> Answer<JsonAnswer<Me>> {
    let user = app.callers.sign_ins().user(principal.user).await?.ok_or_else(not_good)?;
    Ok(JsonAnswer(Me { user: user.into(), scopes: principal.scopes.words(), operator: principal.operator }))
}

/// A set of public keys (RFC 7517).
#[derive(Serialize, ToSchema)]
pub(crate) struct KeySet {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<PublishedKey>,
}

/// The keys that check access tokens: the one that signs, the next one an hour before it does, and former ones while tokens
/// of theirs are out.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "auth",
    responses((status = 200, description = "The keys", body = KeySet))
)]
pub(crate) async fn jwks(State(app): State<App>) -> Answer<Response> {
    let keys = app.callers.sign_ins().published_keys().await?;
    let fresh = (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    Ok(([fresh], JsonAnswer(KeySet { keys })).into_response())
}
