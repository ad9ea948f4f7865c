//! Servers that people connect: Notion in its two ways, which are built in, and whatever MCP servers a deployment or a
//! tenant has that sign people in by OAuth.

use futures::future::BoxFuture;
use secrecy::SecretString;
use url::Url;

use crate::{
    config::ConnectionConfig,
    error::Result,
    identity::Actor,
    oauth::{AuthMethod, ClientIdentity, Endpoints, Wire},
};

/// Notion's own MCP server.
pub const NOTION: &str = "notion";
/// The self-hosted one, which is a connection of its own.
pub const NOTION_SELF_HOSTED: &str = "notion-self-hosted";

/// A server that people connect.
#[derive(Debug, Clone)]
pub struct Provider {
    /// As in addresses and before tools' names.
    pub name: String,
    /// For people.
    pub title: String,
    /// The MCP server that the tokens are for.
    pub url: Url,
    pub way: Way,
    /// What Alfred is called there, when an admin has arranged that.
    pub client: Option<ClientIdentity>,
    /// What to ask for; empty: what the server says.
    pub scopes: Vec<String>,
}

/// How people sign in to it.
#[derive(Debug, Clone)]
pub enum Way {
    /// As the MCP specification says: everything is found out from the server's address.
    Discovered,
    /// By an integration that was registered by hand.
    Registered { endpoints: Box<Endpoints>, redirect_uri: Url },
}

/// Where servers beside the built-in ones come from.
pub trait Servers: Send + Sync {
    /// Those of the actor that sign people in by OAuth.
    fn of<'a>(&'a self, actor: &'a Actor) -> BoxFuture<'a, Result<Vec<Provider>>>;
}

/// Whether this can be a server's name: lower-case letters, digits and hyphens.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
}

pub(super) fn built_in(config: &ConnectionConfig) -> Vec<Provider> {
    let mut providers = Vec::new();
    if let Some(url) = &config.notion_hosted {
        providers.push(Provider {
            name: NOTION.to_owned(),
            title: "Notion".to_owned(),
            url: url.clone(),
            way: Way::Discovered,
            client: None,
            scopes: Vec::new(),
        });
    }
    if let Some(notion) = &config.notion_self_hosted {
        let at = |path: &str| {
            let mut url = notion.api.clone();
            url.set_path(&format!("{}{path}", notion.api.path().trim_end_matches('/')));
            url
        };
        let endpoints = Endpoints {
            issuer: notion.api.as_str().trim_end_matches('/').to_owned(),
            authorization: at("/v1/oauth/authorize"),
            token: at("/v1/oauth/token"),
            revocation: Some(at("/v1/oauth/revoke")),
            userinfo: None,
            wire: Wire::Notion,
            says_issuer: false,
            resource: None,
        };
        providers.push(Provider {
            name: NOTION_SELF_HOSTED.to_owned(),
            title: "Notion (self-hosted)".to_owned(),
            url: notion.server.clone(),
            way: Way::Registered {
                endpoints: Box::new(endpoints),
                redirect_uri: notion.redirect_uri.clone(),
            },
            client: Some(ClientIdentity {
                id: notion.client_id.clone(),
                secret: Some(SecretString::clone(&notion.client_secret)),
                method: AuthMethod::Basic,
            }),
            scopes: Vec::new(),
        });
    }
    providers
}
