//! The HTTP side of Alfred: routes, the error shape, event streams. Everything else is `shared`'s.
//!
//! A request's way: `serve` (the connection) → `request` (id, span, log line) → `router` → `auth` and `extract` (who
//! calls, with what) → a handler in `routes`, which makes one call into a domain → `error`, if it failed.

mod address;
mod auth;
mod changes;
mod direct;
mod error;
mod extract;
mod headers;
mod limits;
mod mcp;
mod metrics;
mod oauth_server;
mod object;
mod openapi;
mod request;
mod router;
mod routes;
mod serve;
mod sse;
mod start;
mod state;
mod web;

pub use start::{Running, start, start_with_entities};

/// The OpenAPI document, as served and as committed in `docs/openapi.json`.
#[must_use]
pub fn openapi_document() -> String {
    openapi::text(&router::description())
}

/// The tools of the workspace, as committed in `docs/mcp-tools.json`.
#[must_use]
pub fn tools_document() -> String {
    let tools: Vec<_> = shared::workspace::tools()
        .into_iter()
        .map(|tool| {
            serde_json::json!({
                "name": tool.name,
                "description": tool.description,
                "effect": tool.effect,
                "inputSchema": tool.input,
                "outputSchema": tool.output,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(tools))
}
