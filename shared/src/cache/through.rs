//! An outside tool with the cache in front of it: reads go through it, everything else outdates what was read.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{CacheRules, Read, Scope, ToolCache};
use crate::{
    error::Result,
    tools::{Effect, OutsideCall, OutsideTool, ToolOutput},
};

/// How the cache knows a tool.
#[derive(Debug, Clone)]
pub struct KnownAs {
    /// The server's name.
    pub server: String,
    /// `server.tool`: the alias, where there is one.
    pub tool: String,
    /// A hash of the tool's schema as approved.
    pub version: String,
    pub effect: Effect,
    pub scope: Scope,
    pub rules: Arc<CacheRules>,
}

struct Through {
    cache: ToolCache,
    known_as: KnownAs,
    tool: Arc<dyn OutsideTool>,
}

/// This tool, behind the cache.
#[must_use]
pub fn through(cache: ToolCache, known_as: KnownAs, tool: Arc<dyn OutsideTool>) -> Arc<dyn OutsideTool> {
    Arc::new(Through { cache, known_as, tool })
}

impl OutsideTool for Through {
    fn call<'a>(&'a self, call: OutsideCall<'a>) -> BoxFuture<'a, Result<ToolOutput>> {
        let known_as = &self.known_as;
        Box::pin(async move {
            if known_as.effect != Effect::Read {
                let call_tool = self.tool.call(call);
                return self.cache.write(call.actor, &known_as.server, known_as.scope, call_tool).await;
            }
            let read = Read {
                server: &known_as.server,
                tool: &known_as.tool,
                version: &known_as.version,
                arguments: call.arguments,
                scope: known_as.scope,
                rules: &known_as.rules,
                force_refresh: call.force_refresh,
                request_id: call.request_id,
            };
            self.cache.read(call.actor, &read, &|| self.tool.call(call)).await
        })
    }
}
