//! The API as its clients see it: a real server over a real database, no worker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agent_decisions;
mod agent_flags;
mod agent_side;
mod agent_strangers;
mod agents_of_tenants;
mod app;
mod auth;
mod bad_input;
mod batch;
mod cache;
mod changes;
mod contexts;
mod documents;
mod limits;
mod mcp;
mod mcp_servers;
mod oauth_server;
mod operations;
mod queues;
mod queues_many;
mod queues_of_agents;
mod search;
mod sessions;
mod sixth;
mod strangers;
mod streams;
mod tenants;
mod turns;
mod workspace;
