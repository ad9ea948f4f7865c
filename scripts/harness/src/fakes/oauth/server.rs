//! The server and the handle that a test holds.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Form, Json, Router,
    body::Bytes,
    extract::{Query, State},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    grants::{Code, Grants, Rules},
    notion,
};

/// How a token request fails.
#[derive(Debug, Clone)]
pub enum Mishap {
    /// It is answered with this status and this OAuth error, and nothing is done.
    Status(u16, &'static str),
    /// It is never answered, and nothing is done.
    Silent,
    /// It is carried out, and the answer is lost.
    Lost,
    /// It is carried out, and answered after this time.
    Late(Duration),
    /// It is answered with something that is no JSON, and nothing is done.
    Garbage,
}

/// What the server does. All of it can be changed while it runs.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// Seconds that access tokens are good; none: it does not say.
    pub expires_in: Option<i64>,
    pub gives_refresh: bool,
    pub rotates: bool,
    /// The refresh token before the last one is good once more.
    pub forgives: bool,
    pub pkce: bool,
    pub registers: bool,
    pub documents: bool,
    /// Client secrets are given and asked for.
    pub secrets: bool,
    pub says_issuer: bool,
    /// It says that it is somebody else when it sends people back.
    pub forged_issuer: Option<String>,
    /// People do not allow it.
    pub denies: bool,
    pub userinfo: bool,
    /// What people choose: (id, name).
    pub workspace: (String, String),
    /// Where documents of clients at the first address are really fetched.
    pub documents_at: Option<(String, String)>,
    /// The address where people are asked; none: its own.
    pub authorization_endpoint: Option<String>,
    /// What its protected resource calls itself; none: its own.
    pub resource: Option<String>,
    /// Taking tokens back does not work.
    pub revocation_is_down: bool,
    /// Every token contains this.
    pub marker: String,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            expires_in: Some(3600),
            gives_refresh: true,
            rotates: true,
            forgives: false,
            pkce: true,
            registers: true,
            documents: false,
            secrets: false,
            says_issuer: true,
            forged_issuer: None,
            denies: false,
            userinfo: true,
            workspace: ("w-1".to_owned(), "Acme".to_owned()),
            documents_at: None,
            authorization_endpoint: None,
            resource: None,
            revocation_is_down: false,
            marker: "MARKER".to_owned(),
        }
    }
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) base: String,
    knobs: Mutex<Knobs>,
    grants: Mutex<Grants>,
    mishaps: Mutex<VecDeque<Mishap>>,
    /// Client ids that registered themselves, with their secrets.
    clients: Mutex<HashMap<String, (Value, Option<String>)>>,
    log: Mutex<Vec<(String, BTreeMap<String, String>)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running authorization server, with its resource at `/mcp`. Dropping it closes its port.
pub struct FakeAuthorization {
    /// `http://127.0.0.1:port`
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl FakeAuthorization {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared { base: url.clone(), ..Shared::default() });
        let router = Router::new()
            .route("/mcp", post(resource))
            .route("/.well-known/oauth-protected-resource/mcp", get(resource_metadata))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/userinfo", get(userinfo))
            .route("/v1/oauth/authorize", get(notion::authorize))
            .route("/v1/oauth/token", post(notion::token))
            .route("/v1/oauth/revoke", post(notion::revoke))
            .route("/v1/search", post(notion::search))
            .route("/v1/pages/{id}/markdown", get(notion::page))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { url, shared, server })
    }

    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut lock(&self.shared.knobs));
    }

    /// Has the next token request fail so.
    pub fn fail_next(&self, mishap: Mishap) {
        lock(&self.shared.mishaps).push_back(mishap);
    }

    /// Looks at what was granted, or changes it.
    pub fn grants<T>(&self, look: impl FnOnce(&mut Grants) -> T) -> T {
        look(&mut lock(&self.shared.grants))
    }

    /// Tells good access tokens from others, for servers that want them.
    pub fn accepts(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |token| shared.workspace_of(token).is_some()
    }

    /// The requests at this path so far, with their parameters.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<BTreeMap<String, String>> {
        let log = lock(&self.shared.log);
        log.iter().filter(|(at, _)| at == path).map(|(_, fields)| fields.clone()).collect()
    }

    /// How many refresh tokens were shown so far.
    #[must_use]
    pub fn refreshes(&self) -> usize {
        let of = |path: &str| {
            let asked = self.received(path);
            asked
                .iter()
                .filter(|fields| fields.get("grant_type").is_some_and(|kind| kind == "refresh_token"))
                .count()
        };
        of("/token") + of("/v1/oauth/token")
    }
}

impl Drop for FakeAuthorization {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) type Fields = BTreeMap<String, String>;

impl Shared {
    pub(super) fn knobs(&self) -> Knobs {
        lock(&self.knobs).clone()
    }

    pub(super) fn note(&self, path: &str, fields: &Fields) {
        lock(&self.log).push((path.to_owned(), fields.clone()));
    }

    fn rules(&self) -> Rules {
        let knobs = self.knobs();
        Rules { gives_refresh: knobs.gives_refresh, rotates: knobs.rotates, forgives: knobs.forgives }
    }

    /// Sends a person back with a code, or without.
    pub(super) fn send_back(&self, fields: &Fields, challenge: Option<String>) -> Response {
        let knobs = self.knobs();
        let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let Ok(mut back) = url::Url::parse(&text("redirect_uri")) else {
            return (StatusCode::BAD_REQUEST, "no redirect_uri").into_response();
        };
        let issuer = knobs.forged_issuer.clone().unwrap_or_else(|| self.base.clone());
        {
            let mut query = back.query_pairs_mut();
            if knobs.denies {
                query.append_pair("error", "access_denied");
            } else {
                let code = format!("code-{}-{}", knobs.marker, uuid::Uuid::new_v4().simple());
                let granted = Code {
                    client: text("client_id"),
                    redirect_uri: text("redirect_uri"),
                    challenge,
                    resource: fields.get("resource").cloned(),
                    workspace: knobs.workspace.clone(),
                };
                lock(&self.grants).codes.insert(code.clone(), granted);
                query.append_pair("code", &code);
            }
            query.append_pair("state", &text("state"));
            if knobs.says_issuer {
                query.append_pair("iss", &issuer);
            }
        }
        Redirect::to(back.as_str()).into_response()
    }

    /// The name of the workspace that this token opens, if it is good.
    pub(super) fn workspace_of(&self, token: &str) -> Option<String> {
        lock(&self.grants).of_access(token).map(|family| family.workspace.1.clone())
    }

    pub(super) fn revoked(&self, token: &str) {
        lock(&self.grants).revoke(token);
    }

    /// Carries a token request out, with whatever was ordered to go wrong.
    pub(super) async fn tokens(&self, client: &str, fields: &Fields) -> Response {
        let mishap = lock(&self.mishaps).pop_front();
        match mishap {
            Some(Mishap::Status(status, error)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return (status, Json(json!({"error": error}))).into_response();
            }
            Some(Mishap::Silent) => return std::future::pending().await,
            Some(Mishap::Garbage) => return "<html>hello</html>".into_response(),
            Some(Mishap::Lost) => {
                self.carry_out(client, fields);
                return std::future::pending().await;
            }
            Some(Mishap::Late(time)) => {
                let answer = self.carry_out(client, fields);
                tokio::time::sleep(time).await;
                return answer;
            }
            None => {}
        }
        self.carry_out(client, fields)
    }

    fn carry_out(&self, client: &str, fields: &Fields) -> Response {
        let (knobs, rules) = (self.knobs(), self.rules());
        let mut grants = lock(&self.grants);
        let text = |name: &str| fields.get(name).map(String::as_str);
        let pair = match text("grant_type") {
            Some("authorization_code") => {
                let code = grants.codes.remove(text("code").unwrap_or_default());
                let code = code.filter(|code| {
                    code.client == client
                        && Some(code.redirect_uri.as_str()) == text("redirect_uri")
                        && code.resource.as_deref() == text("resource")
                        && match &code.challenge {
                            Some(challenge) => {
                                text("code_verifier").is_some_and(|verifier| s256(verifier) == *challenge)
                            }
                            None => true,
                        }
                });
                code.map(|code| grants.begin(&knobs.marker, &code, rules))
            }
            Some("refresh_token") => {
                grants.refresh(&knobs.marker, text("refresh_token").unwrap_or_default(), client, rules)
            }
            _ => None,
        };
        let Some(pair) = pair else {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
        };
        let mut answer =
            json!({"access_token": pair.access, "token_type": "Bearer", "refresh_token": pair.refresh});
        if let Some(seconds) = knobs.expires_in {
            answer["expires_in"] = seconds.into();
        }
        if !knobs.userinfo {
            answer["workspace_id"] = pair.workspace.0.into();
            answer["workspace_name"] = pair.workspace.1.into();
        }
        Json(answer).into_response()
    }
}

/// The SHA-256 of a verifier, as a challenge.
fn s256(verifier: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use sha2::{Digest as _, Sha256};
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The server that tokens are for: tells whose the token is.
async fn resource(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let grants = lock(&shared.grants);
    match bearer(&headers).and_then(|token| grants.of_access(token)) {
        Some(family) => Json(json!({"workspace": family.workspace.0})).into_response(),
        None => {
            let challenge = format!(
                "Bearer error=\"invalid_token\", resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"",
                shared.base
            );
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        }
    }
}

async fn resource_metadata(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let resource = shared.knobs().resource.unwrap_or_else(|| format!("{}/mcp", shared.base));
    Json(json!({"resource": resource, "authorization_servers": [shared.base], "scopes_supported": ["read"]}))
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (knobs, base) = (shared.knobs(), &shared.base);
    let mut document = json!({
        "issuer": base,
        "authorization_endpoint": knobs.authorization_endpoint.unwrap_or_else(|| format!("{base}/authorize")),
        "token_endpoint": format!("{base}/token"),
        "revocation_endpoint": format!("{base}/revoke"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": if knobs.secrets { json!(["client_secret_basic"]) } else { json!(["none"]) },
        "authorization_response_iss_parameter_supported": knobs.says_issuer,
        "client_id_metadata_document_supported": knobs.documents,
    });
    if knobs.pkce {
        document["code_challenge_methods_supported"] = json!(["S256"]);
    }
    if knobs.registers {
        document["registration_endpoint"] = format!("{base}/register").into();
    }
    if knobs.userinfo {
        document["userinfo_endpoint"] = format!("{base}/userinfo").into();
    }
    Json(document)
}

async fn register(State(shared): State<Arc<Shared>>, Json(asked): Json<Value>) -> Response {
    let knobs = shared.knobs();
    shared.note("/register", &Fields::from([("body".to_owned(), asked.to_string())]));
    if !knobs.registers || asked["redirect_uris"].as_array().is_none_or(Vec::is_empty) {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_client_metadata"}))).into_response();
    }
    let id = format!("client-{}", uuid::Uuid::new_v4().simple());
    let secret = knobs.secrets.then(|| format!("secret-{}-{}", knobs.marker, uuid::Uuid::new_v4().simple()));
    lock(&shared.clients).insert(id.clone(), (asked.clone(), secret.clone()));
    let mut answer = asked;
    answer["client_id"] = id.into();
    if let Some(secret) = secret {
        answer["client_secret"] = secret.into();
        answer["client_secret_expires_at"] = 0.into();
    }
    (StatusCode::CREATED, Json(answer)).into_response()
}

/// Asks the person, who answers at once.
async fn authorize(State(shared): State<Arc<Shared>>, Query(fields): Query<Fields>) -> Response {
    shared.note("/authorize", &fields);
    let text = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let registered = lock(&shared.clients).get(text("client_id")).map(|(document, _)| document.clone());
    let document = match registered {
        Some(document) => Some(document),
        None => fetched(&shared.knobs(), text("client_id")).await,
    };
    let is_known = document.is_some_and(|document| {
        document["redirect_uris"].as_array().is_some_and(|uris| uris.contains(&text("redirect_uri").into()))
    });
    let good = is_known
        && text("response_type") == "code"
        && text("code_challenge_method") == "S256"
        && text("code_challenge").len() == 43
        && !text("state").is_empty();
    if !good {
        return (StatusCode::BAD_REQUEST, "not a good request").into_response();
    }
    shared.send_back(&fields, Some(text("code_challenge").to_owned()))
}

/// A client's document, from where the test says that it is.
async fn fetched(knobs: &Knobs, id: &str) -> Option<Value> {
    let (there, here) = knobs.documents_at.as_ref()?;
    let place = format!("{here}{}", id.strip_prefix(there.as_str())?);
    let document: Value = crate::client::http().get(place).send().await.ok()?.json().await.ok()?;
    (document["client_id"] == id).then_some(document)
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Response {
    shared.note("/token", &fields);
    let refused = || (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"}))).into_response();
    let (client, shown) = match basic(&headers) {
        Some((id, secret)) => (id, Some(secret)),
        None => (fields.get("client_id").cloned().unwrap_or_default(), fields.get("client_secret").cloned()),
    };
    let wanted = lock(&shared.clients).get(&client).map(|(_, secret)| secret.clone());
    match wanted {
        Some(wanted) if wanted != shown => return refused(),
        None if !client.starts_with("https://") => return refused(),
        _ => {}
    }
    shared.tokens(&client, &fields).await
}

/// A client's id and secret out of the header.
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |text: &str| {
        url::form_urlencoded::parse(format!("x={text}").as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
}

async fn revoke(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let fields: Fields = url::form_urlencoded::parse(&body).into_owned().collect();
    shared.note("/revoke", &fields);
    if shared.knobs().revocation_is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    lock(&shared.grants).revoke(fields.get("token").map(String::as_str).unwrap_or_default());
    StatusCode::OK.into_response()
}

async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let grants = lock(&shared.grants);
    match bearer(&headers).and_then(|token| grants.of_access(token)) {
        Some(family) => {
            let (id, name) = &family.workspace;
            Json(json!({"sub": "a-person", "workspace_id": id, "workspace_name": name})).into_response()
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}
