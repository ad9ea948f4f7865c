//! The one error shape [O2]: which status each code has, and how a failure becomes an answer.
//!
//! A handler answers a [`Failure`]; it carries no body yet, because only the request knows its id. [`complete`] writes
//! the body, logs what is ours to mend, and counts.

use std::{error::Error as StdError, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use shared::error::{Code, Error, Invalid, Origin};
use utoipa::ToSchema;

/// The result of a handler.
pub(crate) type Answer<T> = Result<T, Failure>;

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_about_a_value() {
            return Self(
                Error::unacceptable("a value is out of range or cannot be stored").with_source(error),
            );
        }
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = status(&self.0).into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            for scheme in ["Bearer realm=\"alfred\"", "ApiKey realm=\"alfred\""] {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        // Who knows when to try again says so in the body, and so in the header.
        if let Some(seconds) = retry_after(&self.0) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

/// Every error's body.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the shape; bodies are written by `body`")]
pub(crate) struct ErrorBody {
    /// The code, such as APP-404-NOT-FOUND.
    #[schema(example = "APP-404-NOT-FOUND")]
    error: String,
    /// A sentence for people: what was tried, on what, and what to do.
    message: String,
    /// Where it began: app, db, mcp, model or oauth.
    #[schema(example = "app")]
    origin: String,
    /// The request's id, under which the log has more.
    request_id: String,
}

/// Seconds until it may be tried again, if that is known.
pub(crate) fn retry_after(error: &Error) -> Option<u64> {
    error.details.as_ref()?.get("retryAfter")?.as_u64()
}

/// The status of an error.
pub(crate) fn status(error: &Error) -> StatusCode {
    match error.code {
        Code::Malformed => match error.invalid {
            Invalid::Unreadable => StatusCode::BAD_REQUEST,
            Invalid::Unacceptable => StatusCode::UNPROCESSABLE_ENTITY,
            Invalid::Method => StatusCode::METHOD_NOT_ALLOWED,
            Invalid::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Invalid::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        },
        Code::Auth => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict => StatusCode::CONFLICT,
        Code::Gone => StatusCode::GONE,
        Code::Precondition => StatusCode::PRECONDITION_FAILED,
        Code::Rate | Code::ModelRate => StatusCode::TOO_MANY_REQUESTS,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::McpBadRequest | Code::ModelRejected | Code::OauthExchange | Code::OauthRefresh => {
            StatusCode::BAD_GATEWAY
        }
        Code::McpUnavailable | Code::ModelUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::McpTimeout | Code::ModelTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::ModelBudget => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// What the access log says of a failed request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) code: Code,
    pub(crate) origin: Origin,
}

/// Gives a failure's answer its body. Causes of what is ours to mend are logged here and nowhere else.
pub(crate) fn complete(response: &mut Response, request_id: &str) -> Option<Failed> {
    let error = response.extensions_mut().remove::<Arc<Error>>()?;
    if error.code == Code::Internal {
        tracing::error!(error = &*error as &(dyn StdError + 'static), "a request failed");
    }
    metrics::counter!("errors_total", "origin" => error.origin.as_str(), "code" => error.code.as_str())
        .increment(1);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body(&error, request_id).to_string());
    Some(Failed { code: error.code, origin: error.origin })
}

/// Gives an error's answer that is none of ours, a file server's for example, the one shape unless it has one of its own.
pub(crate) fn adopt(response: &mut Response) {
    if response.extensions().get::<Arc<Error>>().is_none()
        && let Some(error) = of_another(response)
    {
        response.extensions_mut().insert(Arc::new(error));
    }
}

fn of_another(response: &Response) -> Option<Error> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let has_shape = kind.is_some_and(|kind| !kind.starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || has_shape {
        return None;
    }
    let message = status.canonical_reason().unwrap_or("the request failed").to_lowercase();
    Some(match status.as_u16() {
        401 => Error::new(Code::Auth, message),
        403 => Error::new(Code::Forbidden, message),
        404 => Error::not_found(message),
        405 => Error::invalid(Invalid::Method, message),
        409 => Error::conflict(message),
        410 => Error::new(Code::Gone, message),
        412 => Error::new(Code::Precondition, message),
        413 => Error::invalid(Invalid::TooLarge, message),
        415 => Error::invalid(Invalid::MediaType, message),
        422 => Error::unacceptable(message),
        429 => Error::new(Code::Rate, message),
        400..500 => Error::invalid(Invalid::Unreadable, message),
        _ => Error::internal(message),
    })
}

fn body(error: &Error, request_id: &str) -> Value {
    let mut body = Map::new();
    body.insert("error".to_owned(), error.code.as_str().into());
    body.insert("message".to_owned(), error.message.as_ref().into());
    body.insert("origin".to_owned(), error.origin.as_str().into());
    body.insert("requestId".to_owned(), request_id.into());
    for (name, value) in error.details.iter().flatten() {
        body.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(body)
}

/// A request that is wrong in itself and cannot be read: 400.
pub(crate) fn unreadable(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure(Error::invalid(Invalid::Unreadable, message))
}

/// What a panic in a handler answers; the panic hook has logged it.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Failure(Error::internal("a handler panicked")).into_response()
}

/// An unknown route.
pub(crate) async fn no_route() -> Failure {
    Failure(Error::not_found("there is no such route; /openapi.json lists them"))
}

/// A method that the route does not have. The router adds `Allow`.
pub(crate) async fn no_method() -> Failure {
    Failure(Error::invalid(
        Invalid::Method,
        "the route does not have this method; the Allow header lists its methods",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taxonomy_is_the_contracts() {
        let mut lines = Vec::new();
        for code in Code::ALL.iter().filter(|code| **code != Code::Malformed) {
            let error = Error::new(*code, "");
            lines.push(format!("{} {} {}", status(&error).as_u16(), code.as_str(), error.origin.as_str()));
        }
        for how in [
            Invalid::Unreadable,
            Invalid::Unacceptable,
            Invalid::Method,
            Invalid::TooLarge,
            Invalid::MediaType,
        ] {
            let error = Error::invalid(how, "");
            lines.push(format!("{} {} {how:?}", status(&error).as_u16(), error.code.as_str()));
        }
        lines.sort();
        insta::assert_snapshot!(lines.join("\n"), @r"
        400 APP-4XX-VALIDATION Unreadable
        401 APP-401-AUTH app
        403 APP-403-FORBIDDEN app
        404 APP-404-NOT-FOUND app
        405 APP-4XX-VALIDATION Method
        409 APP-409-CONFLICT app
        410 APP-410-GONE app
        412 APP-412-PRECONDITION app
        413 APP-4XX-VALIDATION TooLarge
        415 APP-4XX-VALIDATION MediaType
        422 APP-4XX-VALIDATION Unacceptable
        422 MODEL-BUDGET model
        429 APP-429-RATE app
        429 MODEL-RATE model
        500 APP-5XX app
        502 MCP-BAD-REQUEST mcp
        502 MODEL-REJECTED model
        502 OAUTH-EXCHANGE-FAIL oauth
        502 OAUTH-REFRESH-FAIL oauth
        503 MCP-UNAVAILABLE mcp
        503 MODEL-UNAVAILABLE model
        504 MCP-TIMEOUT mcp
        504 MODEL-TIMEOUT model
        ");
    }

    #[test]
    fn a_body_keeps_causes_to_itself() {
        let error =
            Error::internal("the password is hunter2").with_detail("jobId", "j").with_detail("error", "mine");
        let text = body(&error, "r1").to_string();
        assert_eq!(
            text,
            r#"{"error":"APP-5XX","jobId":"j","message":"an internal error; the log has it under this request id","origin":"app","requestId":"r1"}"#
        );
    }
}
