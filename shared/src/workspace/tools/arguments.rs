//! Reads the arguments of a call: forgiving about form (numbers and lists as text), strict about meaning.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::describe::snake;
use crate::{
    identity::Actor,
    ids::ItemUid,
    workspace::{
        EntityDef, Problem,
        items::{ItemRef, Target},
        payload, schema,
    },
};

/// Checked arguments. Each is taken at most once.
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    /// Checks what a model gave against the tool's input schema.
    ///
    /// # Errors
    /// The argument that is wrong.
    pub(super) fn read(input: &Value, actor: &Actor, given: &Value) -> Result<Self, Problem> {
        let mut given = match given {
            Value::Object(given) => given.clone(),
            Value::Null => Map::new(),
            _ => return Err(Problem::new("arguments", "must be an object")),
        };
        payload::clean_object(&mut given);
        // Models write null for what they leave out.
        given.retain(|_, value| !value.is_null());
        for (name, value) in &mut given {
            coerce(&input["properties"][name], value);
        }
        schema::check_object(input, &given)?;
        if let Some(user) = given.remove("user_id")
            && user.as_str().and_then(|user| Uuid::parse_str(user).ok()) != Some(actor.user.0)
        {
            return Err(Problem::new("user_id", "must be the caller's own id; leave it out"));
        }
        Ok(Self(given))
    }

    /// Text, if given.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A number, if given.
    pub(super) fn integer(&mut self, name: &str) -> Option<i64> {
        self.0.remove(name).as_ref().and_then(Value::as_i64)
    }

    /// An object, if given.
    pub(super) fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.0.remove(name) {
            Some(Value::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// A list; an empty one when it was not given.
    pub(super) fn list(&mut self, name: &str) -> Vec<Value> {
        match self.0.remove(name) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        }
    }

    /// Whether it was given as true.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name) == Some(Value::Bool(true))
    }

    /// The item that is named by its uid or short id.
    ///
    /// # Errors
    /// When none or several are named.
    pub(super) fn item(&mut self, def: &EntityDef) -> Result<ItemRef, Problem> {
        let names: Vec<&str> = def.id_argument.into_iter().chain(["id", "uid"]).collect();
        let known = &names[..];
        let mut items = known.iter().filter_map(|name| self.0.remove(*name)).map(|name| match &name {
            Value::String(uid) => Uuid::parse_str(uid).ok().map(|uid| ItemRef::Uid(ItemUid(uid))),
            number => number.as_i64().map(ItemRef::Id),
        });
        let (first, second) = (items.next().flatten(), items.next());
        drop(items);
        match (first, second) {
            (Some(item), None) => Ok(item),
            (None, _) => {
                Err(Problem::new(names[0], format!("is required (or one of {})", names[1..].join(", "))))
            }
            (Some(_), Some(_)) => {
                Err(Problem::new(names.join(", "), "must not be given together: give one of them"))
            }
        }
    }

    /// The same with the version that the caller has seen.
    ///
    /// # Errors
    /// When no item or several are named.
    pub(super) fn target(&mut self, def: &EntityDef) -> Result<Target, Problem> {
        Ok(Target { item: self.item(def)?, if_match: self.integer("if_match") })
    }

    /// The payload fields, under the entity's own names. Empty text removes a field that may be missing.
    pub(super) fn fields(&mut self, def: &EntityDef) -> Map<String, Value> {
        let mut fields = Map::new();
        for name in ["additional_fields", "updates"] {
            let Some(Value::Object(more)) = self.0.remove(name) else { continue };
            for (name, value) in more {
                let known = def.fields().find(|(known, _)| snake(known) == name);
                fields.insert(known.map_or(name, |(known, _)| known.to_owned()), value);
            }
        }
        for (name, schema) in def.fields() {
            let Some(value) = self.0.remove(&snake(name)) else { continue };
            let removed = value == "" && schema::types(&schema["type"]).any(|name| name == "null");
            fields.insert(name.to_owned(), if removed { Value::Null } else { value });
        }
        fields
    }
}

/// Numbers, truth values, lists and objects that came as text, and whole numbers that came as fractions.
fn coerce(schema: &Value, value: &mut Value) {
    let wanted = |name: &str| schema::types(&schema["type"]).any(|wanted| wanted == name);
    let better = match value {
        Value::String(text) if !wanted("string") => serde_json::from_str::<Value>(text.trim()).ok(),
        Value::Number(number) if wanted("integer") => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
            whole.filter(|_| number.is_f64()).map(|whole| Value::from(whole as i64))
        }
        _ => None,
    };
    if let Some(better) = better {
        *value = better;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        identity::{Role, Scopes},
        ids::{TenantId, UserId},
        workspace::definition,
    };

    fn actor() -> Actor {
        Actor {
            tenant: TenantId(Uuid::from_u128(1)),
            user: UserId(Uuid::from_u128(2)),
            role: Role::Member,
            operator: false,
            scopes: Scopes::ALL,
            timezone: "UTC".to_owned(),
        }
    }

    fn read(tool: &str, given: &Value) -> Result<Arguments, String> {
        let tool = crate::workspace::tools().into_iter().find(|known| known.name == tool).unwrap();
        Arguments::read(&tool.input, &actor(), given).map_err(|problem| problem.to_string())
    }

    #[test]
    fn form_is_forgiven() {
        let given =
            json!({"limit": "10", "include_deleted": "true", "cursor": null, "user_id": actor().user});
        let mut arguments = read("list_notes", &given).unwrap();
        assert_eq!(arguments.integer("limit"), Some(10));
        assert!(arguments.flag("include_deleted"));
        assert_eq!(arguments.text("cursor"), None);
        let mut arguments = read("list_notes", &json!({"limit": 10.0})).unwrap();
        assert_eq!(arguments.integer("limit"), Some(10));
        read("list_notes", &Value::Null).unwrap();
        let note = definition("note").unwrap();
        for tags in [json!(["a", "b"]), json!("[\"a\", \"b\"]")] {
            let given = json!({"tags": tags, "title": "5", "additional_fields": "{\"mood\": \"good\"}"});
            let fields = read("create_note", &given).unwrap().fields(note);
            assert_eq!(Value::Object(fields), json!({"title": "5", "tags": ["a", "b"], "mood": "good"}));
        }
    }

    #[test]
    fn meaning_is_not() {
        for (tool, given, sentence) in [
            ("list_notes", json!([]), "arguments must be an object"),
            ("list_notes", json!({"limit": 0}), "limit must be at least 1"),
            ("list_notes", json!({"limit": "many"}), "limit must be an integer"),
            ("list_notes", json!({"limit": 1.5}), "limit must be an integer"),
            ("create_note", json!({"tags": "a, b"}), "tags must be a list"),
            ("create_note", json!({"tags": "7"}), "tags must be a list"),
            ("add_task", json!({}), "title is required"),
            (
                "add_task",
                json!({"title": "x", "user_id": TenantId(Uuid::from_u128(1))}),
                "user_id must be the caller's own id; leave it out",
            ),
            (
                "add_task",
                json!({"title": "x", "user_id": "2"}),
                "user_id must be the caller's own id; leave it out",
            ),
        ] {
            assert_eq!(read(tool, &given).err().as_deref(), Some(sentence));
        }
    }

    #[test]
    fn an_item_is_named_once() {
        let task = definition("task").unwrap();
        let item = |given: Value| {
            read("delete_task", &given).unwrap().item(task).map_err(|problem| problem.to_string())
        };
        let uid = ItemUid(Uuid::from_u128(7));
        assert_eq!(item(json!({"task_id": 3})), Ok(ItemRef::Id(3)));
        assert_eq!(item(json!({"task_id": "3"})), Ok(ItemRef::Id(3)));
        assert_eq!(item(json!({"id": 3})), Ok(ItemRef::Id(3)));
        assert_eq!(item(json!({"uid": uid})), Ok(ItemRef::Uid(uid)));
        assert_eq!(item(json!({})), Err("task_id is required (or one of id, uid)".to_owned()));
        assert_eq!(
            item(json!({"task_id": 3, "uid": uid})),
            Err("task_id, id, uid must not be given together: give one of them".to_owned())
        );
    }

    #[test]
    fn fields_take_the_names_of_the_entity() {
        let task = definition("task").unwrap();
        let given = json!({"task_id": 3, "due_date": "", "title": "b",
            "updates": {"title": "a", "description": null, "mood": "good", "dueDate": "2031-01-01"}});
        let fields = read("update_task", &given).unwrap().fields(task);
        assert_eq!(
            Value::Object(fields),
            json!({"title": "b", "description": null, "mood": "good", "dueDate": null})
        );
    }
}
