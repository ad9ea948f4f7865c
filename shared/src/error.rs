//! The one error type that crosses module borders.
//!
//! `message` is written for the client; `source` is for the log and is never shown. Status codes belong to the API,
//! so this file knows only the taxonomy of [O2].

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The result of everything that can fail across a module border.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where a failure began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    App,
    Db,
    Mcp,
    Model,
    Oauth,
}

impl Origin {
    /// The word of the contract, as logged and answered.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Db => "db",
            Self::Mcp => "mcp",
            Self::Model => "model",
            Self::Oauth => "oauth",
        }
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal, $origin:ident;)*) => {
        /// What went wrong, in the words of [O2]. Serialised as the contract spells it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $(#[serde(rename = $text)] $name,)* }

        impl Code {
            /// Every code, for the snapshot of the taxonomy.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Where such a failure begins, unless the error says otherwise.
            #[must_use]
            pub fn origin(self) -> Origin {
                match self { $(Code::$name => Origin::$origin,)* }
            }
        }
    };
}

codes! {
    Malformed = "APP-4XX-VALIDATION", App;
    Auth = "APP-401-AUTH", App;
    Forbidden = "APP-403-FORBIDDEN", App;
    NotFound = "APP-404-NOT-FOUND", App;
    Conflict = "APP-409-CONFLICT", App;
    Gone = "APP-410-GONE", App;
    Precondition = "APP-412-PRECONDITION", App;
    Rate = "APP-429-RATE", App;
    Internal = "APP-5XX", App;
    McpBadRequest = "MCP-BAD-REQUEST", Mcp;
    McpUnavailable = "MCP-UNAVAILABLE", Mcp;
    McpTimeout = "MCP-TIMEOUT", Mcp;
    ModelUnavailable = "MODEL-UNAVAILABLE", Model;
    ModelTimeout = "MODEL-TIMEOUT", Model;
    ModelRate = "MODEL-RATE", Model;
    ModelBudget = "MODEL-BUDGET", Model;
    ModelRejected = "MODEL-REJECTED", Model;
    OauthExchange = "OAUTH-EXCHANGE-FAIL", Oauth;
    OauthRefresh = "OAUTH-REFRESH-FAIL", Oauth;
}

/// How a request that is wrong in itself is wrong; they share one code and differ in status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Unreadable: broken JSON, a bad header or parameter (400).
    Unreadable,
    /// Well-formed but not acceptable (422).
    Unacceptable,
    /// A method that the route does not have (405).
    Method,
    /// Too large (413).
    TooLarge,
    /// Not JSON (415).
    MediaType,
}

/// A failure, ready to be answered and to be logged. Copies share their cause.
#[derive(Debug, Clone)]
pub struct Error {
    /// The code of the taxonomy.
    pub code: Code,
    /// For the client: what was tried, on what, and what to do.
    pub message: Cow<'static, str>,
    /// Where it began.
    pub origin: Origin,
    /// Which kind of invalid, when the code is [`Code::Malformed`].
    pub invalid: Invalid,
    /// More members for the answer's body (such as the running job of a conflict).
    pub details: Option<serde_json::Map<String, serde_json::Value>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this code, with a sentence for the client.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            origin: code.origin(),
            invalid: Invalid::Unacceptable,
            details: None,
            source: None,
        }
    }

    /// A request that is wrong in itself.
    pub fn invalid(how: Invalid, message: impl Into<Cow<'static, str>>) -> Self {
        Self { invalid: how, ..Self::new(Code::Malformed, message) }
    }

    /// 422: well-formed, but not acceptable.
    pub fn unacceptable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(Invalid::Unacceptable, message)
    }

    /// 404; also for what exists but is not the caller's.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// 500 with its cause, which goes to the log only.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "an internal error; the log has it under this request id")
            .with_source(source)
    }

    /// The same error with its cause, which goes to the log only.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        self.source = Some(source.into());
        self
    }

    /// The same error with one more member in the answer's body.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// The database's own error behind this one, if there is one.
    #[must_use]
    pub fn database(&self) -> Option<&sqlx::Error> {
        self.source.as_ref().and_then(|source| source.downcast_ref())
    }

    /// Whether the database went away or asked to try again: the same call may well succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.database().is_some_and(is_transient)
    }

    /// Whether the database refused a value that it was given: out of its range, or not to be stored at all. Nothing was
    /// written, and another value will do.
    #[must_use]
    pub fn is_about_a_value(&self) -> bool {
        matches!(self.database(), Some(sqlx::Error::Database(database))
            if matches!(database.code().as_deref(), Some("22003" | "22007" | "22008" | "22021" | "22P05")))
    }
}

/// Whether a database error is about the moment rather than the statement: lost connections, restarts, deadlocks,
/// serialisation failures, lock and pool time-outs.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            // 08 connection, 40 rollback (deadlock, serialisation), 53 resources, 57 operator intervention
            // (shutdown, crash, statement time-out), 55P03 lock not available, 25P03 idle in transaction.
            matches!(code.get(..2), Some("08" | "40" | "53" | "57")) || code == "55P03" || code == "25P03"
        }),
        _ => false,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self { origin: Origin::Db, ..Self::internal(error) }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}
