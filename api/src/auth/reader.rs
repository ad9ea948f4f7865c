//! Who reads a stream, looked at again while it lasts: a stream is one request that may have no end, and what its
//! credential proved at the beginning may be over.
//!
//! Invariant: once a look is due nothing more is sent until it has found the same caller, in the same tenant, with the
//! same rights. Whoever is no longer the same is sent away, and gets the answer of the day when they come again.

use std::time::Duration;

use axum::extract::MatchedPath;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use shared::{
    error::{Error, Result},
    identity::Actor,
};
use tokio::time::Instant;

use super::Callers;
use crate::{error, sse::retry_line, state::App};

/// The longest that something may be sent after a look without another.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// What a credential is shown in. Signatures of tenant headers are left out: they are good for minutes, and grant nothing.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key"), header::COOKIE];

/// The caller of a stream.
pub(crate) struct Reader {
    /// In a box, as a stream is as large as its largest part, and there are many.
    who: Box<Who>,
    due: Instant,
}

struct Who {
    /// As much of the request as shows who calls, and in which tenant.
    parts: Parts,
    actor: Actor,
}

/// What a look came to.
pub(crate) enum Looked {
    /// The caller is who they were.
    Same,
    /// Nobody could be asked for as long as a keepalive's silence.
    Unknown,
    /// The stream is over, and these are its last bytes.
    Over(bytes::Bytes),
}

impl Reader {
    /// Of this request, whose caller was just found to be this one.
    ///
    /// # Errors
    /// An internal one, of a path that is none.
    pub(crate) fn new(app: &App, parts: &Parts, actor: &Actor) -> Result<Self> {
        let mut headers = HeaderMap::with_capacity(CREDENTIALS.len() + 1);
        for name in CREDENTIALS {
            for value in parts.headers.get_all(&name) {
                let mut value = value.clone();
                value.set_sensitive(true);
                headers.append(&name, value);
            }
        }
        let tenant = HeaderValue::from_str(&actor.tenant.to_string()).map_err(Error::internal)?;
        headers.insert("x-tenant-id", tenant);
        let (mut kept, ()) = http::Request::new(()).into_parts();
        kept.uri = parts.uri.path().parse().map_err(Error::internal)?;
        kept.headers = headers;
        if let Some(route) = parts.extensions.get::<MatchedPath>() {
            kept.extensions.insert(route.clone());
        }
        let who = Box::new(Who { parts: kept, actor: actor.clone() });
        Ok(Self { who, due: due(app) })
    }

    pub(crate) fn actor(&self) -> &Actor {
        &self.who.actor
    }

    /// Whether nothing may be sent before [`Reader::look`] has found the same caller.
    pub(crate) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Looks again.
    pub(crate) async fn look(&mut self, app: &App) -> Looked {
        // In a box, as for almost all of its time a stream does not look.
        let looking = Box::pin(is_same(app, &self.who));
        let is_same = tokio::select! {
            biased;
            () = app.draining.cancelled() => false,
            is_same = looking => is_same,
            () = tokio::time::sleep(app.config.stream_keepalive) => return Looked::Unknown,
        };
        if !is_same {
            // Soon, as a caller who is refused learns why by coming again, but not all at once.
            return Looked::Over(retry_line(Duration::from_millis(rand::random_range(100..=2000))));
        }
        self.due = due(app);
        Looked::Same
    }
}

/// When to look next: not at all streams at once.
fn due(app: &App) -> Instant {
    let longest = (app.config.stream_keepalive * 2).min(GOOD_FOR);
    Instant::now() + longest.mul_f64(rand::random_range(0.75..1.0))
}

/// Waits for as long as there is no answer.
async fn is_same(app: &App, who: &Who) -> bool {
    loop {
        match app.callers.is_still(&who.parts, &who.actor).await {
            Ok(is_still) => return is_still,
            Err(failure) if error::status(&failure).is_client_error() => return false,
            Err(failure) => {
                tracing::warn!(
                    error = &failure as &dyn std::error::Error,
                    "a stream waits until its reader can be looked at"
                );
                tokio::time::sleep(Duration::from_millis(rand::random_range(500..=2000))).await;
            }
        }
    }
}

impl Callers {
    /// Whether this request is still this caller's.
    async fn is_still(&self, parts: &Parts, actor: &Actor) -> Result<bool> {
        let principal = self.principal(parts).await?;
        let chosen = self.tenants.standing(&principal, &parts.headers).await?.chosen?;
        // Whoever was removed and is asked in again is not in before they accept.
        Ok(!chosen.accepts
            && (chosen.tenant, chosen.role) == (actor.tenant, actor.role)
            && principal.user == actor.user
            && principal.scopes == actor.scopes
            && principal.operator == actor.operator)
    }
}
