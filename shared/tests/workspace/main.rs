//! The workspace against a real Postgres: one suite for all entities, one for the tools.
#![expect(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod isolation;
mod tools;
mod world;
