//! The schemas of tools, out of the entities' own.

use serde_json::{Map, Value, json};

use crate::workspace::{EntityDef, items, schema};

/// `due_date` of `dueDate`.
pub(super) fn snake(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The schema of a tool's arguments, and what a tool of the workspace takes besides.
pub(super) fn input(mut properties: Map<String, Value>, required: &[&str]) -> Value {
    properties.insert(
        "user_id".to_owned(),
        text("Not needed: calls always act for the caller. If given, it must be the caller's own id."),
    );
    let mut input = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        input["required"] = required.into();
    }
    input
}

/// How a call names its item.
pub(super) fn item(def: &EntityDef) -> Map<String, Value> {
    let mut properties = Map::new();
    let (kind, list) = (words(def.kind), def.plural);
    if let Some(name) = def.id_argument {
        let sentence =
            format!("The {kind}'s short id, as list_{list} shows it. Required, unless id or uid is given.");
        properties.insert(name.to_owned(), integer(&sentence));
        properties.insert("id".to_owned(), integer(&format!("The same as {name}.")));
        properties.insert("uid".to_owned(), uid(&format!("The {kind}'s uid, instead of {name}.")));
    } else {
        let sentence =
            format!("The {kind}'s short id, as list_{list} shows it. Required, unless uid is given.");
        properties.insert("id".to_owned(), integer(&sentence));
        properties.insert("uid".to_owned(), uid(&format!("The {kind}'s uid, instead of id.")));
    }
    properties
}

/// How a call names its item when there is only one way.
pub(super) fn short_id(def: &EntityDef, name: &str) -> (String, Value) {
    let sentence = format!("The {}'s short id, as list_{} shows it.", words(def.kind), def.plural);
    (name.to_owned(), integer(&sentence))
}

/// How a write says which version it has seen.
pub(super) fn if_match() -> (String, Value) {
    let sentence = "Change only if the item still has this version.";
    ("if_match".to_owned(), json!({"type": "integer", "minimum": 1, "description": sentence}))
}

/// The payload's fields as arguments of a tool that makes a whole payload.
pub(super) fn fields(def: &EntityDef) -> Map<String, Value> {
    def.fields().map(|(name, field)| (snake(name), argument(field))).collect()
}

/// The payload's fields as arguments of a tool that changes some: no defaults, and how to remove.
pub(super) fn changes(def: &EntityDef) -> Map<String, Value> {
    let mut properties = fields(def);
    for (name, field) in def.fields() {
        let Some(Value::Object(property)) = properties.get_mut(&snake(name)) else { continue };
        property.remove("default");
        if nullable(field)
            && let Some(Value::String(sentence)) = property.get_mut("description")
        {
            sentence.push_str(" Empty text removes it.");
        }
    }
    let sentence = "Further fields to change, by name; null removes a field.";
    properties.insert("updates".to_owned(), json!({"type": "object", "description": sentence}));
    properties
}

/// What a tool takes that changes fields of an item.
pub(super) fn item_and<const N: usize>(def: &EntityDef, more: [(String, Value); N]) -> Map<String, Value> {
    let mut properties = changes(def);
    properties.extend(item(def));
    properties.extend(more);
    properties
}

/// What to do with an item.
pub(super) fn action(def: &EntityDef) -> (String, Value) {
    ("action".to_owned(), json!({"type": "string", "enum": def.actions, "description": "What to do."}))
}

/// What there is to say about an action.
pub(super) fn metadata() -> (String, Value) {
    let sentence = "What there is to say about it; kept with the item, under metadata.";
    ("metadata".to_owned(), json!({"type": "object", "description": sentence}))
}

/// How a tool takes fields that the entity does not know.
pub(super) fn additional_fields() -> (String, Value) {
    let sentence = "Further fields of your own, by name.";
    ("additional_fields".to_owned(), json!({"type": "object", "description": sentence}))
}

/// What lists take.
pub(super) fn list(def: &EntityDef) -> Map<String, Value> {
    let limit = format!("How many at most; {} unless given.", items::PAGE);
    let mut properties = Map::from_iter([
        (
            "limit".to_owned(),
            json!({"type": "integer", "minimum": 1, "maximum": items::LARGEST_PAGE, "description": limit}),
        ),
        ("cursor".to_owned(), text("nextCursor of the page before, to go on from there.")),
        ("include_archived".to_owned(), flag("Also list archived ones.")),
        ("include_deleted".to_owned(), flag("Also list deleted ones.")),
    ]);
    if let Some(rule) = def.parent
        && let Some(field) = def.field(rule.field)
    {
        let mut argument = argument(field);
        argument["description"] = "Only those on the item with this uid.".into();
        properties.insert(snake(rule.field), argument);
    }
    if !def.statuses.is_empty() {
        let words: Vec<&str> =
            ["all"].into_iter().chain(def.statuses.iter().map(|status| status.word)).collect();
        let mut sentence = "Only those in this state.".to_owned();
        for status in def.statuses.iter().filter(|status| status.states != [status.word]) {
            sentence.push_str(&format!(" {} means {}.", status.word, status.states.join(" or ")));
        }
        properties
            .insert("status".to_owned(), json!({"type": "string", "enum": words, "description": sentence}));
    }
    properties
}

/// The schema of an item.
pub(super) fn item_output(def: &EntityDef) -> Value {
    let moment = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "required": ["uid", "id", "version", "createdAt", "updatedAt", "deletedAt", "payload"],
        "properties": {
            "uid": {"type": "string", "format": "uuid"},
            "id": {"type": "integer"},
            "version": {"type": "integer"},
            "createdAt": moment,
            "updatedAt": moment,
            "deletedAt": {"type": ["string", "null"], "format": "date-time"},
            "payload": def.schema,
        },
    })
}

/// The schema of a page.
pub(super) fn page_output(def: &EntityDef) -> Value {
    json!({
        "type": "object",
        "required": ["items", "nextCursor"],
        "properties": {
            "items": {"type": "array", "items": item_output(def)},
            "nextCursor": {"type": ["string", "null"]},
        },
    })
}

/// `chat message` of `chat_message`.
pub(super) fn words(kind: &str) -> String {
    kind.replace('_', " ")
}

pub(super) fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn integer(description: &str) -> Value {
    json!({"type": "integer", "description": description})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn uid(description: &str) -> Value {
    json!({"type": "string", "format": "uuid", "description": description})
}

fn nullable(field: &Value) -> bool {
    schema::types(&field["type"]).any(|name| name == "null")
}

/// A field as an argument: one that may be missing is left out, it need not be null.
fn argument(field: &Value) -> Value {
    let mut argument = field.clone();
    if nullable(field) {
        let names: Vec<&str> = schema::types(&field["type"]).filter(|name| *name != "null").collect();
        argument["type"] = if let [name] = names[..] { name.into() } else { names.into() };
    }
    argument
}
