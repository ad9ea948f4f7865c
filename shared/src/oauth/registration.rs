//! What Alfred is called at an authorization server: by the address of a document about itself, or as it registered
//! itself (RFC 7591).

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AuthMethod, ClientIdentity, Discovered, word};
use crate::{
    error::{Code, Error, Result},
    outbound::{Outbound, Outgoing},
};

const LARGEST: usize = 64 * 1024;

/// A registration.
#[derive(Debug, Clone)]
pub struct Registered {
    pub client: ClientIdentity,
    /// None where it does not end.
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Answer {
    client_id: String,
    #[serde(default)]
    client_secret: Option<SecretString>,
    #[serde(default)]
    client_secret_expires_at: Option<i64>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
}

/// What Alfred says about itself.
#[must_use]
pub fn client_document(client_id: Option<&str>, home: &str, redirect_uri: &str, method: AuthMethod) -> Value {
    let mut document = json!({
        "client_name": "Alfred",
        "client_uri": home,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method.as_str(),
        "application_type": "web",
    });
    if let (Some(id), Some(members)) = (client_id, document.as_object_mut()) {
        members.insert("client_id".to_owned(), id.into());
    }
    document
}

/// Registers Alfred.
///
/// # Errors
/// OAUTH-EXCHANGE-FAIL when the server takes no registrations, or not this one.
pub async fn register(
    outbound: &Outbound,
    server: &Discovered,
    home: &str,
    redirect_uri: &str,
    within: Duration,
) -> Result<Registered> {
    let issuer = &server.endpoints.issuer;
    let Some(place) = &server.registration else {
        let sentence =
            format!("{issuer} takes no registrations: an admin must give Alfred a client id there");
        return Err(Error::new(Code::OauthExchange, sentence));
    };
    let method = method(&server.auth_methods);
    let asked = Outgoing::json(place, &client_document(None, home, redirect_uri, method));
    let answer = outbound.send(asked, LARGEST, within).await.map_err(|unanswered| {
        Error::new(Code::OauthExchange, format!("{issuer} does not answer"))
            .with_source(Error::from(unanswered))
    })?;
    if !answer.status.is_success() {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = word(said["error"].as_str().unwrap_or_default());
        let sentence = format!("{issuer} does not register Alfred: {} ({said})", answer.status.as_u16());
        return Err(Error::new(Code::OauthExchange, sentence));
    }
    let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| {
        Error::new(Code::OauthExchange, format!("{issuer} answers a registration without an id"))
    })?;
    let told = answer.token_endpoint_auth_method.as_deref().and_then(AuthMethod::from_word);
    let method = match (&answer.client_secret, told) {
        (None, _) => AuthMethod::None,
        (Some(_), Some(method)) => method,
        (Some(_), None) => AuthMethod::Basic,
    };
    Ok(Registered {
        client: ClientIdentity { id: answer.client_id, secret: answer.client_secret, method },
        expires_at: answer
            .client_secret_expires_at
            .filter(|seconds| *seconds > 0)
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
    })
}

/// None where that is offered, or nothing is said.
fn method(offered: &[AuthMethod]) -> AuthMethod {
    match offered {
        [] => AuthMethod::None,
        offered if offered.contains(&AuthMethod::None) => AuthMethod::None,
        offered => offered[0],
    }
}
