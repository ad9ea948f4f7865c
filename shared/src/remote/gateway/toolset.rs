//! What a turn of a person is offered of other people's servers.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{HeldTool, listing::Listing, tool::RemoteTool};
use crate::{
    model::ToolSpec,
    tenancy::{Policies, Policy},
    tools::{Effect, ToolDef},
};

/// How a person stands with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It wants no connection.
    Open,
    /// They are connected.
    Connected,
    /// They have not connected it.
    NotConnected,
    /// They have to sign in again.
    SignInAgain,
}

/// A server of the person's tenant.
#[derive(Debug, Clone)]
pub struct ServerState {
    /// Its name.
    pub name: String,
    /// How the person stands with it.
    pub standing: Standing,
    /// Why its tools cannot be listed now: a sentence.
    pub trouble: Option<String>,
    /// Its tools that are not offered.
    pub held: Vec<HeldTool>,
}

/// The remote tools that a turn of one person is offered.
#[derive(Default)]
pub struct Toolset {
    tools: BTreeMap<String, (Arc<RemoteTool>, Arc<ToolDef>)>,
    /// The servers of the tenant.
    pub servers: Vec<ServerState>,
    offered: OnceLock<Arc<[ToolSpec]>>,
}

impl Toolset {
    pub(super) fn new(servers: Vec<(ServerState, Option<Arc<Listing>>)>) -> Self {
        let mut set = Self::default();
        for (state, listing) in servers {
            for (tool, definition) in listing.iter().flat_map(|listing| &listing.tools) {
                let mut name = tool.name.clone();
                let mut definition = Arc::clone(definition);
                // An alias that another server serves already: this one keeps its own name.
                if set.tools.contains_key(&name) {
                    name = format!("{}.{}", tool.server.name(), tool.own_name);
                    definition =
                        Arc::new(ToolDef { name: name.clone().into(), ..definition.as_ref().clone() });
                }
                set.tools.entry(name).or_insert_with(|| (Arc::clone(tool), definition));
            }
            set.servers.push(state);
        }
        set
    }

    /// The tool of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ToolDef> {
        self.tools.get(name).map(|(_, definition)| definition.as_ref())
    }

    /// The tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = (&RemoteTool, &ToolDef)> {
        self.tools.values().map(|(tool, definition)| (tool.as_ref(), definition.as_ref()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// What was made of these tools for models, once for as long as they do not change.
    pub fn offered(&self, make: impl FnOnce() -> Arc<[ToolSpec]>) -> Arc<[ToolSpec]> {
        Arc::clone(self.offered.get_or_init(make))
    }

    /// The tenant's policy for a tool: the strictest of those for its names. What nobody decided about asks first when it may
    /// destroy something.
    #[must_use]
    pub fn policy(&self, policies: &Policies, name: &str) -> Policy {
        let Some((tool, definition)) = self.tools.get(name) else {
            return policies.get(name).copied().unwrap_or(Policy::Allow);
        };
        let own = format!("{}.{}", tool.server.name(), tool.own_name);
        let decided =
            [name, tool.name.as_str(), own.as_str()].into_iter().filter_map(|name| policies.get(name));
        let unless = if definition.effect == Effect::Destructive { Policy::Ask } else { Policy::Allow };
        decided.copied().max_by_key(|policy| strictness(*policy)).unwrap_or(unless)
    }

    /// The server whose tool this would be, when its tools cannot be had now.
    #[must_use]
    pub fn trouble_of(&self, tool: &str) -> Option<&str> {
        // A model knows no dots.
        let (server, _) = tool.split_once('.').or_else(|| tool.split_once("__"))?;
        self.servers.iter().find(|state| state.name == server)?.trouble.as_deref()
    }
}

fn strictness(policy: Policy) -> u8 {
    match policy {
        Policy::Allow => 0,
        Policy::Ask => 1,
        Policy::Deny => 2,
    }
}
