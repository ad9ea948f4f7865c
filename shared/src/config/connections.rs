//! Which services people can connect, and how Alfred is registered with them.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::reader::Reader;

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// `NOTION_MCP_URL`: Notion's own MCP server; none when `FEATURE_NOTION_HOSTED_MCP` is off.
    pub notion_hosted: Option<Url>,
    /// The self-hosted one; none when `FEATURE_NOTION_SELF_HOST_FALLBACK` is off.
    pub notion_self_hosted: Option<NotionIntegration>,
    /// `OAUTH_TIMEOUT_SECONDS`
    pub timeout: Duration,
}

/// A registered Notion integration, whose tokens a self-hosted Notion MCP server uses.
#[derive(Debug, Clone)]
pub struct NotionIntegration {
    /// `NOTION_SELF_HOST_URL`
    pub server: Url,
    /// `NOTION_SELF_HOST_TOKEN`
    pub server_token: Option<SecretString>,
    /// `NOTION_CLIENT_ID`
    pub client_id: String,
    /// `NOTION_CLIENT_SECRET`
    pub client_secret: SecretString,
    /// `NOTION_REDIRECT_URI`
    pub redirect_uri: Url,
    /// `NOTION_API_URL`
    pub api: Url,
}

/// None only when a problem was noted.
pub(super) fn read(reader: &mut Reader<'_>, own: Option<&Url>) -> Option<ConnectionConfig> {
    let hosted = address(reader, "NOTION_MCP_URL");
    let timeout = reader.seconds("OAUTH_TIMEOUT_SECONDS", 0.1, 60.0);
    let is_hosted = is_on(reader, "FEATURE_NOTION_HOSTED_MCP");
    let notion_self_hosted = match is_on(reader, "FEATURE_NOTION_SELF_HOST_FALLBACK") {
        true => Some(integration(reader, own)?),
        false => None,
    };
    Some(ConnectionConfig { notion_hosted: Some(hosted?).filter(|_| is_hosted), notion_self_hosted, timeout })
}

fn integration(reader: &mut Reader<'_>, own: Option<&Url>) -> Option<NotionIntegration> {
    let server = address(reader, "NOTION_SELF_HOST_URL");
    let api = address(reader, "NOTION_API_URL");
    let server_token = reader.secret("NOTION_SELF_HOST_TOKEN");
    let client_id = reader.text("NOTION_CLIENT_ID").map(str::to_owned);
    let client_secret = reader.secret("NOTION_CLIENT_SECRET");
    for (name, is_missing) in [
        ("NOTION_SELF_HOST_URL", server.is_none() && reader.given("NOTION_SELF_HOST_URL").is_none()),
        ("NOTION_CLIENT_ID", client_id.is_none()),
        ("NOTION_CLIENT_SECRET", client_secret.is_none()),
    ] {
        if is_missing {
            reader.refuse(name, "is required with FEATURE_NOTION_SELF_HOST_FALLBACK");
        }
    }
    let redirect_uri = match reader.given("NOTION_REDIRECT_URI") {
        Some(_) => address(reader, "NOTION_REDIRECT_URI"),
        None => own.and_then(|own| {
            let own = own.as_str().trim_end_matches('/');
            Url::parse(&format!("{own}/oauth/notion-self-hosted/callback")).ok()
        }),
    };
    Some(NotionIntegration {
        server: server?,
        server_token,
        client_id: client_id?,
        client_secret: client_secret?,
        redirect_uri: redirect_uri?,
        api: api?,
    })
}

fn address(reader: &mut Reader<'_>, name: &'static str) -> Option<Url> {
    let url: Url = reader.optional(name, "an http or https URL")?;
    if matches!(url.scheme(), "http" | "https") && url.host().is_some() {
        return Some(url);
    }
    reader.refuse(name, "is not an http or https URL");
    None
}

fn is_on(reader: &mut Reader<'_>, name: &'static str) -> bool {
    match reader.text(name) {
        Some("on" | "true") => true,
        Some("off" | "false") => false,
        _ => {
            reader.refuse(name, "is not on or off");
            false
        }
    }
}
