//! Which tools a server has: asked for page by page within bounds, cleaned, judged, and remembered for a minute or until
//! the server says that they changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use rmcp::model::{PaginatedRequestParams, Tool};
use serde_json::Value;

use super::{Inner, failure::Failure, session::Session, tool::RemoteTool};
use crate::{
    cache::{self, KnownAs},
    connections::Credential,
    error::Result,
    identity::Actor,
    ids::{TenantId, UserId},
    remote::{
        definition::is_tool_name,
        pins::{self, Described},
        registry::{Scope, Server},
        text,
    },
    tools::{Effect, OutsideTool, ToolDef, ToolRun},
};

/// How long a list is believed.
pub(super) const BELIEVED: Duration = Duration::from_secs(60);
const MOST_PAGES: usize = 20;
const MOST_TOOLS: usize = 500;
/// Bytes of all definitions of a server.
const MOST_BYTES: usize = 2 << 20;
const LONGEST_DESCRIPTION: usize = 4096;
const LARGEST_SCHEMA: usize = 48 * 1024;

/// Whose list it is. Servers that want no connection show all people of a tenant the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ListingKey {
    pub(super) scope: Scope,
    pub(super) server: String,
    pub(super) revision: String,
    pub(super) tenant: TenantId,
    pub(super) user: Option<(UserId, String)>,
}

/// A tool that is not offered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTool {
    /// The server's own name of it.
    pub tool: String,
    /// A sentence.
    pub why: &'static str,
}

/// The tools of a server.
pub(super) struct Listing {
    /// When an admin had last approved a change of them.
    pub(super) approved_at: Option<DateTime<Utc>>,
    pub(super) tools: Vec<(Arc<RemoteTool>, Arc<ToolDef>)>,
    pub(super) held: Vec<HeldTool>,
}

/// Asks for all tools.
pub(super) async fn fetch(session: &Session, patience: Duration) -> Result<Vec<Tool>, Failure> {
    let tools = pages(session, patience).await?;
    session.note_listed();
    Ok(tools)
}

async fn pages(session: &Session, patience: Duration) -> Result<Vec<Tool>, Failure> {
    let (mut tools, mut bytes, mut cursor) = (Vec::new(), 0, None::<String>);
    let mut seen = BTreeSet::new();
    for _ in 0..MOST_PAGES {
        let params = cursor.clone().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let asked = tokio::time::timeout(patience, session.peer().list_tools(params)).await;
        let page = asked.map_err(|_| Failure::Timeout)??;
        for tool in page.tools {
            bytes += serde_json::to_vec(&tool).map_or(0, |text| text.len());
            if tools.len() >= MOST_TOOLS || bytes > MOST_BYTES {
                tracing::warn!(tools = tools.len(), bytes, "an MCP server has more tools than are read");
                return Ok(tools);
            }
            tools.push(tool);
        }
        match page.next_cursor {
            // A cursor that comes again would go round for ever.
            Some(next) if seen.insert(next.clone()) => cursor = Some(next),
            _ => return Ok(tools),
        }
    }
    Ok(tools)
}

/// Judges the tools: which may be offered to this tenant, under which names, and what each does.
pub(super) async fn judged(
    gateway: &Arc<Inner>,
    server: &Arc<Server>,
    actor: &Actor,
    credential: Option<&Credential>,
    approved_at: Option<DateTime<Utc>>,
    tools: &[Tool],
) -> Result<Listing> {
    let mut held = Vec::new();
    let mut hold = |tool: &Tool, why| {
        held.push(HeldTool { tool: text::visible(text::shortened(&tool.name, 128)).into_owned(), why })
    };
    let mut names = BTreeSet::new();
    let mut usable = Vec::new();
    for tool in tools {
        let size =
            tool.input_schema.iter().map(|(name, value)| name.len() + value.to_string().len()).sum::<usize>();
        if !is_tool_name(&tool.name) {
            hold(tool, "its name is not one that a tool may have");
        } else if !names.insert(tool.name.clone()) {
            hold(tool, "another tool of the server has its name");
        } else if size > LARGEST_SCHEMA {
            hold(tool, "the schema of its arguments is too large");
        } else {
            usable.push((tool, Described::of(tool)));
        }
    }
    let described: Vec<Described> = usable.iter().map(|(_, described)| described.clone()).collect();
    let mut tx = gateway.registry.tenants().begin(actor).await?;
    let approved = pins::approved(&mut tx, server.name(), &described).await?;
    tx.commit().await?;
    let mut offered = Vec::new();
    for (tool, described) in usable {
        if !approved.contains(&described.tool) {
            hold(tool, "it changed since it was approved, and an admin has not looked at it yet");
            continue;
        }
        let remote = Arc::new(RemoteTool {
            gateway: Arc::downgrade(gateway),
            server: Arc::clone(server),
            name: server.definition.offered_name(&tool.name),
            own_name: described.tool,
            effect: effect(server, tool),
            has_headers: tool.input_schema.values().any(names_a_header),
            version: described.fingerprint,
        });
        let definition = Arc::new(definition(gateway, tool, &remote, credential));
        offered.push((remote, definition));
    }
    Ok(Listing { approved_at, tools: offered, held })
}

/// Whether a schema has an argument go into a header as well.
fn names_a_header(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.contains_key("x-mcp-header") || members.values().any(names_a_header)
        }
        _ => false,
    }
}

fn definition(
    gateway: &Inner,
    tool: &Tool,
    remote: &Arc<RemoteTool>,
    credential: Option<&Credential>,
) -> ToolDef {
    let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    let mut input = text::visible_json(&Value::Object(tool.input_schema.as_ref().clone()));
    if let Value::Object(schema) = &mut input {
        // Providers insist on it.
        schema.insert("type".to_owned(), "object".into());
    }
    let bare = Arc::clone(remote) as Arc<dyn OutsideTool>;
    let run = match &gateway.cache {
        Some(cache) => cache::through(cache.clone(), known_as(remote, credential), bare),
        None => bare,
    };
    ToolDef {
        name: remote.name.clone().into(),
        description: text::shortened(&text::visible(description), LONGEST_DESCRIPTION).to_owned().into(),
        effect: remote.effect,
        input,
        output: tool.output_schema.as_ref().map(|schema| Value::Object(schema.as_ref().clone())),
        resource: None,
        run: ToolRun::Outside(run),
    }
}

/// How the cache knows the tool. Another definition of the server, another approval or another account of the person is
/// another tool to it.
fn known_as(remote: &RemoteTool, credential: Option<&Credential>) -> KnownAs {
    let account = credential.map(|credential| credential.connection.to_string()).unwrap_or_default();
    let mut version = cache::hash(&format!("{} {} {account}", remote.version, remote.server.revision));
    version.truncate(16);
    let definition = &remote.server.definition;
    KnownAs {
        server: remote.server.name().to_owned(),
        tool: remote.name.clone(),
        version,
        effect: remote.effect,
        scope: definition.sharing(remote.server.scope == Scope::Deployment),
        rules: Arc::new(definition.cache.clone()),
    }
}

/// What a tool does: what the definition says, else what the server says of it if it is believed, else the worst.
fn effect(server: &Server, tool: &Tool) -> Effect {
    let definition = &server.definition;
    let said = [tool.name.to_string(), definition.offered_name(&tool.name)];
    if let Some(effect) = said.iter().find_map(|name| definition.effects.get(name)) {
        return *effect;
    }
    let Some(hints) = tool.annotations.as_ref().filter(|_| definition.trust_annotations) else {
        return Effect::Destructive;
    };
    match (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint) {
        (Some(true), ..) => Effect::Read,
        (_, Some(false), Some(true)) => Effect::IdempotentWrite,
        (_, Some(false), _) => Effect::Write,
        _ => Effect::Destructive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{FixedServer, ServerDefinition};

    fn judged_effect(trust: bool, override_it: Option<Effect>, annotations: &Value) -> Effect {
        let mut definition = ServerDefinition::new("docs", "https://docs.example/mcp".parse().unwrap());
        definition.trust_annotations = trust;
        definition.effects.extend(override_it.map(|effect| ("t".to_owned(), effect)));
        let FixedServer { definition, bearer } = FixedServer { definition, bearer: None };
        let server = Server::new(definition, Scope::Deployment, true, bearer).unwrap();
        let tool =
            serde_json::json!({"name": "t", "inputSchema": {"type": "object"}, "annotations": annotations});
        effect(&server, &serde_json::from_value(tool).unwrap())
    }

    #[test]
    fn what_nobody_vouches_for_is_destructive() {
        let reads = serde_json::json!({"readOnlyHint": true});
        assert_eq!(judged_effect(true, None, &reads), Effect::Read);
        assert_eq!(judged_effect(false, None, &reads), Effect::Destructive);
        assert_eq!(judged_effect(false, Some(Effect::Write), &reads), Effect::Write);
        assert_eq!(judged_effect(true, None, &serde_json::json!({})), Effect::Destructive);
        assert_eq!(judged_effect(true, None, &Value::Null), Effect::Destructive);
        let adds = serde_json::json!({"destructiveHint": false});
        assert_eq!(judged_effect(true, None, &adds), Effect::Write);
        let sets = serde_json::json!({"destructiveHint": false, "idempotentHint": true});
        assert_eq!(judged_effect(true, None, &sets), Effect::IdempotentWrite);
    }
}
