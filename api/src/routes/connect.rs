//! Connecting other services in a browser: the page, the way to an authorization server, and the way back.
//!
//! Whoever asks for HTML gets pages, also where something is wrong; programs get the one error shape.

use axum::{
    Json as JsonAnswer,
    extract::{Path, RawQuery, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use shared::{
    connections::{self, Browser, Unfinished},
    error::{Code, Error, Result},
    identity::{Actor, Credential},
    ids::{ConnectionId, SignInId, TenantId},
    oauth::{self, Reply},
};

use crate::{
    auth::note_route,
    error::{self, Answer, ErrorBody, Failure},
    extract::{self, RequestId},
    oauth_server,
    state::App,
    web::{self, connect as pages},
};

/// The query of the pages.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// For somebody who belongs to several tenants: as the header X-Tenant-ID, which a browser's address bar cannot send.
    tenant: Option<String>,
}

/// Somebody who looks at a page.
struct Visitor {
    actor: Actor,
    credential: Credential,
    tenant: Option<String>,
}

/// Who looks, in the tenant that the query names.
async fn visitor(app: &App, parts: &mut Parts) -> Answer<Visitor> {
    note_route(parts);
    let tenant = named_tenant(parts)?;
    let (actor, credential) = app.callers.with_credential(parts).await?;
    Ok(Visitor { actor, credential, tenant })
}

/// Has the query's tenant count as the header's.
fn named_tenant(parts: &mut Parts) -> Answer<Option<String>> {
    let PageQuery { tenant } = extract::parameters(parts)?;
    let Some(tenant) = tenant else { return Ok(None) };
    let id: TenantId = tenant.parse().map_err(|_| Error::not_found("there is no such tenant"))?;
    let tenant = id.to_string();
    parts.headers.insert("x-tenant-id", HeaderValue::from_str(&tenant).map_err(Error::internal)?);
    Ok(Some(tenant))
}

/// What went wrong, for whoever looks.
async fn shown(app: &App, parts: &Parts, failure: Failure) -> Answer<Response> {
    if !web::wants_page(&parts.headers) {
        return Err(failure);
    }
    let status = error::status(&failure.0);
    let place = parts.uri.path();
    match failure.0.code {
        Code::Auth if app.oauth.is_some() => {
            let place = parts.uri.path_and_query().map_or(place, |whole| whole.as_str());
            Ok(oauth_server::sign_in(status, place, None))
        }
        Code::Auth => Ok(pages::failed(status, "Sign in first", "Then come back to this page.")),
        Code::Internal => Err(failure),
        // Somebody of several tenants who named none.
        _ if status == StatusCode::BAD_REQUEST && app.oauth.is_some() => {
            let principal = app.callers.principal(parts).await?;
            let standing = app.callers.tenants.standing(&principal, &parts.headers).await?;
            Ok(pages::tenants(&standing.memberships, place))
        }
        _ => Ok(pages::failed(status, "This did not work", &format!("{}.", failure.0.message))),
    }
}

/// Shows what the caller has connected, and how to connect more.
#[utoipa::path(
    get, path = "/connect", tag = "connections", security(("apiKey" = [])), params(PageQuery),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 400, description = "A parameter cannot be read, or a tenant must be named", body = ErrorBody),
        (status = 404, description = "There is no such tenant", body = ErrorBody),
    )
)]
pub(crate) async fn page(State(app): State<App>, mut parts: Parts) -> Answer<Response> {
    match overview(&app, &mut parts).await {
        Ok(page) => Ok(page),
        Err(failure) => shown(&app, &parts, failure).await,
    }
}

async fn overview(app: &App, parts: &mut Parts) -> Answer<Response> {
    let visitor = visitor(app, parts).await?;
    let providers = app.connections.providers(&visitor.actor).await?;
    let connections = app.connections.list(&visitor.actor).await?;
    let session = match visitor.credential {
        Credential::Cookie(_) => oauth_server::session(app, &parts.headers).await?,
        _ => None,
    };
    let forms = session.as_ref().map(|session| pages::Forms {
        csrf: session.csrf.expose_secret(),
        tenant: visitor.tenant.as_deref(),
    });
    Ok(pages::overview(&providers, &connections, forms.as_ref()))
}

/// Sends the browser to where its person allows the server's tools; the cookie that comes with it has to come back.
#[utoipa::path(
    get, path = "/connect/{server}", tag = "connections", security(("apiKey" = [])),
    params(("server" = String, Path, description = "Such as notion"), PageQuery),
    responses(
        (status = 302, description = "To the authorization server"),
        (status = 400, description = "A parameter cannot be read, or a tenant must be named", body = ErrorBody),
        (status = 403, description = "The credential may not change anything", body = ErrorBody),
        (status = 404, description = "There is no such server", body = ErrorBody),
        (status = 502, description = "The server cannot be connected now", body = ErrorBody),
    )
)]
pub(crate) async fn depart(
    State(app): State<App>,
    Path(server): Path<String>,
    mut parts: Parts,
) -> Answer<Response> {
    match departing(&app, &server, &mut parts).await {
        Ok(response) => Ok(response),
        Err(failure) => shown(&app, &parts, failure).await,
    }
}

async fn departing(app: &App, server: &str, parts: &mut Parts) -> Answer<Response> {
    let visitor = visitor(app, parts).await?;
    let (place, cookie) = leave(app, &visitor.actor, visitor.credential, server, &parts.headers).await?;
    let place = HeaderValue::from_str(&place).map_err(Error::internal)?;
    Ok((StatusCode::FOUND, [(header::LOCATION, place), (header::SET_COOKIE, cookie)]).into_response())
}

/// Begins a flow: where to go, and the cookie to come back with.
pub(crate) async fn leave(
    app: &App,
    actor: &Actor,
    credential: Credential,
    server: &str,
    headers: &HeaderMap,
) -> Result<(String, HeaderValue)> {
    let cookies = app.callers.cookies();
    // One for all flows of a browser, or a second tab would undo the first.
    let secret = cookies.connect(headers).unwrap_or_else(oauth::random_text);
    let sign_in = match credential {
        Credential::Cookie(sign_in) => Some(sign_in),
        _ => None,
    };
    let cookie = cookies.set_connect(&secret);
    let url = app.connections.depart(actor, server, &Browser { secret, sign_in }).await?;
    Ok((url.into(), cookie))
}

/// Takes the person back, with a code for tokens or a refusal.
#[utoipa::path(
    get, path = "/oauth/{server}/callback", tag = "connections",
    params(
        ("server" = String, Path, description = "Such as notion"),
        ("state" = Option<String>, Query, description = "As it was given to the authorization server"),
        ("code" = Option<String>, Query, description = "What tokens are had for"),
        ("iss" = Option<String>, Query, description = "Who sends the person (RFC 9207)"),
        ("error" = Option<String>, Query, description = "Why there is no code"),
    ),
    responses(
        (status = 200, description = "A page: connected", body = String, content_type = "text/html"),
        (status = 400, description = "A page: nobody is expected with this", body = String, content_type = "text/html"),
        (status = 403, description = "A page: the person did not allow it", body = String, content_type = "text/html"),
        (status = 502, description = "A page: the server gave no tokens", body = String, content_type = "text/html"),
    )
)]
pub(crate) async fn callback(
    State(app): State<App>,
    Path(server): Path<String>,
    RawQuery(query): RawQuery,
    RequestId(request_id): RequestId,
    parts: Parts,
) -> Answer<Response> {
    note_route(&parts);
    let cookies = app.callers.cookies();
    let browser = Browser {
        secret: cookies.connect(&parts.headers).unwrap_or_else(SecretString::default),
        sign_in: signed_in(&app, &parts.headers).await?,
    };
    let reply = Reply::read(&query.unwrap_or_default());
    let failed = |status, heading: &str, sentence: &str| Ok(pages::failed(status, heading, sentence));
    match app.connections.arrive(&server, &browser, &reply).await {
        Ok(finished) => Ok(pages::connected(&finished.title, &finished.connection)),
        Err(Unfinished::Unknown) => failed(
            StatusCode::BAD_REQUEST,
            "Nobody is expected here with this",
            "It was used already, is more than ten minutes old, or began in another browser. Begin again.",
        ),
        Err(Unfinished::Denied { title }) => {
            failed(StatusCode::FORBIDDEN, &format!("{title} is not connected"), "You did not allow it.")
        }
        Err(Unfinished::Forged { title }) => {
            tracing::warn!(
                server,
                "a person came back from another authorization server than they were sent to"
            );
            let sentence = "The answer does not come from where you were sent. Nothing was taken from it.";
            failed(StatusCode::BAD_REQUEST, &format!("{title} is not connected"), sentence)
        }
        Err(Unfinished::Failed { title, error }) => {
            let code = error.code.as_str();
            metrics::counter!("errors_total", "origin" => error.origin.as_str(), "code" => code).increment(1);
            tracing::warn!(server, error_code = code, message = %error.message, "a server was not connected");
            let sentence = format!("{}. Try again in a while ({code}, request {request_id}).", error.message);
            failed(error::status(&error), &format!("{title} is not connected"), &sentence)
        }
        Err(Unfinished::Error(error)) => Err(error.into()),
    }
}

async fn signed_in(app: &App, headers: &HeaderMap) -> Result<Option<SignInId>> {
    let Some(cookie) = app.callers.cookies().session(headers) else { return Ok(None) };
    let principal = app.callers.sign_ins().by_cookie(&cookie).await?;
    Ok(principal.and_then(|principal| match principal.credential {
        Credential::Cookie(sign_in) => Some(sign_in),
        _ => None,
    }))
}

/// Changes a connection from the page: has tools use it, or ends it.
#[utoipa::path(
    post, path = "/connect/{server}", tag = "connections", security(("apiKey" = [])),
    params(("server" = String, Path, description = "Such as notion"), PageQuery),
    request_body(content = Object, description = "csrf, connection, action: choose or disconnect", content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Back to the page"),
        (status = 400, description = "A parameter cannot be read, or a tenant must be named", body = ErrorBody),
        (status = 403, description = "The form is not of this session", body = ErrorBody),
        (status = 404, description = "There is no such connection", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is of another type", body = ErrorBody),
        (status = 422, description = "There is no such action", body = ErrorBody),
    )
)]
pub(crate) async fn change(State(app): State<App>, request: Request) -> Answer<Response> {
    let (mut parts, body) = request.into_parts();
    match changing(&app, &mut parts, body).await {
        Ok(response) => Ok(response),
        Err(failure) => shown(&app, &parts, failure).await,
    }
}

async fn changing(app: &App, parts: &mut Parts, body: axum::body::Body) -> Answer<Response> {
    note_route(parts);
    if app.callers.cookies().session(&parts.headers).is_none() {
        // Before the body is looked at.
        app.callers.of_form(parts, "").await?;
    }
    let tenant = named_tenant(parts)?;
    let form = oauth_server::form(app, Request::from_parts(parts.clone(), body)).await?;
    let actor = app.callers.of_form(parts, form.get("csrf").unwrap_or_default()).await?;
    let id = form.get("connection").and_then(|id| id.parse().ok()).map(ConnectionId);
    let id = id.ok_or_else(|| Error::not_found("there is no such connection"))?;
    match form.get("action") {
        Some("choose") => {
            app.connections.choose(&actor, id).await?;
        }
        Some("disconnect") => {
            app.connections.disconnect(&actor, id).await?;
        }
        _ => return Err(Error::unacceptable("action: takes choose or disconnect").into()),
    }
    let tenant = tenant.map(|tenant| format!("?tenant={tenant}")).unwrap_or_default();
    Ok(oauth_server::see_other(&format!("/connect{tenant}")))
}

/// Tells authorization servers who Alfred is: the address of this document is its client id.
#[utoipa::path(
    get, path = "/.well-known/oauth-client/{server}", tag = "connections",
    params(("server" = String, Path, description = "Such as notion")),
    responses(
        (status = 200, description = "The document", body = Object),
        (status = 404, description = "Alfred has no https address", body = ErrorBody),
    )
)]
pub(crate) async fn client_document(
    State(app): State<App>,
    Path(server): Path<String>,
) -> Answer<JsonAnswer<Value>> {
    // It says nothing about which servers there are.
    let document = Some(server).filter(|server| connections::is_name(server));
    let document = document.and_then(|server| app.connections.document(&server));
    Ok(JsonAnswer(document.ok_or_else(|| Error::not_found("there is no such document"))?))
}
