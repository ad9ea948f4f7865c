//! What handlers take from a request, with every failure in the one error shape.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
};
use futures::StreamExt as _;
use http::{HeaderMap, header, request::Parts};
use serde::de::DeserializeOwned;
use shared::{
    error::{Error, Invalid},
    ids::{ApiKeyId, ConnectionId, SessionId, SignInId, TenantId, TurnId},
};

use crate::{
    error::{Failure, unreadable},
    object::Object,
    state::App,
};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away, so that its sender sees the answer.
const THROWN_AWAY: usize = 8 << 20;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        parse(&json_body(request, app.config.max_body_bytes).await?)
    }
}

/// A JSON body that may be left out.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let is_json = is_json(request.headers());
        let body = read(request, app.config.max_body_bytes).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            let message = "a body must be JSON, with Content-Type: application/json";
            return Err(Error::invalid(Invalid::MediaType, message).into());
        }
        let Json(value) = parse(&body)?;
        Ok(Self(value))
    }
}

/// The bytes of a body, whatever they are.
pub(crate) async fn body(request: Request, most: usize) -> Result<Bytes, Failure> {
    read(request, most).await
}

/// The bytes of a body that says it is JSON.
pub(crate) async fn json_body(request: Request, most: usize) -> Result<Bytes, Failure> {
    if !is_json(request.headers()) {
        let message = "the body must be JSON, with Content-Type: application/json";
        return Err(Error::invalid(Invalid::MediaType, message).into());
    }
    read(request, most).await
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<Json<T>, Failure> {
    // axum names the field by its path, such as `messages[0].role`.
    match axum::Json::from_bytes(body) {
        Ok(axum::Json(Object(value))) => Ok(Json(value)),
        Err(rejection @ JsonRejection::JsonDataError(_)) => {
            Err(Error::unacceptable(without_prefix(&rejection.body_text())).into())
        }
        Err(rejection) => {
            Err(unreadable(format!("the body is not JSON: {}", without_prefix(&rejection.body_text()))))
        }
    }
}

fn without_prefix(message: &str) -> String {
    message
        .strip_prefix("Failed to deserialize the JSON body into the target type: ")
        .or_else(|| message.strip_prefix("Failed to parse the request body as JSON: "))
        .unwrap_or(message)
        .to_owned()
}

async fn read(request: Request, most: usize) -> Result<Bytes, Failure> {
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = request.into_body();
    let reading = async {
        let room = announced.unwrap_or(0_usize).min(most);
        read_up_to(body, most, room).await
    };
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(read) => read,
        Err(_) => Err(unreadable(format!("the body did not arrive within {} seconds", BODY_TIME.as_secs()))),
    }
}

async fn read_up_to(body: Body, most: usize, room: usize) -> Result<Bytes, Failure> {
    let mut chunks = body.into_data_stream();
    let mut first = None;
    let mut whole = Vec::new();
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| unreadable("the body ended early"))?;
        length += chunk.len();
        if length > most {
            if length > THROWN_AWAY {
                break;
            }
            continue;
        }
        // Most bodies are one chunk, which then needs no copy.
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            None => whole.extend_from_slice(&chunk),
            Some(start) => {
                whole.reserve(room.max(length));
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&chunk);
            }
        }
    }
    if length > most {
        let message = format!("the body is larger than {most} bytes");
        return Err(Error::invalid(Invalid::TooLarge, message).into());
    }
    Ok(first.unwrap_or_else(|| whole.into()))
}

/// The query's parameters.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        parameters(parts).map(Self)
    }
}

/// The query's parameters, for handlers that take a request apart by themselves.
pub(crate) fn parameters<T: DeserializeOwned>(parts: &Parts) -> Result<T, Failure> {
    match Query::<T>::try_from_uri(&parts.uri) {
        Ok(Query(parameters)) => Ok(parameters),
        Err(rejection) => {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Err(unreadable(format!("the query cannot be read: {text}")))
        }
    }
}

/// The job that the path names. What is no id at all names no job.
pub(crate) struct Job(pub(crate) TurnId);

impl FromRequestParts<App> for Job {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let id = path_id(parts, app, "there is no such job").await?;
        tracing::Span::current().record("turn_id", tracing::field::display(id));
        Ok(Self(TurnId(id)))
    }
}

/// The session that the path names.
pub(crate) struct SessionOfPath(pub(crate) SessionId);

impl FromRequestParts<App> for SessionOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(SessionId(path_id(parts, app, "there is no such session").await?)))
    }
}

/// The API key that the path names.
pub(crate) struct ApiKeyOfPath(pub(crate) ApiKeyId);

impl FromRequestParts<App> for ApiKeyOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(ApiKeyId(path_id(parts, app, "there is no such key").await?)))
    }
}

/// The sign-in that the path names.
pub(crate) struct SignInOfPath(pub(crate) SignInId);

impl FromRequestParts<App> for SignInOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(SignInId(path_id(parts, app, "there is no such sign-in").await?)))
    }
}

/// The connection that the path names.
pub(crate) struct ConnectionOfPath(pub(crate) ConnectionId);

impl FromRequestParts<App> for ConnectionOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(ConnectionId(path_id(parts, app, "there is no such connection").await?)))
    }
}

/// The tenant that the path names.
pub(crate) struct TenantOfPath(pub(crate) TenantId);

impl FromRequestParts<App> for TenantOfPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(TenantId(path_id(parts, app, "there is no such tenant").await?)))
    }
}

/// The parameter `id`, beside which a path may have others.
async fn path_id(parts: &mut Parts, app: &App, unknown: &'static str) -> Result<uuid::Uuid, Failure> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: uuid::Uuid,
    }
    match Path::<Id>::from_request_parts(parts, app).await {
        Ok(Path(Id { id })) => Ok(id),
        Err(_) => Err(Error::not_found(unknown).into()),
    }
}

/// The id of this request, as answered and logged.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

impl FromRequestParts<App> for RequestId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        match parts.extensions.get::<Self>() {
            Some(id) => Ok(id.clone()),
            None => Err(Error::internal("a request came past the place that gives it an id").into()),
        }
    }
}
