//! What happens around signing in, told to the log and the metrics. Never a secret: no password, token or key, and no
//! address of a person, whom the log knows by their id.

use std::{net::IpAddr, time::Instant};

use shared::{
    error::Code,
    ids::{SignInId, UserId},
};

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Register,
    Login,
    Refresh,
    Logout,
    PasswordChanged,
    SignInRevoked,
    InvitationAccepted,
    KeyMade,
    KeyRevoked,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::PasswordChanged => "password_changed",
            Self::SignInRevoked => "sign_in_revoked",
            Self::InvitationAccepted => "invitation_accepted",
            Self::KeyMade => "key_made",
            Self::KeyRevoked => "key_revoked",
        }
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The credential was not good.
    Refused,
    /// Too many attempts.
    Throttled,
    /// A refresh token that was replaced was used again.
    Reused,
    /// The address has an account.
    Taken,
    /// Ours to mend, or a request that is wrong in itself.
    Error,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Reused => "reused",
            Self::Taken => "taken",
            Self::Error => "error",
        }
    }

    /// The outcome of an error.
    pub(crate) fn of(error: &shared::Error) -> Self {
        match error.code {
            Code::Rate => Self::Throttled,
            Code::Auth | Code::Forbidden => Self::Refused,
            _ => Self::Error,
        }
    }
}

/// Who and where, as far as known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    pub(crate) address: Option<IpAddr>,
    pub(crate) user: Option<UserId>,
    pub(crate) sign_in: Option<SignInId>,
}

/// Counts an event and writes it to the log.
pub(crate) fn note(event: Event, outcome: Outcome, since: Instant, about: About) {
    let labels = [("event_type", event.as_str()), ("outcome", outcome.as_str())];
    metrics::counter!("auth_events_total", &labels).increment(1);
    metrics::histogram!("auth_duration_seconds", "event_type" => event.as_str())
        .record(since.elapsed().as_secs_f64());
    let text = |value: Option<String>| value.unwrap_or_default();
    tracing::info!(
        event_type = event.as_str(),
        outcome = outcome.as_str(),
        client_address = text(about.address.map(|address| address.to_string())),
        account = text(about.user.map(|user| user.to_string())),
        sign_in = text(about.sign_in.map(|sign_in| sign_in.to_string())),
        "authentication"
    );
}
