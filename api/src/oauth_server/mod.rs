//! Alfred as an authorization server: what a program asks for at `/oauth/authorize`, checked, and how it is refused.
//!
//! Nothing is sent to an address before that address is known to be the client's: until then a refusal is a page.

mod pages;
mod problem;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::{
    error::{Code, Error, Result},
    identity::{CookieSession, Scope, Scopes},
    ids::TenantId,
    mcp::authorization::{self, AuthorizationServer, Client},
    tenancy::memberships::{Membership, TenantState},
};
use url::{Url, form_urlencoded};

pub(crate) use self::{
    pages::{consent, refusal, sign_in},
    problem::Problem,
};
use crate::{error::Failure, state::App};

/// What may be granted to a program: its tools need no more.
pub(crate) const GRANTABLE: [Scope; 2] = [Scope::Read, Scope::Write];
/// Longer than any client's state.
const LONGEST: usize = 2000;

/// The parameters of a query or a form.
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn read(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The parameter, when it was given once and is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.all(name);
        found.next().filter(|_| found.next().is_none())
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    /// The parameters of the authorization request again, for a form that repeats it.
    pub(crate) fn of_request(&self) -> impl Iterator<Item = (&str, &str)> {
        let ours = ["csrf", "decision", "tenant"];
        self.0
            .iter()
            .filter(move |(name, _)| !ours.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What a program asks a person for.
pub(crate) struct Asked {
    pub(crate) client: Client,
    pub(crate) redirect_uri: Url,
    /// As it was given: a URL may have another spelling.
    pub(crate) redirect_text: String,
    pub(crate) state: Option<String>,
    pub(crate) challenge: String,
    pub(crate) scopes: Scopes,
    pub(crate) audience: String,
}

/// Why a request is not put to the person.
pub(crate) enum Refusal {
    /// It cannot be said to the program, as nobody knows where it is.
    Page(String),
    /// The program is told.
    Told(Box<Told>),
}

/// A refusal on its way to the program.
pub(crate) struct Told {
    redirect_uri: Url,
    state: Option<String>,
    error: &'static str,
    description: String,
}

/// The authorization server, unless the deployment has an outside one.
///
/// # Errors
/// 404.
pub(crate) fn server(app: &App) -> Result<&AuthorizationServer> {
    app.oauth.as_ref().ok_or_else(|| Error::not_found("there is no such route; /openapi.json lists them"))
}

/// The resource that tokens are for, in its one spelling.
pub(crate) fn audience(app: &App) -> String {
    format!("{}/mcp", app.callers.sign_ins().issuer())
}

/// Reads an authorization request.
///
/// # Errors
/// The database's.
pub(crate) async fn asked(app: &App, parameters: &Parameters) -> Result<Result<Asked, Refusal>> {
    let page = |sentence: &str| Ok(Err(Refusal::Page(sentence.to_owned())));
    let Some(id) = parameters.get("client_id") else {
        return page("The request does not say which program it is.");
    };
    let client = match server(app)?.client(id).await {
        Ok(Some(client)) => client,
        Ok(None) => return page("No program is registered under this client_id. Let it register again."),
        Err(error) if error.code == Code::Malformed => {
            tracing::info!(error = &error as &dyn std::error::Error, "a client's document is not good");
            return page(&format!("The program's own description is not good: {}.", error.message));
        }
        Err(error) => return Err(error),
    };
    let given = match parameters.get("redirect_uri") {
        Some(given) => given,
        // With one address there is nothing to choose.
        None if client.redirect_uris.len() == 1 && parameters.all("redirect_uri").next().is_none() => {
            client.redirect_uris.first().map(String::as_str).unwrap_or_default()
        }
        None => return page("The request does not say where to send you afterwards."),
    };
    let redirect_uri = Url::parse(given).ok().filter(|_| client.may_redirect_to(given));
    let Some(redirect_uri) = redirect_uri else {
        return page("The program asks to send you to an address that is not one of its own.");
    };
    let redirect_text = given.to_owned();
    let state = parameters.get("state").filter(|state| state.len() <= LONGEST).map(str::to_owned);
    let told = |error, description: &str| {
        let (redirect_uri, state, description) =
            (redirect_uri.clone(), state.clone(), description.to_owned());
        Ok(Err(Refusal::Told(Box::new(Told { redirect_uri, state, error, description }))))
    };
    if parameters.get("response_type") != Some("code") {
        return told("unsupported_response_type", "response_type must be code");
    }
    if parameters.get("code_challenge_method") != Some("S256") {
        return told("invalid_request", "code_challenge_method must be S256");
    }
    let challenge = parameters.get("code_challenge").filter(|text| authorization::is_challenge(text));
    let Some(challenge) = challenge.map(str::to_owned) else {
        return told("invalid_request", "code_challenge must be the SHA-256 of the verifier in base64url");
    };
    for resource in parameters.all("resource") {
        if !app.mcp.is_resource(app, resource).await? {
            return told("invalid_target", "resource must be this server's /mcp");
        }
    }
    let Some(scopes) = scopes(parameters.get("scope")) else {
        return told("invalid_scope", "scope must have read or write");
    };
    let audience = audience(app);
    Ok(Ok(Asked { client, redirect_uri, redirect_text, state, challenge, scopes, audience }))
}

/// What of the scopes asked for may be granted; all of it when none were named.
fn scopes(asked: Option<&str>) -> Option<Scopes> {
    let grantable = Scopes::of_words(GRANTABLE.map(Scope::as_str));
    match asked {
        None => Some(grantable),
        Some(words) => Some(Scopes::of_words(words.split_ascii_whitespace()).and(grantable))
            .filter(|scopes| *scopes != Scopes::NONE),
    }
}

/// Sends the browser to the program with these parameters, the state, and who we are (RFC 9207).
pub(crate) fn send_back(app: &App, to: &Url, state: Option<&str>, parameters: &[(&str, &str)]) -> Response {
    let mut to = to.clone();
    {
        let mut query = to.query_pairs_mut();
        query.extend_pairs(parameters);
        if let Some(state) = state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", app.callers.sign_ins().issuer());
    }
    see_other(to.as_str())
}

impl Refusal {
    pub(crate) fn answer(&self, app: &App) -> Response {
        match self {
            Self::Page(sentence) => refusal(StatusCode::BAD_REQUEST, sentence),
            Self::Told(told) => {
                let parameters = [("error", told.error), ("error_description", &told.description)];
                send_back(app, &told.redirect_uri, told.state.as_deref(), &parameters)
            }
        }
    }
}

pub(crate) fn see_other(place: &str) -> Response {
    match HeaderValue::from_str(place) {
        Ok(place) => (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response(),
        Err(error) => Failure(Error::internal(error)).into_response(),
    }
}

/// The page of ours that a sign-in goes on with, when it is not an authorization request. Never another host's.
pub(crate) fn own_place(query: &str) -> Option<&str> {
    let rest = query.strip_prefix("/connect")?;
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(query)
}

/// The browser's session, if it has a good one.
///
/// # Errors
/// The database's.
pub(crate) async fn session(app: &App, headers: &HeaderMap) -> Result<Option<CookieSession>> {
    match app.callers.cookies().session(headers) {
        Some(cookie) => app.callers.sign_ins().extend_cookie(&cookie).await,
        None => Ok(None),
    }
}

/// The tenants that the person of the browser's session belongs to: a program is let into one of them.
///
/// # Errors
/// The database's and the directory's.
pub(crate) async fn tenants(app: &App, headers: &HeaderMap) -> Result<Vec<Membership>> {
    let Some(cookie) = app.callers.cookies().session(headers) else { return Ok(Vec::new()) };
    let Some(person) = app.callers.sign_ins().by_cookie(&cookie).await? else { return Ok(Vec::new()) };
    let all = app.callers.tenants.directory.memberships(&person).await?;
    let is_open = |membership: &&Membership| membership.accepted && membership.state == TenantState::Active;
    Ok(all.iter().filter(is_open).cloned().collect())
}

/// The tenant that the person chose on the page; with one or none there is nothing to choose. The error is no choice, or a tenant
/// that is none of theirs.
pub(crate) fn chosen(tenants: &[Membership], choice: Option<&str>) -> Result<Option<TenantId>, ()> {
    match tenants {
        [] => Ok(None),
        [only] => Ok(Some(only.tenant)),
        several => {
            let is_chosen = |membership: &&Membership| Some(membership.tenant.to_string().as_str()) == choice;
            several.iter().find(is_chosen).map(|membership| Some(membership.tenant)).ok_or(())
        }
    }
}

/// A body as browsers and OAuth clients send it.
///
/// # Errors
/// 415, 413.
pub(crate) async fn form(app: &App, request: axum::extract::Request) -> Result<Parameters, Failure> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let message = "the body must be a form, with Content-Type: application/x-www-form-urlencoded";
        return Err(Failure(Error::invalid(shared::error::Invalid::MediaType, message)));
    }
    let body = crate::extract::body(request, app.config.max_body_bytes.min(64 * 1024)).await?;
    Ok(Parameters::read(&body))
}
