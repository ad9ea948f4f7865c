//! The API as its clients see it: a real server over a real database, no worker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod app;
mod auth;
mod bad_input;
mod documents;
mod mcp;
mod operations;
mod sessions;
mod strangers;
mod streams;
mod turns;
mod workspace;
