//! The workspace against a real Postgres: one suite for all entities, one for the tools.
#![expect(clippy::unwrap_used, reason = "tests")]

mod changes;
mod chats;
mod conformance;
mod isolation;
mod properties;
mod search;
mod sixth;
mod stats;
mod tools;
mod world;
