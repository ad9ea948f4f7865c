//! Agents that call: by the header `X-Agent-Authorization`, which no other route looks at.

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};
use secrecy::SecretString;
use shared::{
    agents::side::AgentActor,
    error::{Code, Error, Result},
};
use tracing::{Span, field::display};

use super::{LONGEST, note_route};
use crate::{error::Failure, extract::RequestId, limits, state::App};

const HEADER: &str = "x-agent-authorization";

/// An agent that showed a good token, and has not asked too often.
pub(crate) struct AgentCaller(pub(crate) AgentActor);

impl FromRequestParts<App> for AgentCaller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        let RequestId(id) = RequestId::from_request_parts(parts, app).await?;
        let actor = app.agents.actor(&token(&parts.headers)?, &id).await?;
        let span = Span::current();
        span.record("tenant_id", display(actor.tenant()));
        span.record("agent_name", actor.agent().as_str());
        let Some(refused) = app.agent_limits.refused(actor.tenant(), actor.agent()) else {
            return Ok(Self(actor));
        };
        let refusal = Err(limits::too_many(refused.wait));
        if !refused.is_news {
            return Ok(refusal?);
        }
        let session = actor.session().to_string();
        Ok(app.agents.or_refused(&actor, "agent_session.use", &session, refusal).await?)
    }
}

/// The token of a request, with `Bearer` before it or without.
///
/// # Errors
/// 401.
pub(crate) fn token(headers: &HeaderMap) -> Result<SecretString> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Error::new(
            Code::Auth,
            "an agent's token is required, once: X-Agent-Authorization: Bearer and what POST /api/v1/agents/token answered",
        ));
    };
    let text = value.to_str().unwrap_or_default().trim();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => text,
    };
    if token.is_empty() || token.len() > LONGEST {
        return Err(Error::new(Code::Auth, "the header X-Agent-Authorization takes an agent's token"));
    }
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_token_comes_with_bearer_or_without_and_once() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, value.parse().unwrap());
            }
            token(&headers).map(|token| token.expose_secret().to_owned()).ok()
        };
        for good in ["a.b.c", "Bearer a.b.c", "bearer  a.b.c", " a.b.c "] {
            assert_eq!(read(&[good]).as_deref(), Some("a.b.c"), "{good:?}");
        }
        for wrong in [&[][..], &[""], &["a.b.c", "a.b.c"], &["x".repeat(LONGEST + 1).as_str()]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
