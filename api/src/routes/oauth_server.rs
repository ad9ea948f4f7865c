//! OAuth for MCP clients: metadata (RFC 8414), registration (RFC 7591), authorization with a person's consent, tokens (RFC 6749
//! with PKCE), revocation (RFC 7009). Absent where an outside issuer signs people in.

use std::{net::IpAddr, time::Instant};

use axum::{
    Json as JsonAnswer,
    extract::{RawQuery, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use shared::{
    error::Code,
    identity::{Credential, EmailAddress, EndedBecause, Grant, Refreshed, Scope, SignInFrom, Tokens},
    ids::SignInId,
    mcp::authorization::{Granted, Redeemed, Registration},
};
use utoipa::ToSchema;

use crate::{
    address::{self, ClientAddress, sign_in_from},
    auth::event::{About, Event, Outcome, note},
    error::Answer,
    extract,
    oauth_server::{self, Parameters, Problem},
    state::App,
};

/// What the authorization server can do.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerMetadata {
    #[schema(example = "https://alfred.example")]
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    registration_endpoint: String,
    revocation_endpoint: String,
    jwks_uri: String,
    scopes_supported: Vec<&'static str>,
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    code_challenge_methods_supported: [&'static str; 1],
    authorization_response_iss_parameter_supported: bool,
    client_id_metadata_document_supported: bool,
    service_documentation: String,
}

/// Tells what the authorization server can do (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "mcp",
    responses(
        (status = 200, description = "The description", body = ServerMetadata),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn server_metadata(State(app): State<App>) -> Answer<JsonAnswer<ServerMetadata>> {
    oauth_server::server(&app)?;
    let issuer = app.callers.sign_ins().issuer().to_owned();
    let at = |path: &str| format!("{issuer}{path}");
    Ok(JsonAnswer(ServerMetadata {
        authorization_endpoint: at("/oauth/authorize"),
        token_endpoint: at("/oauth/token"),
        registration_endpoint: at("/oauth/register"),
        revocation_endpoint: at("/oauth/revoke"),
        jwks_uri: at("/.well-known/jwks.json"),
        service_documentation: at("/docs"),
        scopes_supported: oauth_server::GRANTABLE.map(Scope::as_str).to_vec(),
        response_types_supported: ["code"],
        response_modes_supported: ["query"],
        grant_types_supported: ["authorization_code", "refresh_token"],
        token_endpoint_auth_methods_supported: ["none"],
        revocation_endpoint_auth_methods_supported: ["none"],
        code_challenge_methods_supported: ["S256"],
        authorization_response_iss_parameter_supported: true,
        client_id_metadata_document_supported: true,
        issuer,
    }))
}

/// A program that was registered.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisteredClient {
    client_id: String,
    client_id_issued_at: i64,
    client_name: String,
    redirect_uris: Vec<String>,
    grant_types: [&'static str; 2],
    response_types: [&'static str; 1],
    token_endpoint_auth_method: &'static str,
}

/// Registers a program that wants to ask people for access (RFC 7591). Every client is a public one: it gets no secret.
#[utoipa::path(
    post, path = "/oauth/register", tag = "mcp",
    request_body(content = Object, description = "redirect_uris, client_name", content_type = "application/json"),
    responses(
        (status = 201, description = "The client", body = RegisteredClient),
        (status = 400, description = "invalid_redirect_uri or invalid_client_metadata", body = Object),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = Object),
        (status = 415, description = "The body is of another type", body = Object),
        (status = 429, description = "Too many programs from one address; Retry-After says when", body = Object),
    )
)]
pub(crate) async fn register_client(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Answer<Result<Response, Problem>> {
    oauth_server::server(&app)?;
    Ok(registered(&app, address, request).await)
}

async fn registered(app: &App, address: IpAddr, request: Request) -> Result<Response, Problem> {
    let body = extract::json_body(request, app.config.max_body_bytes.min(64 * 1024)).await?;
    let asked: Registration = serde_json::from_slice(&body)
        .map_err(|_| Problem::new("invalid_client_metadata", "the body is not a client's metadata"))?;
    let client = match oauth_server::server(app)?.register(address, &asked).await? {
        Ok(client) => client,
        Err(problem) => return Err(Problem::new(problem.error, problem.description)),
    };
    let registered = RegisteredClient {
        client_id: client.id,
        client_id_issued_at: chrono::Utc::now().timestamp(),
        client_name: client.name,
        redirect_uris: client.redirect_uris,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
    };
    Ok((StatusCode::CREATED, JsonAnswer(registered)).into_response())
}

/// Asks the person in front of the browser, after they have signed in, whether a program may use their workspace.
#[utoipa::path(
    get, path = "/oauth/authorize", tag = "mcp",
    params(
        ("client_id" = String, Query, description = "A registered id, or the address of the client's document"),
        ("redirect_uri" = Option<String>, Query, description = "One of the client's own"),
        ("response_type" = String, Query, description = "code"),
        ("code_challenge" = String, Query, description = "The SHA-256 of the verifier, in base64url"),
        ("code_challenge_method" = String, Query, description = "S256"),
        ("resource" = Option<String>, Query, description = "This server's /mcp (RFC 8707)"),
        ("scope" = Option<String>, Query, description = "read, write; both when it is left out"),
        ("state" = Option<String>, Query, description = "Comes back as it is"),
    ),
    responses(
        (status = 200, description = "A page", body = String, content_type = "text/html"),
        (status = 303, description = "To the client, with an error that it can mend"),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 400, description = "A page: nobody knows where to send the browser", body = String, content_type = "text/html"),
    )
)]
pub(crate) async fn authorize(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    parts: Parts,
) -> Answer<Response> {
    oauth_server::server(&app)?;
    let query = query.unwrap_or_default();
    // Before anything is fetched: only somebody whom we know can have us ask around.
    let Some(session) = oauth_server::session(&app, &parts.headers).await? else {
        return Ok(oauth_server::sign_in(StatusCode::OK, &query, None));
    };
    let parameters = Parameters::read(query.as_bytes());
    Ok(match oauth_server::asked(&app, &parameters).await? {
        Ok(asked) => {
            let user = app.callers.sign_ins().user(session.user).await?;
            let email = user.and_then(|user| user.email).unwrap_or_default();
            let tenants = oauth_server::tenants(&app, &parts.headers).await?;
            oauth_server::consent(&asked, &parameters, &tenants, &email, session.csrf.expose_secret())
        }
        Err(refusal) => refusal.answer(&app),
    })
}

/// Takes the person's password on the way to the question.
#[utoipa::path(
    post, path = "/oauth/sign-in", tag = "mcp",
    request_body(content = Object, description = "email, password, query", content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Back to the question, signed in"),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = crate::error::ErrorBody),
        (status = 415, description = "The body is of another type", body = crate::error::ErrorBody),
        (status = 401, description = "The page again: the address or the password is wrong", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form came from another site", body = String, content_type = "text/html"),
        (status = 429, description = "The page again: too many attempts", body = String, content_type = "text/html"),
    )
)]
pub(crate) async fn sign_in(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Answer<Response> {
    oauth_server::server(&app)?;
    let since = Instant::now();
    let (parts, body) = request.into_parts();
    if app.callers.cookies().must_be_own_page(&parts).is_err() {
        return Ok(oauth_server::refusal(
            StatusCode::FORBIDDEN,
            "The form came from a page of another site.",
        ));
    }
    let from = sign_in_from(Some(address), &parts.headers);
    let form = oauth_server::form(&app, Request::from_parts(parts, body)).await?;
    let query = form.get("query").unwrap_or_default();
    let again = |status, sentence: &str| Ok(oauth_server::sign_in(status, query, Some(sentence)));
    let wrong = "The address or the password is wrong.";
    let (sign_ins, cookies) = (app.callers.sign_ins(), app.callers.cookies());
    let password = SecretString::from(form.get("password").unwrap_or_default());
    let Ok(email) = EmailAddress::parse(form.get("email").unwrap_or_default()) else {
        return again(StatusCode::UNAUTHORIZED, wrong);
    };
    let about = About { address: Some(address), ..About::default() };
    let proven = match sign_ins.authenticate(address, &email, password).await {
        Ok(Some(proven)) => proven,
        Ok(None) => {
            note(Event::Login, Outcome::Refused, since, about);
            return again(StatusCode::UNAUTHORIZED, wrong);
        }
        Err(error) => {
            note(Event::Login, Outcome::of(&error), since, about);
            return match error.code {
                Code::Rate => {
                    again(StatusCode::TOO_MANY_REQUESTS, "Too many attempts. Wait a moment, then try again.")
                }
                Code::Malformed => again(StatusCode::UNAUTHORIZED, wrong),
                _ => Err(error.into()),
            };
        }
    };
    let Some(session) = sign_ins.log_in_cookie(&proven, &from).await? else {
        note(Event::Login, Outcome::Refused, since, about);
        return again(StatusCode::UNAUTHORIZED, wrong);
    };
    note(
        Event::Login,
        Outcome::Success,
        since,
        About { user: Some(proven.user.id), sign_in: Some(session.sign_in), ..about },
    );
    let query = one_line(query);
    let place =
        oauth_server::own_place(&query).map_or_else(|| format!("/oauth/authorize?{query}"), str::to_owned);
    let mut response = oauth_server::see_other(&place);
    for cookie in cookies.set(&session) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// A query as it may stand in a header.
fn one_line(query: &str) -> String {
    query.chars().filter(char::is_ascii_graphic).collect()
}

/// Takes the person's decision and sends them back to the program.
#[utoipa::path(
    post, path = "/oauth/authorize", tag = "mcp",
    request_body(content = Object, description = "The page's form", content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the client, with a code or an error"),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = crate::error::ErrorBody),
        (status = 415, description = "The body is of another type", body = crate::error::ErrorBody),
        (status = 400, description = "A page", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the form is not of this session", body = String, content_type = "text/html"),
    )
)]
pub(crate) async fn decide(State(app): State<App>, request: Request) -> Answer<Response> {
    let server = oauth_server::server(&app)?;
    let (parts, body) = request.into_parts();
    let (sign_ins, cookies) = (app.callers.sign_ins(), app.callers.cookies());
    let not_meant = || {
        let sentence = "The form is not of this session. Go back to the program and begin again.";
        Ok(oauth_server::refusal(StatusCode::FORBIDDEN, sentence))
    };
    if cookies.must_be_own_page(&parts).is_err() {
        return not_meant();
    }
    let Some(cookie) = cookies.session(&parts.headers) else { return not_meant() };
    let headers = parts.headers.clone();
    let form = oauth_server::form(&app, Request::from_parts(parts, body)).await?;
    if !sign_ins.is_csrf_token(&cookie, form.get("csrf").unwrap_or_default()) {
        return not_meant();
    }
    let Some(session) = sign_ins.extend_cookie(&cookie).await? else { return not_meant() };
    let asked = match oauth_server::asked(&app, &form).await? {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal.answer(&app)),
    };
    let state = asked.state.as_deref();
    if form.get("decision") != Some("allow") {
        let denied =
            [("error", "access_denied"), ("error_description", "the person did not let the program in")];
        return Ok(oauth_server::send_back(&app, &asked.redirect_uri, state, &denied));
    }
    let tenants = oauth_server::tenants(&app, &headers).await?;
    let Ok(tenant) = oauth_server::chosen(&tenants, form.get("tenant")) else {
        let sentence = "Go back and choose the workspace that the program is let into.";
        return Ok(oauth_server::refusal(StatusCode::BAD_REQUEST, sentence));
    };
    let granted = Granted {
        client: asked.client.id,
        user: session.user,
        redirect_uri: asked.redirect_text,
        challenge: asked.challenge,
        scopes: asked.scopes,
        audience: asked.audience,
        tenant,
    };
    let code = server.issue(&granted).await?;
    tracing::info!(client_id = granted.client, scopes = %granted.scopes, "a person let a program in");
    let code = [("code", code.expose_secret())];
    Ok(oauth_server::send_back(&app, &asked.redirect_uri, state, &code))
}

/// What a program gets.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// For one use.
    refresh_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl TokenAnswer {
    fn of(tokens: &Tokens, scope: Option<String>) -> Self {
        Self {
            access_token: tokens.access.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: tokens.access_life.as_secs(),
            refresh_token: tokens.refresh.expose_secret().to_owned(),
            scope,
        }
    }
}

/// Exchanges a code, or a refresh token, for tokens that are good at /mcp alone. A code that is shown twice ends what it
/// became; so does a refresh token that was replaced.
#[utoipa::path(
    post, path = "/oauth/token", tag = "mcp",
    request_body(content = Object, description = "grant_type, client_id, code and code_verifier, or refresh_token",
        content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The tokens", body = TokenAnswer),
        (status = 400, description = "invalid_request, invalid_grant, invalid_target or unsupported_grant_type", body = Object),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = Object),
        (status = 415, description = "The body is of another type", body = Object),
    )
)]
pub(crate) async fn token(State(app): State<App>, request: Request) -> Answer<Result<Response, Problem>> {
    oauth_server::server(&app)?;
    Ok(exchange(&app, request).await)
}

async fn exchange(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let from = sign_in_from(address::of(&parts, &app.config.trusted_proxies), &parts.headers);
    let form = oauth_server::form(app, Request::from_parts(parts, body)).await?;
    let wanted = |name: &str| {
        let missing = || Problem::new("invalid_request", format!("{name} is required, once"));
        form.get(name).ok_or_else(missing)
    };
    let grant_type = wanted("grant_type")?;
    let client = wanted("client_id")?;
    if let Some(resource) = form.get("resource")
        && !app.mcp.is_resource(app, resource).await?
    {
        return Err(Problem::new("invalid_target", "resource must be this server's /mcp"));
    }
    let answer = match grant_type {
        "authorization_code" => {
            let code = SecretString::from(wanted("code")?);
            let verifier = wanted("code_verifier")?;
            let shown = Shown { client, code: &code, verifier, redirect_uri: form.get("redirect_uri") };
            by_code(app, &shown, &from).await?
        }
        "refresh_token" => {
            by_refresh_token(app, client, &SecretString::from(wanted("refresh_token")?)).await?
        }
        _ => {
            let sentence = "grant_type must be authorization_code or refresh_token";
            return Err(Problem::new("unsupported_grant_type", sentence));
        }
    };
    let mut response = JsonAnswer(answer).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A code, and what shows that it was meant for whoever has it.
struct Shown<'a> {
    client: &'a str,
    code: &'a SecretString,
    verifier: &'a str,
    redirect_uri: Option<&'a str>,
}

async fn by_code(app: &App, shown: &Shown<'_>, from: &SignInFrom) -> Result<TokenAnswer, Problem> {
    let server = oauth_server::server(app)?;
    let granted = match server.redeem(shown.code).await? {
        Redeemed::Good(granted) => granted,
        Redeemed::Refused => return Err(Problem::grant()),
        Redeemed::ShownAgain(sign_in) => {
            if let Some(sign_in) = sign_in {
                end(app, sign_in).await?;
            }
            return Err(Problem::grant());
        }
    };
    // The code is used up, so nobody tries verifiers one after the other.
    let fits = granted.client == shown.client
        && shown.redirect_uri.is_none_or(|given| given == granted.redirect_uri)
        && granted.is_verified_by(shown.verifier);
    if !fits {
        return Err(Problem::grant());
    }
    let grant = Grant {
        scopes: Some(granted.scopes),
        audience: Some(granted.audience),
        client: Some(granted.client),
        tenant: granted.tenant,
    };
    let tokens = app.callers.sign_ins().begin_tokens(granted.user, &grant, from).await?;
    if !server.became(shown.code, tokens.sign_in).await? {
        end(app, tokens.sign_in).await?;
        return Err(Problem::grant());
    }
    Ok(TokenAnswer::of(&tokens, Some(granted.scopes.to_string())))
}

async fn by_refresh_token(app: &App, client: &str, token: &SecretString) -> Result<TokenAnswer, Problem> {
    match app.callers.sign_ins().refresh(token, Some(client)).await? {
        Refreshed::Tokens(tokens) => Ok(TokenAnswer::of(&tokens, None)),
        Refreshed::Refused => Err(Problem::grant()),
        Refreshed::Reused { sign_in, .. } => {
            forget(app, sign_in);
            Err(Problem::grant())
        }
    }
}

async fn end(app: &App, sign_in: SignInId) -> shared::error::Result<()> {
    app.callers.sign_ins().end(sign_in, EndedBecause::Reuse).await?;
    forget(app, sign_in);
    Ok(())
}

fn forget(app: &App, sign_in: SignInId) {
    app.callers.forget(|other| other.credential == Credential::Bearer(sign_in));
}

/// Ends what a refresh token or an access token belongs to (RFC 7009). A token that is not good is answered the same.
#[utoipa::path(
    post, path = "/oauth/revoke", tag = "mcp",
    request_body(content = Object, description = "token, a refresh token or an access token", content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "It is good no more"),
        (status = 400, description = "invalid_request", body = Object),
        (status = 404, description = "An outside issuer signs people in", body = crate::error::ErrorBody),
        (status = 413, description = "The body is too large", body = Object),
        (status = 415, description = "The body is of another type", body = Object),
    )
)]
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Answer<Result<StatusCode, Problem>> {
    oauth_server::server(&app)?;
    Ok(revoked(&app, request).await)
}

async fn revoked(app: &App, request: Request) -> Result<StatusCode, Problem> {
    let form = oauth_server::form(app, request).await?;
    let token =
        form.get("token").ok_or_else(|| Problem::new("invalid_request", "token is required, once"))?;
    let ended = app.callers.sign_ins().end_of_token(&SecretString::from(token)).await?;
    if let Some((sign_in, _)) = ended {
        forget(app, sign_in);
    }
    Ok(StatusCode::OK)
}
