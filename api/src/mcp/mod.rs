//! The MCP server at `/mcp`: what models of other applications can reach of a user's workspace [P1].
//!
//! A request's way: `doors` (Host and Origin) → the credential → `endpoint` (the body, then rmcp, which knows every
//! revision of the protocol) → `server` (one method a request) → `tools`, `resources` or `prompts`, each in a
//! transaction of its own as the caller → `problem`, if it failed.
//!
//! Invariants: no state survives a request, so any process serves any; identity comes from the credential of this very
//! request; a call that answers an error, was cancelled or took too long has written nothing.

mod doors;
mod endpoint;
#[cfg(feature = "conformance")]
mod fixtures;
mod problem;
mod prompts;
mod resources;
mod server;
mod tools;

pub(crate) use endpoint::{Endpoint, resource};
