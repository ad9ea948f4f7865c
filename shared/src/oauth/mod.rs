//! OAuth as a client: who issues tokens for a server, what Alfred is called there, sending a person there and back, and
//! tokens: got, refreshed, given back.
//!
//! Knows no database and no tenant. Every address here comes from somebody else, so every request goes through
//! [`Outbound`](crate::outbound::Outbound), and what the other side wrote appears in no message of ours beyond words that
//! cannot hold a secret.

mod authorize;
mod discovery;
mod registration;
mod tokens;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

pub use self::{
    authorize::{Departure, Reply, depart, random_text},
    discovery::{Discovered, discover},
    registration::{Registered, client_document, register},
    tokens::{TokenFailure, Tokens, Workspace, exchange, refresh, revoke, workspace},
};

/// The form of an authorization server's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// As RFC 6749 says.
    Form,
    /// As Notion's API wants them: JSON, without PKCE and without `resource`.
    Notion,
}

/// Where an authorization server does what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Its name, letter by letter as it gives it.
    pub issuer: String,
    pub authorization: Url,
    pub token: Url,
    #[serde(default)]
    pub revocation: Option<Url>,
    /// Tells whose token it is (OpenID Connect).
    #[serde(default)]
    pub userinfo: Option<Url>,
    pub wire: Wire,
    /// It says who it is when it sends a person back (RFC 9207).
    #[serde(default)]
    pub says_issuer: bool,
    /// What the tokens are for (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
}

/// How a client shows that it is itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthMethod {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "client_secret_basic")]
    Basic,
    #[serde(rename = "client_secret_post")]
    Post,
}

impl AuthMethod {
    /// The word of RFC 7591.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
        }
    }

    /// The method of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Basic, Self::Post].into_iter().find(|method| method.as_str() == word)
    }
}

/// What Alfred is called at an authorization server.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    pub id: String,
    pub secret: Option<SecretString>,
    pub method: AuthMethod,
}

/// A word of a protocol out of somebody's answer: short, and of letters that no token is made of alone.
fn word(text: &str) -> String {
    let word: String =
        text.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').take(40).collect();
    if word.is_empty() { "an error without a name".to_owned() } else { word }
}
