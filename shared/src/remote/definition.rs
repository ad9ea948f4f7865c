//! What somebody says about a remote server: its address, who may use it and how, and what its tools do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    cache::{CacheRules, Scope as Sharing},
    error::{Error, Result},
    tools::Effect,
};

/// Names that no server may have, because tools of our own could be taken for its.
const RESERVED: [&str; 3] = ["alfred", "workspace", "system"];
const LONGEST_NAME: usize = 32;
const LONGEST_URL: usize = 2048;
const MOST_ENTRIES: usize = 256;

/// A remote server, as configuration or an admin describes it. Its bearer token is not part of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerDefinition {
    /// Its tools are called `name.tool`: lower-case letters, digits and `-`, beginning with a letter.
    pub name: String,
    /// Its Streamable HTTP endpoint.
    pub url: Url,
    /// Whose credential its requests carry.
    #[serde(default)]
    pub auth: Auth,
    /// For how long results of its read tools are kept, and for whom.
    #[serde(default)]
    pub cache: CacheRules,
    /// Other names of its tools, `name.alias` to the server's own; a tool is offered under its alias.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// What tools do, where the server does not say it or is wrong; by the server's own name of the tool.
    #[serde(default)]
    pub effects: BTreeMap<String, Effect>,
    /// Whether the server is believed when it says what its tools do. Otherwise each of them is taken to be destructive
    /// unless `effects` says something else.
    #[serde(default = "yes", alias = "trust_annotations")]
    pub trust_annotations: bool,
    /// Calls that a process of ours makes to it at once.
    #[serde(default = "sixteen")]
    pub concurrency: u32,
    /// Whether it is used.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Whose credential a server's requests carry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Auth {
    /// Nobody's.
    #[default]
    None,
    /// One token for everybody who may use the server.
    Bearer,
    /// Each person's own, from their connection.
    OAuth(OAuthSettings),
}

/// How people connect to a server; read by the connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuthSettings {
    /// A client id that was registered beforehand; none: a document about us, or registration on the spot.
    #[serde(default, alias = "client_id", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Scopes to ask for; none: what the server names.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The header that the person's token goes into, where it is not `Authorization`. The server's own bearer token, if it
    /// has one, goes there.
    #[serde(default, alias = "token_header", skip_serializing_if = "Option::is_none")]
    pub token_header: Option<String>,
}

fn yes() -> bool {
    true
}

fn sixteen() -> u32 {
    16
}

impl ServerDefinition {
    /// A server without credentials, cached as the deployment does by default.
    #[must_use]
    pub fn new(name: &str, url: Url) -> Self {
        Self {
            name: name.to_owned(),
            url,
            auth: Auth::None,
            cache: CacheRules::default(),
            aliases: BTreeMap::new(),
            effects: BTreeMap::new(),
            trust_annotations: true,
            concurrency: sixteen(),
            enabled: true,
        }
    }

    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// 422 with the member that is wrong.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::unacceptable(what));
        check_name(&self.name)?;
        if self.url.as_str().len() > LONGEST_URL || self.url.fragment().is_some() {
            return wrong(format!("url: at most {LONGEST_URL} characters, without a fragment"));
        }
        if !(1..=1000).contains(&self.concurrency) {
            return wrong("concurrency: takes 1 to 1000".to_owned());
        }
        let entries = [self.aliases.len(), self.effects.len(), self.cache.tools.len()];
        if entries.iter().any(|entries| *entries > MOST_ENTRIES) {
            return wrong(format!("aliases, effects, cache.tools: at most {MOST_ENTRIES} each"));
        }
        for (alias, tool) in &self.aliases {
            let own = alias.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('.'));
            if !own.is_some_and(is_tool_name) || !is_tool_name(tool) {
                let name = &self.name;
                return wrong(format!(
                    "aliases: {alias:?} to {tool:?} is not {name}.tool to a tool of the server"
                ));
            }
        }
        if let Auth::OAuth(OAuthSettings { token_header: Some(header), .. }) = &self.auth {
            let reserved = ["host", "cookie", "content-length", "content-type", "accept", "authorization"];
            let is_usable = http::HeaderName::from_bytes(header.as_bytes()).is_ok_and(|name| {
                let name = name.as_str();
                !reserved.contains(&name)
                    && !name.starts_with("mcp-")
                    && name != "x-request-id"
                    && name != "traceparent"
            });
            if !is_usable {
                return wrong(format!("auth.tokenHeader: {header:?} cannot carry a token"));
            }
        }
        Ok(())
    }

    /// The person's name of a tool of this server: `name.tool`, or its alias.
    #[must_use]
    pub fn offered_name(&self, tool: &str) -> String {
        match self.aliases.iter().find(|(_, own)| *own == tool) {
            Some((alias, _)) => alias.clone(),
            None => format!("{}.{tool}", self.name),
        }
    }

    /// Who shares cached results: what the definition says, but nobody who would not get them with the same credential. A
    /// tenant's own server is nobody else's.
    #[must_use]
    pub fn sharing(&self, is_for_all: bool) -> Sharing {
        let widest = match (&self.auth, is_for_all) {
            (Auth::OAuth(_), _) => Sharing::User,
            (Auth::Bearer, _) | (Auth::None, false) => Sharing::Tenant,
            (Auth::None, true) => Sharing::Global,
        };
        match (self.cache.scope, widest) {
            (_, Sharing::User) | (Some(Sharing::User), _) => Sharing::User,
            (Some(Sharing::Global), Sharing::Global) => Sharing::Global,
            (None | Some(_), _) => Sharing::Tenant,
        }
    }

    /// Whether each person needs a connection of their own.
    #[must_use]
    pub fn wants_connection(&self) -> bool {
        matches!(self.auth, Auth::OAuth(_))
    }
}

/// # Errors
/// 422 when no server can have this name.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = name.len() <= LONGEST_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(fits);
    if !is_name {
        let rule = "lower-case letters, digits and -, beginning with a letter";
        return Err(Error::unacceptable(format!("name: takes up to {LONGEST_NAME} {rule}")));
    }
    if RESERVED.contains(&name) {
        return Err(Error::unacceptable(format!("name: {name} is reserved")));
    }
    Ok(())
}

/// Whether a tool can have this name by the protocol.
#[must_use]
pub fn is_tool_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=128).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: serde_json::Value) -> Result<ServerDefinition> {
        let definition: ServerDefinition =
            serde_json::from_value(json).map_err(|error| Error::unacceptable(error.to_string()))?;
        definition.check().map(|()| definition)
    }

    #[test]
    fn a_name_and_an_address_are_enough() {
        let short =
            definition(serde_json::json!({"name": "docs", "url": "https://docs.example/mcp"})).unwrap();
        assert_eq!(short, ServerDefinition::new("docs", "https://docs.example/mcp".parse().unwrap()));
        assert_eq!(short.offered_name("search"), "docs.search");
        let again: ServerDefinition = serde_json::from_value(serde_json::to_value(&short).unwrap()).unwrap();
        assert_eq!(again, short);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |name: &str, member: &str, value: serde_json::Value| {
            let mut json = serde_json::json!({"name": name, "url": "https://docs.example/mcp"});
            json[member] = value;
            definition(json)
        };
        for name in ["", "Docs", "1x", "a.b", "a_b", "workspace", &"x".repeat(33)] {
            assert!(with(name, "enabled", true.into()).is_err(), "{name}");
        }
        assert!(with("docs", "aliases", serde_json::json!({"docs.find": "search"})).is_ok());
        for aliases in [
            serde_json::json!({"notion.search": "search"}),
            serde_json::json!({"docs.": "search"}),
            serde_json::json!({"docs.x": ""}),
        ] {
            assert!(with("docs", "aliases", aliases).is_err());
        }
        for header in ["Authorization", "Mcp-Session-Id", "a b", "cookie"] {
            let auth = serde_json::json!({"type": "oauth", "tokenHeader": header});
            assert!(with("docs", "auth", auth).is_err(), "{header}");
        }
        assert!(
            with("docs", "auth", serde_json::json!({"type": "oauth", "tokenHeader": "Notion-Token"})).is_ok()
        );
        assert!(with("docs", "concurrency", 0.into()).is_err());
    }
}
