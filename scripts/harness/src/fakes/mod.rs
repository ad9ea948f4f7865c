//! Stand-ins for what lies beyond us, each speaking its real wire format on loopback.

pub mod agent;
pub mod embeddings;
pub mod mcp;
pub mod model;
pub mod oauth;
pub mod outside;
