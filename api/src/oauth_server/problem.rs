//! OAuth's own error shape (RFC 6749, section 5.2), which the endpoints for programs answer.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use shared::error::{Code, Error};

use crate::error::{self, Failure};

/// A refusal to a program.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: &'static str,
    description: String,
    /// Seconds until it may be tried again, if that is known.
    retry_after: Option<u64>,
}

impl Problem {
    /// 400 with one of the RFCs' words.
    pub(crate) fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into(), retry_after: None }
    }

    /// The one refusal of every code and refresh token that is not good: it does not say why.
    pub(crate) fn grant() -> Self {
        Self::new("invalid_grant", "the code or token is unknown, expired, used or of another client")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = error::status(&error);
        let word = match error.code {
            Code::Rate => "temporarily_unavailable",
            _ if status.is_client_error() => "invalid_request",
            _ => {
                tracing::error!(error = &error as &dyn std::error::Error, "an OAuth request failed");
                "server_error"
            }
        };
        metrics::counter!("errors_total", "origin" => error.origin.as_str(), "code" => error.code.as_str())
            .increment(1);
        let retry_after = error::retry_after(&error);
        Self { status, error: word, description: error.message.into_owned(), retry_after }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        failure.0.into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "error_description": self.description});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
