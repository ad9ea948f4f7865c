//! Other people's tools: remote MCP servers, where they are configured, what of their tools was approved, and the gateway
//! that calls them.
//!
//! It knows nothing of turns. Whose credential a server wants is asked of [`UserCredentials`], so that this module holds no
//! token for longer than a call. Invariant: a session, a list of tools and a token belong to one server and one person, and
//! are never used for another.

mod connected;
pub mod definition;
pub mod file;
mod gateway;
pub mod health;
pub mod pins;
pub mod registry;
pub mod shipped;
mod text;

pub use self::{
    definition::{Auth, OAuthSettings, ServerDefinition},
    gateway::{
        Connection, Gateway, GatewaySettings, HeldTool, NoConnections, RemoteTool, ServerState, Standing,
        Toolset, UserCredentials, sign_in_again,
    },
    registry::{FixedServer, Registry, Scope, Server},
    text::untrusted,
};
