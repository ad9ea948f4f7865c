//! The workspace: items that people (REST) and models (tools) work on together.
//!
//! An entity is one file in `entities`: its struct is the payload, and [`EntityDef::of`] erases it to a kind, a schema
//! and a few function pointers. The operations of [`items`] are plain functions over that erased form, one or two
//! statements each on the caller's [`TenantTx`](crate::db::TenantTx). [`tools`] wraps the same operations for models.
//!
//! Invariants: a stored payload fits its entity's schema; every change of an item moves its version by one; an
//! operation that answers an error has written nothing. Nothing here knows HTTP, MCP or who calls the model.

pub mod batch;
pub mod changes;
mod cursor;
mod definition;
pub mod embeddings;
pub mod entities;
pub mod items;
pub(crate) mod payload;
pub mod push;
mod schema;
pub mod search;
pub mod stats;
mod store;
mod tools;

pub use definition::{
    Acted, Bond, Entity, EntityDef, Parent, ParentRule, Prepared, Projection, StatusFilter,
};
pub use entities::{ENTITIES, definition};
pub use schema::Problem;
pub use tools::{meaning_of_call, tools, tools_of, turn_tools};
