//! The product: its domains, their rules and their SQL. `api` and `worker` are two ways to drive it.
//!
//! Floors, from the ground: error, ids · config · db, counters, telemetry, outbound · bell, identity, tools, model, oauth, vault ·
//! tenancy, flags, switches, jobs, events, redis_stream, cache, connections, workspace · remote · turns, agents, key_rotation ·
//! queues. Arrows run down only; nothing here knows HTTP.

pub mod agents;
pub mod bell;
pub mod cache;
pub mod config;
pub mod connections;
pub mod counters;
pub mod db;
pub mod error;
pub mod events;
pub mod flags;
pub mod idempotency;
pub mod identity;
pub mod ids;
pub mod jobs;
pub mod key_rotation;
pub mod mcp;
pub mod model;
pub mod oauth;
pub mod outbound;
pub mod provision;
pub mod queues;
pub mod redis_stream;
pub mod remote;
pub mod resilience;
pub mod sessions;
pub mod switches;
pub mod telemetry;
pub mod tenancy;
pub mod testing;
pub mod tools;
pub mod turns;
pub mod usage;
pub mod vault;
pub mod workspace;

pub use error::{Code, Error, Origin, Result};
