//! One file a resource. Handlers are flat: extract, call, answer.

pub(crate) mod admin;
pub(crate) mod agents;
pub(crate) mod auth;
pub(crate) mod auth_keys;
pub(crate) mod auth_sign_ins;
pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod chat;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod contexts;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod mcp;
pub(crate) mod meta;
pub(crate) mod oauth_server;
pub(crate) mod search;
pub(crate) mod sessions;
pub(crate) mod stats;
pub(crate) mod streams;
pub(crate) mod sync;
pub(crate) mod task_chat;
pub(crate) mod tenant;
pub(crate) mod tools;
pub(crate) mod usage;
pub(crate) mod workspace;
