//! What went wrong with a server, told apart by what follows from it: a retry, an open breaker, a new sign-in, or nothing.

use std::error::Error as StdError;

use rmcp::{
    service::{ClientInitializeError, ServiceError},
    transport::{DynamicTransportError, streamable_http_client::StreamableHttpError},
};

use crate::{
    error::{Code, Error},
    remote::text,
};

/// Bytes of a server's own sentence that are passed on.
const LONGEST_SENTENCE: usize = 500;

#[derive(Debug)]
pub(super) enum Failure {
    /// It said nothing for too long.
    Timeout,
    /// It cannot be reached, broke off, or talks nonsense.
    Unavailable(String),
    /// It does not take the credential.
    Unauthorized,
    /// It takes the credential, but not for this.
    NotAllowed,
    /// It wants to be asked less.
    Limited,
    /// It understood and refused.
    Refused(String),
    /// It sent more than is read.
    TooLarge,
    /// We do not ask at such an address.
    Forbidden(Error),
}

impl Failure {
    /// Whether the server is to be left alone when this goes on.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable(_))
    }

    /// Whether the same call may go well a moment later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable(_) | Self::Limited)
    }

    /// For whoever asked. No address and no credential is in it.
    pub(super) fn into_error(self, server: &str) -> Error {
        match self {
            Self::Timeout => {
                Error::new(Code::McpTimeout, format!("the server {server} does not answer in time"))
            }
            Self::Unavailable(detail) => {
                Error::new(Code::McpUnavailable, format!("the server {server} cannot be reached now"))
                    .with_source(detail)
            }
            Self::Unauthorized => Error::new(
                Code::McpBadRequest,
                format!("the server {server} does not accept the credential that it was shown"),
            ),
            Self::NotAllowed => Error::new(
                Code::McpBadRequest,
                format!("the server {server} does not allow this with the credential that it was shown"),
            ),
            Self::Limited => Error::new(
                Code::McpUnavailable,
                format!("the server {server} wants to be asked less often; try again later"),
            ),
            Self::Refused(sentence) => {
                Error::new(Code::McpBadRequest, format!("the server {server} refused the call: {sentence}"))
            }
            Self::TooLarge => Error::new(
                Code::McpBadRequest,
                format!("the server {server} sent more than is read; ask for less"),
            ),
            Self::Forbidden(error) => {
                Error::new(Code::McpBadRequest, format!("the address of the server {server} is not asked"))
                    .with_source(error.message.into_owned())
            }
        }
    }

    fn refused(sentence: &str) -> Self {
        let visible = text::visible(sentence);
        Self::Refused(text::shortened(&visible, LONGEST_SENTENCE).to_owned())
    }
}

/// Whether a server that was asked in the newest way answered like one that does not know it. The specification wants an
/// error of the request; servers also answer with an error of no request, with a page, or with nothing in particular.
pub(super) fn is_of_an_older_server(error: &ClientInitializeError) -> bool {
    match error {
        ClientInitializeError::ExpectedInitResponse(_)
        | ClientInitializeError::ExpectedInitResult(_)
        | ClientInitializeError::ConflictInitResponseId(..)
        | ClientInitializeError::UncorrelatedErrorResponse { .. } => true,
        ClientInitializeError::TransportError { error, .. } => {
            matches!(Failure::from(error), Failure::Refused(_))
        }
        _ => false,
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::McpError(error) => Self::refused(&error.message),
            ServiceError::TransportSend(error) => Self::from(&error),
            ServiceError::Timeout { .. } => Self::Timeout,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<ClientInitializeError> for Failure {
    fn from(error: ClientInitializeError) -> Self {
        match error {
            ClientInitializeError::TransportError { error, .. } => Self::from(&error),
            ClientInitializeError::LegacyFallbackFailed { fallback, .. } => Self::from(*fallback),
            ClientInitializeError::JsonRpcError(error) => Self::refused(&error.message),
            other => Self::Unavailable(text::shortened(&other.to_string(), LONGEST_SENTENCE).to_owned()),
        }
    }
}

impl From<&DynamicTransportError> for Failure {
    fn from(error: &DynamicTransportError) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error.error.as_ref());
        while let Some(found) = cause {
            if let Some(http) = found.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
                return Self::from(http);
            }
            cause = found.source();
        }
        Self::Unavailable(error.to_string())
    }
}

impl From<&StreamableHttpError<reqwest::Error>> for Failure {
    fn from(error: &StreamableHttpError<reqwest::Error>) -> Self {
        match error {
            StreamableHttpError::AuthRequired(_) => Self::Unauthorized,
            StreamableHttpError::InsufficientScope(_) => Self::NotAllowed,
            StreamableHttpError::HttpStatus(status) if status.status == 429 => Self::Limited,
            StreamableHttpError::ResponseBodyTooLarge { .. } => Self::TooLarge,
            StreamableHttpError::Client(error) if error.is_timeout() && !error.is_connect() => Self::Timeout,
            // Its text names the address.
            StreamableHttpError::Client(error) => Self::Unavailable(deepest(error)),
            StreamableHttpError::UnexpectedServerResponse(text) => match status_of(text) {
                Some(401) => Self::Unauthorized,
                Some(403) => Self::NotAllowed,
                Some(status @ 400..=499) => Self::Refused(format!("HTTP {status}")),
                _ => Self::Unavailable(text::shortened(text, LONGEST_SENTENCE).to_owned()),
            },
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The status in `HTTP 404 Not Found: …`, which is how the SDK tells of it.
fn status_of(text: &str) -> Option<u16> {
    text.strip_prefix("HTTP ")?.get(..3)?.parse().ok()
}

fn deepest(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
