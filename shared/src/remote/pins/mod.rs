//! What was approved of a server's tools. The first sight of a tool approves it; a tool that says something else of itself
//! later is held back until an admin has looked at the difference.
//!
//! Invariant: a pin whose fingerprint does not fit what it says counts as changed, so that a spoilt row closes, not opens.

mod store;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    db::TenantTx,
    error::{Error, Result},
    ids::UserId,
    tenancy::{
        AdminActor,
        audit::{self, Entry},
    },
};

/// Pins of one server that a tenant keeps; tools beyond are held back.
const MOST: i64 = 2000;

/// What a tool says of itself, as it is approved: its name, title, description, schemas and annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// The server's own name of it.
    pub tool: String,
    /// All of it.
    pub definition: Value,
    /// The hash of all of it.
    pub fingerprint: String,
}

impl Described {
    /// Of a tool as the server listed it.
    #[must_use]
    pub fn of(tool: &rmcp::model::Tool) -> Self {
        let mut definition = Map::new();
        definition.insert("name".to_owned(), json!(tool.name));
        definition.insert("title".to_owned(), json!(tool.title));
        definition.insert("description".to_owned(), json!(tool.description));
        definition.insert("inputSchema".to_owned(), json!(tool.input_schema));
        definition.insert("outputSchema".to_owned(), json!(tool.output_schema));
        definition.insert("annotations".to_owned(), json!(tool.annotations));
        let definition = Value::Object(definition);
        Self { tool: tool.name.to_string(), fingerprint: fingerprint(&definition), definition }
    }
}

/// The hash of a value, whatever the order of its members.
#[must_use]
pub fn fingerprint(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            text.push('{');
            for (name, value) in members.iter().collect::<BTreeMap<_, _>>() {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// Which of these tools may be offered. Those that are new are approved, those that changed are noted.
///
/// # Errors
/// The database's.
pub async fn approved(tx: &mut TenantTx, server: &str, seen: &[Described]) -> Result<BTreeSet<String>> {
    let mut pins = store::pins(tx, server).await?;
    let is_new = |tool: &&Described| !pins.iter().any(|pin| pin.tool == tool.tool);
    let new: Vec<&Described> = seen.iter().filter(is_new).collect();
    if !new.is_empty() {
        store::pin(tx, server, &new, MOST).await?;
        // Another process may have pinned other words first.
        pins = store::pins(tx, server).await?;
    }
    let fits = |tool: &Described| {
        pins.iter().any(|pin| {
            pin.tool == tool.tool
                && pin.fingerprint == tool.fingerprint
                && fingerprint(&pin.definition) == pin.fingerprint
        })
    };
    let is_pinned = |tool: &Described| pins.iter().any(|pin| pin.tool == tool.tool);
    let changed: Vec<&Described> = seen.iter().filter(|tool| is_pinned(tool) && !fits(tool)).collect();
    if !changed.is_empty() {
        store::note_changes(tx, server, &changed).await?;
    }
    Ok(seen.iter().filter(|tool| fits(tool)).map(|tool| tool.tool.clone()).collect())
}

/// A tool as its tenant's admins see it.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The server's own name of it.
    pub tool: String,
    /// What was approved.
    pub approved: Value,
    /// When.
    pub approved_at: DateTime<Utc>,
    /// By whom; none when it was the first that was seen of it.
    pub approved_by: Option<UserId>,
    /// What it became since, if it is held back.
    pub change: Option<ToolChange>,
}

/// What a tool became after it was approved.
#[derive(Debug, Clone)]
pub struct ToolChange {
    /// Names this change; an approval is of it and of no later one.
    pub fingerprint: String,
    /// All that the tool says of itself now.
    pub definition: Value,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
    /// The members that differ: what was approved and what is said now.
    pub difference: Map<String, Value>,
}

/// What was approved of a server's tools, and what changed since.
///
/// # Errors
/// The database's.
pub async fn list(tx: &mut TenantTx, _: &AdminActor, server: &str) -> Result<Vec<Pinned>> {
    let mut changes: BTreeMap<String, store::ChangeRow> =
        store::changes(tx, server).await?.into_iter().map(|row| (row.tool.clone(), row)).collect();
    let pins = store::pins(tx, server).await?;
    Ok(pins
        .into_iter()
        .map(|pin| {
            let is_spoilt = fingerprint(&pin.definition) != pin.fingerprint;
            let change =
                changes.remove(&pin.tool).filter(|row| is_spoilt || row.fingerprint != pin.fingerprint);
            Pinned {
                change: change.map(|row| ToolChange {
                    difference: difference(&pin.definition, &row.definition),
                    fingerprint: row.fingerprint,
                    definition: row.definition,
                    seen_at: row.seen_at,
                }),
                tool: pin.tool,
                approved: pin.definition,
                approved_at: pin.approved_at,
                approved_by: pin.approved_by,
            }
        })
        .collect())
}

fn difference(approved: &Value, now: &Value) -> Map<String, Value> {
    let names: BTreeSet<&String> =
        [approved, now].into_iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    names
        .into_iter()
        .filter(|name| approved.get(name) != now.get(name))
        .map(|name| (name.clone(), json!({"approved": approved.get(name), "now": now.get(name)})))
        .collect()
}

/// Approves what a tool became. The fingerprint is of what the admin looked at.
///
/// # Errors
/// 404 when the tool has not changed; 409 when it changed again meanwhile; the database's.
pub async fn accept(
    tx: &mut TenantTx,
    admin: &AdminActor,
    server: &str,
    tool: &str,
    fingerprint: &str,
) -> Result<()> {
    let changes = store::changes(tx, server).await?;
    let Some(change) = changes.iter().find(|change| change.tool == tool) else {
        return Err(Error::not_found("the tool is not held back"));
    };
    if change.fingerprint != fingerprint {
        return Err(Error::conflict("the tool has changed again; look at it once more"));
    }
    let user = admin.actor().user;
    store::accept(tx, server, change, user).await?;
    let target = format!("{server}.{tool}");
    let entry = Entry::new("mcp_tool.approved", &target).with(json!({ "fingerprint": fingerprint }));
    audit::record(tx, admin, entry).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_does_not_depend_on_the_order_of_members() {
        let one: Value = serde_json::from_str(r#"{"a": {"x": 1, "y": [1, 2]}, "b": null}"#).unwrap();
        let same: Value = serde_json::from_str(r#"{"b": null, "a": {"y": [1, 2], "x": 1}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"b": null, "a": {"y": [2, 1], "x": 1}}"#).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&same));
        assert_ne!(fingerprint(&one), fingerprint(&other));
        assert_ne!(fingerprint(&json!({"a": "b"})), fingerprint(&json!({"a": ["b"]})));
    }
}
