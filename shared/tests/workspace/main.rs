//! The workspace against a real Postgres: one suite for all entities, one for the tools.
#![expect(clippy::unwrap_used, reason = "tests")]

mod batch;
mod changes;
mod chats;
mod conformance;
mod elsewhere;
mod isolation;
mod meaning;
mod properties;
mod push;
mod search;
mod sixth;
mod stats;
mod tools;
mod world;
