//! The servers that Alfred knows without being told: Notion's own, and Notion's server run by oneself. Each is switched on
//! by its feature flag.

use std::collections::BTreeMap;

use url::Url;

use super::{
    definition::{Auth, OAuthSettings, ServerDefinition},
    registry::FixedServer,
};
use crate::{
    config::{ConnectionConfig, NotionIntegration},
    connections::{NOTION, NOTION_SELF_HOSTED},
    tools::Effect,
};

/// How Notion is spoken of whichever server serves it.
const GET_PAGE: &str = "notion.get_page";
const SEARCH: &str = "notion.search";

/// Those that are switched on.
#[must_use]
pub fn servers(config: &ConnectionConfig) -> Vec<FixedServer> {
    let hosted = config.notion_hosted.iter().map(notion);
    hosted.chain(config.notion_self_hosted.iter().map(notion_self_hosted)).collect()
}

/// Notion's hosted server; people connect as MCP's authorization specification says.
fn notion(url: &Url) -> FixedServer {
    let mut definition = ServerDefinition::new(NOTION, url.clone());
    definition.auth = Auth::OAuth(OAuthSettings::default());
    definition.aliases = aliases("notion-fetch", "notion-search");
    definition.effects = reads(&["notion-fetch", "notion-search"]);
    FixedServer { definition, bearer: None }
}

/// A Notion server of one's own, which takes the deployment's token for itself and each person's in a header of its own.
/// Its tools have the hosted server's aliases; who has both connected gets them from the hosted one.
fn notion_self_hosted(config: &NotionIntegration) -> FixedServer {
    let mut definition = ServerDefinition::new(NOTION_SELF_HOSTED, config.server.clone());
    definition.auth = Auth::OAuth(OAuthSettings {
        token_header: Some("Notion-Token".to_owned()),
        ..OAuthSettings::default()
    });
    definition.aliases = aliases("API-retrieve-page-markdown", "API-post-search");
    definition.effects = reads(&[
        "API-retrieve-page-markdown",
        "API-post-search",
        "API-get-user",
        "API-get-users",
        "API-get-self",
        "API-get-block-children",
        "API-retrieve-a-block",
        "API-retrieve-a-page",
        "API-retrieve-a-page-property",
        "API-retrieve-a-comment",
        "API-query-data-source",
        "API-retrieve-a-data-source",
        "API-list-data-source-templates",
        "API-retrieve-a-database",
    ]);
    FixedServer { definition, bearer: config.server_token.clone() }
}

fn aliases(get_page: &str, search: &str) -> BTreeMap<String, String> {
    [(GET_PAGE, get_page), (SEARCH, search)].map(|(alias, tool)| (alias.to_owned(), tool.to_owned())).into()
}

fn reads(tools: &[&str]) -> BTreeMap<String, Effect> {
    tools.iter().map(|tool| ((*tool).to_owned(), Effect::Read)).collect()
}
