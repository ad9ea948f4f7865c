//! The token endpoint: a code for tokens, a refresh token for new ones, and giving tokens back (RFC 6749, 7009).
//!
//! A failure says whether the other side may have acted, because a refresh token that was used may be good for nothing any
//! more although its answer never came.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::{AuthMethod, ClientIdentity, Endpoints, Wire, word};
use crate::{
    error::Error,
    outbound::{Incoming, Outbound, Outgoing, Unanswered},
};

const LARGEST: usize = 64 * 1024;
/// The longest token that is kept.
const LONGEST: usize = 16 * 1024;

/// What an authorization server gave.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: SecretString,
    pub refresh: Option<SecretString>,
    /// Seconds; none where nothing is said.
    pub expires_in: Option<i64>,
    pub scope: Option<String>,
    /// Of what they are, where the answer itself tells.
    pub workspace: Option<Workspace>,
}

/// The part of the other service that a person chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub id: String,
    pub name: Option<String>,
}

/// Why there are no tokens.
#[derive(Debug)]
pub enum TokenFailure {
    /// The code or the refresh token is good for nothing (any more).
    Rejected,
    /// Something else was refused, in the protocol's word.
    Refused(String),
    /// The other side did not act.
    NotNow(String),
    /// Nobody knows whether the other side has acted.
    Unknown(String),
}

impl fmt::Display for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected => f.write_str("invalid_grant"),
            Self::Refused(what) | Self::NotNow(what) | Self::Unknown(what) => f.write_str(what),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<i64>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    workspace_id: Option<String>,
    #[serde(default)]
    workspace_name: Option<String>,
}

/// A number, also as text; what is neither counts as not said.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
    Ok(number.or_else(|| value.as_str()?.parse().ok()).filter(|seconds| *seconds >= 0))
}

/// Exchanges a code.
///
/// # Errors
/// See [`TokenFailure`].
pub async fn exchange(
    outbound: &Outbound,
    endpoints: &Endpoints,
    client: &ClientIdentity,
    code: &SecretString,
    redirect_uri: &str,
    verifier: Option<&SecretString>,
    within: Duration,
) -> Result<Tokens, TokenFailure> {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code.expose_secret()),
        ("redirect_uri", redirect_uri),
    ];
    if let Some(verifier) = verifier {
        fields.push(("code_verifier", verifier.expose_secret()));
    }
    ask(outbound, endpoints, client, fields, within).await
}

/// Exchanges a refresh token.
///
/// # Errors
/// See [`TokenFailure`].
pub async fn refresh(
    outbound: &Outbound,
    endpoints: &Endpoints,
    client: &ClientIdentity,
    token: &SecretString,
    within: Duration,
) -> Result<Tokens, TokenFailure> {
    let fields = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())];
    ask(outbound, endpoints, client, fields, within).await
}

/// Gives a token back; false when the server has no place for that, or does not take it.
pub async fn revoke(
    outbound: &Outbound,
    endpoints: &Endpoints,
    client: &ClientIdentity,
    token: &SecretString,
    hint: &str,
    within: Duration,
) -> bool {
    let Some(place) = &endpoints.revocation else { return false };
    let mut fields = vec![("token", token.expose_secret())];
    if endpoints.wire == Wire::Form {
        fields.push(("token_type_hint", hint));
    }
    let answered = outbound.send(request(place, endpoints, client, fields), LARGEST, within).await;
    answered.is_ok_and(|answer| answer.status.is_success())
}

/// Of what the token is, as OpenID Connect's userinfo tells it; none where that is not to be had.
pub async fn workspace(
    outbound: &Outbound,
    endpoints: &Endpoints,
    access: &SecretString,
    within: Duration,
) -> Option<Workspace> {
    let place = endpoints.userinfo.as_ref()?;
    // The token goes to whoever issued it and to the server that it is for, and nowhere else.
    if place.origin() != endpoints.token.origin() {
        return None;
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", access.expose_secret())).ok()?;
    bearer.set_sensitive(true);
    let asked = Outgoing::get(place).header(header::AUTHORIZATION, bearer);
    let answer =
        outbound.send(asked, LARGEST, within).await.ok().filter(|answer| answer.status == StatusCode::OK)?;
    let said: Value = serde_json::from_slice(&answer.body).ok()?;
    let text = |names: &[&str]| names.iter().find_map(|name| said[*name].as_str()).map(str::to_owned);
    let id = text(&["workspace_id", "sub"])?;
    Some(tidy(id, text(&["workspace_name", "email", "name", "preferred_username"])))
}

async fn ask<'a>(
    outbound: &Outbound,
    endpoints: &'a Endpoints,
    client: &'a ClientIdentity,
    mut fields: Vec<(&'a str, &'a str)>,
    within: Duration,
) -> Result<Tokens, TokenFailure> {
    if let (Wire::Form, Some(resource)) = (endpoints.wire, &endpoints.resource) {
        fields.push(("resource", resource));
    }
    match outbound.send(request(&endpoints.token, endpoints, client, fields), LARGEST, within).await {
        Ok(answer) => read(&answer),
        Err(Unanswered::Refused(error) | Unanswered::NotSent(error)) => {
            Err(TokenFailure::NotNow(error.message.into_owned()))
        }
        Err(Unanswered::Unknown(error)) => Err(TokenFailure::Unknown(error.message.into_owned())),
    }
}

/// The fields in the server's form, with the client's proof.
fn request<'a>(
    place: &Url,
    endpoints: &Endpoints,
    client: &'a ClientIdentity,
    mut fields: Vec<(&'a str, &'a str)>,
) -> Outgoing {
    let secret = client.secret.as_ref().map(|secret| secret.expose_secret());
    if client.method == AuthMethod::Post
        && let Some(secret) = secret
    {
        fields.push(("client_secret", secret));
    }
    let request = match endpoints.wire {
        Wire::Form => {
            if client.method != AuthMethod::Basic {
                fields.push(("client_id", &client.id));
            }
            Outgoing::form(place, fields)
        }
        Wire::Notion => {
            let members = fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
            Outgoing::json(place, &Value::Object(members.collect()))
        }
    };
    let (AuthMethod::Basic, Some(secret)) = (client.method, secret) else { return request };
    // RFC 6749, section 2.3.1: both are encoded as in a form first.
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = BASE64_STANDARD.encode(format!("{}:{}", encoded(&client.id), encoded(secret)));
    match HeaderValue::from_str(&format!("Basic {pair}")) {
        Ok(mut basic) => {
            basic.set_sensitive(true);
            request.header(header::AUTHORIZATION, basic)
        }
        Err(_) => request,
    }
}

fn read(answer: &Incoming) -> Result<Tokens, TokenFailure> {
    let status = answer.status;
    if !status.is_success() {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = said["error"].as_str().or_else(|| said["code"].as_str()).map(word);
        return Err(match (said.as_deref(), status.as_u16()) {
            (Some("invalid_grant"), 400..=499) => TokenFailure::Rejected,
            (_, 425 | 429) => TokenFailure::NotNow(format!("it answers {}", status.as_u16())),
            (_, 408 | 500..=599) => TokenFailure::Unknown(format!("it answers {}", status.as_u16())),
            (Some(said), _) => TokenFailure::Refused(said.to_owned()),
            (None, code) => TokenFailure::Refused(format!("it answers {code}")),
        });
    }
    let garbage = || TokenFailure::Unknown("its answer holds no token".to_owned());
    let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| garbage())?;
    if answer.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenFailure::Refused("its tokens are no bearer tokens".to_owned()));
    }
    let good = |token: &SecretString| {
        let text = token.expose_secret();
        !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !good(&answer.access_token) {
        return Err(garbage());
    }
    Ok(Tokens {
        access: answer.access_token,
        refresh: answer.refresh_token.filter(good),
        expires_in: answer.expires_in,
        scope: answer.scope.map(|scope| scope.replace('\0', "")),
        workspace: answer.workspace_id.map(|id| tidy(id, answer.workspace_name)),
    })
}

/// As it can be stored and shown.
fn tidy(id: String, name: Option<String>) -> Workspace {
    let plain = |text: String| -> String {
        let hides = |letter: &char| {
            letter.is_control()
                || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        };
        text.chars().filter(|letter| !hides(letter)).take(200).collect()
    };
    Workspace { id: plain(id), name: name.map(plain).filter(|name| !name.is_empty()) }
}

impl From<TokenFailure> for Error {
    fn from(failure: TokenFailure) -> Self {
        Self::internal(failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Result<Tokens, TokenFailure> {
        read(&Incoming {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        })
    }

    #[test]
    fn tokens_are_read_in_every_dialect() {
        let tokens = answered(
            200,
            r#"{"access_token":"a","token_type":"bearer","expires_in":"3600","refresh_token":null}"#,
        )
        .unwrap();
        assert_eq!((tokens.expires_in, tokens.refresh.is_none()), (Some(3600), true));
        let tokens =
            answered(200, r#"{"access_token":"a","workspace_id":"w","workspace_name":"A\u202eb\u0000"}"#)
                .unwrap();
        assert_eq!(tokens.workspace.unwrap(), Workspace { id: "w".to_owned(), name: Some("Ab".to_owned()) });
        assert!(tokens.expires_in.is_none());
    }

    #[test]
    fn failures_say_whether_the_other_side_may_have_acted() {
        assert!(matches!(answered(400, r#"{"error":"invalid_grant"}"#), Err(TokenFailure::Rejected)));
        assert!(matches!(answered(401, r#"{"code":"invalid_grant"}"#), Err(TokenFailure::Rejected)));
        assert!(
            matches!(answered(401, r#"{"error":"invalid_client"}"#), Err(TokenFailure::Refused(word)) if word == "invalid_client")
        );
        assert!(matches!(answered(429, ""), Err(TokenFailure::NotNow(_))));
        for status in [500, 502, 503, 408] {
            assert!(matches!(answered(status, "{}"), Err(TokenFailure::Unknown(_))));
        }
        for body in ["", "<html>", "{}", r#"{"access_token":""}"#, "{\"access_token\":\"a\\nb\"}"] {
            assert!(matches!(answered(200, body), Err(TokenFailure::Unknown(_))), "{body}");
        }
        let dpop = answered(200, r#"{"access_token":"a","token_type":"DPoP"}"#);
        assert!(matches!(dpop, Err(TokenFailure::Refused(_))));
        // Nothing that the other side wrote comes through but a word.
        let told = answered(400, r#"{"error":"sk-LEAK leak"}"#).unwrap_err();
        assert!(!format!("{told} {told:?}").contains("LEAK"));
    }
}
