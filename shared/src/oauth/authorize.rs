//! Sending a person to an authorization server, and reading what they come back with.

use std::borrow::Cow;

use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, Scope, basic::BasicClient};
use secrecy::SecretString;
use url::Url;

use super::{Endpoints, Wire};

/// A person is about to leave.
#[derive(Debug)]
pub struct Departure {
    /// Where to.
    pub url: Url,
    /// What they come back with, and nobody else knows.
    pub state: SecretString,
    /// What the code is exchanged with; none where the server knows no PKCE.
    pub verifier: Option<SecretString>,
}

/// The address that asks a person for this. `state_of` makes the state out of random text.
#[must_use]
pub fn depart(
    endpoints: &Endpoints,
    client_id: &str,
    redirect_uri: &Url,
    scopes: &[String],
    state_of: impl FnOnce(&str) -> String,
) -> Departure {
    let state = CsrfToken::new(state_of(CsrfToken::new_random_len(32).secret()));
    let client = BasicClient::new(ClientId::new(client_id.to_owned()))
        .set_auth_uri(AuthUrl::from_url(endpoints.authorization.clone()));
    let redirect_url = RedirectUrl::from_url(redirect_uri.clone());
    let asked = client
        .authorize_url(|| state)
        .set_redirect_uri(Cow::Owned(redirect_url))
        .add_scopes(scopes.iter().cloned().map(Scope::new));
    let (asked, verifier) = match endpoints.wire {
        Wire::Form => {
            let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
            let asked = match &endpoints.resource {
                Some(resource) => asked.add_extra_param("resource", resource.clone()),
                None => asked,
            };
            (asked.set_pkce_challenge(challenge), Some(verifier.into_secret().into()))
        }
        Wire::Notion => (asked.add_extra_param("owner", "user"), None),
    };
    let (url, state) = asked.url();
    Departure { url, state: state.into_secret().into(), verifier }
}

/// 256 random bits as text.
#[must_use]
pub fn random_text() -> SecretString {
    CsrfToken::new_random_len(32).into_secret().into()
}

/// What a person comes back with.
#[derive(Debug, Default)]
pub struct Reply {
    pub state: Option<SecretString>,
    pub code: Option<SecretString>,
    pub iss: Option<String>,
    pub error: Option<String>,
}

impl Reply {
    /// Reads the query of the address that they came back to. What comes twice counts as not there.
    #[must_use]
    pub fn read(query: &str) -> Self {
        let once = |name: &str| {
            let mut found = url::form_urlencoded::parse(query.as_bytes())
                .filter(|(known, value)| known == name && !value.is_empty() && value.len() <= 4096);
            let first = found.next()?.1.into_owned();
            found.next().is_none().then_some(first)
        };
        Self {
            state: once("state").map(SecretString::from),
            code: once("code").map(SecretString::from),
            iss: once("iss"),
            error: once("error"),
        }
    }

    /// Whether this is said by the server that the person was sent to (RFC 9207).
    #[must_use]
    pub fn is_from(&self, endpoints: &Endpoints) -> bool {
        match &self.iss {
            Some(iss) => *iss == endpoints.issuer,
            None => !endpoints.says_issuer,
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn endpoints(wire: Wire) -> Endpoints {
        Endpoints {
            issuer: "https://as.example".to_owned(),
            authorization: "https://as.example/authorize?x=1".parse().unwrap(),
            token: "https://as.example/token".parse().unwrap(),
            revocation: None,
            userinfo: None,
            wire,
            says_issuer: true,
            resource: Some("https://mcp.example/mcp".to_owned()),
        }
    }

    #[test]
    fn a_person_is_sent_with_all_that_is_asked() {
        let back: Url = "https://alfred.example/oauth/x/callback".parse().unwrap();
        let left = depart(&endpoints(Wire::Form), "me", &back, &["a".into(), "b".into()], |random| {
            format!("t.{random}")
        });
        let names: Vec<String> = left.url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(
            names,
            [
                "x",
                "response_type",
                "client_id",
                "state",
                "code_challenge",
                "code_challenge_method",
                "redirect_uri",
                "scope",
                "resource"
            ]
        );
        assert!(
            left.url.as_str().contains("code_challenge_method=S256")
                && left.url.as_str().contains("scope=a+b")
        );
        assert!(left.state.expose_secret().starts_with("t.") && left.state.expose_secret().len() == 45);
        assert_eq!(left.verifier.unwrap().expose_secret().len(), 43);
        let left = depart(&endpoints(Wire::Notion), "me", &back, &[], str::to_owned);
        assert!(left.verifier.is_none() && left.url.as_str().contains("owner=user"));
        assert!(!left.url.as_str().contains("code_challenge"));
    }

    #[test]
    fn a_reply_is_of_whom_it_says() {
        let reply = Reply::read("code=c&state=s&iss=https%3A%2F%2Fas.example");
        assert!(reply.is_from(&endpoints(Wire::Form)) && reply.code.is_some());
        assert!(!Reply::read("code=c&state=s").is_from(&endpoints(Wire::Form)));
        assert!(!Reply::read("code=c&state=s&iss=https://evil.example").is_from(&endpoints(Wire::Form)));
        let silent = Endpoints { says_issuer: false, ..endpoints(Wire::Form) };
        assert!(Reply::read("code=c&state=s").is_from(&silent));
        assert!(!Reply::read("code=c&iss=https://evil.example").is_from(&silent));
        assert!(Reply::read("code=c&code=d&state=s").code.is_none());
    }
}
