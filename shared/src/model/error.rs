//! How a model call fails, in the few classes that retries and clients tell apart.

use std::{error::Error as StdError, time::Duration};

/// A model call that did not end in a reply.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// What to do about it.
    pub kind: ModelErrorKind,
    /// What happened, safe to show to a client: no provider body, no key, no address.
    pub message: String,
    /// When the provider wants to be asked again, counted from now.
    pub retry_after: Option<Duration>,
    /// The cause, for logs.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelErrorKind {
    /// Too many requests or tokens for the account (429).
    RateLimited,
    /// The provider is out of capacity (529, 503, or an overload event inside a stream).
    Overloaded,
    /// The provider failed or cannot be reached (500, 502, 504, 408, 409, refused connection).
    Unavailable,
    /// No connection in time, or a stream that fell silent.
    Timeout,
    /// The stream ended without its end marker, or carried something that is not the protocol.
    Truncated,
    /// The provider will not serve this request, however often it is asked.
    Rejected,
    /// The key is missing, wrong or not allowed to use the model (401, 403).
    Unauthorized,
}

impl ModelErrorKind {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Rejected => "rejected",
            Self::Unauthorized => "unauthorized",
        }
    }
}

impl ModelError {
    /// An error without a cause or a wish for when to retry.
    pub fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    /// The same error with its cause.
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Whether the same request may succeed later: everything but a rejection and a bad key.
    pub fn is_retryable(&self) -> bool {
        !matches!(self.kind, ModelErrorKind::Rejected | ModelErrorKind::Unauthorized)
    }
}
