//! Checks a value against the part of JSON Schema that our own schemas use, and names the field that does not fit.
//!
//! A test walks every schema of the workspace and fails on a keyword that is not checked here, so that no promise of a
//! schema goes unchecked.

use std::fmt;

use chrono::DateTime;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::Error;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as a path: `tags[2]`.
    pub field: String,
    /// The rest of a sentence that begins with the field: "must be a string".
    pub reason: String,
}

impl Problem {
    /// A field and what is wrong with it.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.reason)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::unacceptable(problem.to_string()).with_detail("field", problem.field)
    }
}

/// The object against its schema.
///
/// # Errors
/// The first field that does not fit.
pub(super) fn check_object(schema: &Value, object: &Map<String, Value>) -> Result<(), Problem> {
    object_fits(schema, object, "")
}

fn fits(schema: &Value, value: &Value, path: &str) -> Result<(), Problem> {
    let Some(schema) = schema.as_object() else { return Ok(()) };
    for keyword in ["anyOf", "oneOf"] {
        let Some(branches) = schema.get(keyword).and_then(Value::as_array) else { continue };
        let mut first = None;
        let fitting = branches.iter().any(|branch| match fits(branch, value, path) {
            Ok(()) => true,
            Err(problem) => {
                first.get_or_insert(problem);
                false
            }
        });
        if let (false, Some(problem)) = (fitting, first) {
            return Err(problem);
        }
    }
    if let Some(wanted) = schema.get("type")
        && !types(wanted).any(|name| is_a(name, value))
    {
        let names: Vec<&str> = types(wanted).filter(|name| *name != "null").map(with_article).collect();
        return Err(Problem::new(path, format!("must be {}", names.join(" or "))));
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        return Err(Problem::new(path, format!("must be {constant}")));
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return Err(Problem::new(path, format!("must be one of {}", words.join(", "))));
    }
    match value {
        Value::String(text) => text_fits(schema, text, path),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::INFINITY);
            match (limit(schema, "minimum"), limit(schema, "maximum")) {
                (Some(least), _) if number < least => {
                    Err(Problem::new(path, format!("must be at least {least}")))
                }
                (_, Some(most)) if number > most => {
                    Err(Problem::new(path, format!("must be at most {most}")))
                }
                _ => Ok(()),
            }
        }
        Value::Array(entries) => {
            if let Some(most) = limit(schema, "maxItems")
                && entries.len() as f64 > most
            {
                return Err(Problem::new(path, format!("must have at most {most} entries")));
            }
            let Some(each) = schema.get("items") else { return Ok(()) };
            for (index, entry) in entries.iter().enumerate() {
                fits(each, entry, &format!("{path}[{index}]"))?;
            }
            Ok(())
        }
        Value::Object(object) => object_fits(&Value::Object(schema.clone()), object, &format!("{path}.")),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn object_fits(schema: &Value, object: &Map<String, Value>, prefix: &str) -> Result<(), Problem> {
    let properties = schema.get("properties").and_then(Value::as_object);
    for required in
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !object.contains_key(required) {
            return Err(Problem::new(format!("{prefix}{required}"), "is required"));
        }
    }
    for (name, value) in object {
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => fits(property, value, &format!("{prefix}{name}"))?,
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                let known: Vec<&str> =
                    properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                let reason = format!("is not known here; known are {}", known.join(", "));
                return Err(Problem::new(format!("{prefix}{name}"), reason));
            }
            None => {}
        }
    }
    Ok(())
}

fn text_fits(schema: &Map<String, Value>, text: &str, path: &str) -> Result<(), Problem> {
    let length = text.chars().count();
    if let Some(least) = limit(schema, "minLength")
        && (length as f64) < least
    {
        return Err(Problem::new(path, "must not be empty"));
    }
    if let Some(most) = limit(schema, "maxLength")
        && length as f64 > most
    {
        return Err(Problem::new(path, format!("must have at most {most} characters; it has {length}")));
    }
    match schema.get("format").and_then(Value::as_str) {
        Some("uuid") if Uuid::parse_str(text).is_err() => Err(Problem::new(path, "must be a uuid")),
        Some("date-time") if DateTime::parse_from_rfc3339(text).is_err() => {
            Err(Problem::new(path, "must be a moment with its offset such as 2031-05-17T09:30:00Z"))
        }
        _ => Ok(()),
    }
}

fn limit(schema: &Map<String, Value>, keyword: &str) -> Option<f64> {
    schema.get(keyword).and_then(Value::as_f64)
}

/// The names in a `type` keyword, which is one name or a list of them.
pub(super) fn types(keyword: &Value) -> impl Iterator<Item = &str> {
    keyword.as_str().into_iter().chain(keyword.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn with_article(name: &str) -> &str {
    match name {
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "an object",
        other => other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    const CHECKED: &[&str] = &[
        "additionalProperties",
        "anyOf",
        "const",
        "enum",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "oneOf",
        "properties",
        "required",
        "type",
    ];
    const SAYS_NOTHING: &[&str] = &["default", "description", "examples", "title"];

    /// Panics on a keyword that [`check_object`] would pass over.
    pub(in crate::workspace) fn assert_checkable(schema: &Value) {
        let Some(keywords) = schema.as_object() else { return };
        for (keyword, value) in keywords {
            match keyword.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(assert_checkable),
                "items" | "additionalProperties" => assert_checkable(value),
                "anyOf" | "oneOf" => value.as_array().unwrap().iter().for_each(assert_checkable),
                "format" => {
                    assert!(["uuid", "date-time", "int64"].contains(&value.as_str().unwrap()), "{value}")
                }
                "minLength" => assert_eq!(value, 1, "the sentence says: must not be empty"),
                other => assert!(
                    CHECKED.contains(&other) || SAYS_NOTHING.contains(&other),
                    "{other} is not checked"
                ),
            }
        }
    }

    #[test]
    fn problems_name_the_field() {
        let schema = json!({
            "type": "object",
            "required": ["title"],
            "additionalProperties": false,
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 5},
                "priority": {"anyOf": [{"enum": ["low", "high"], "type": "string"}, {"type": "null"}]},
                "kind": {"oneOf": [{"const": "a"}, {"const": "b"}]},
                "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
                "limit": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
                "uid": {"type": "string", "format": "uuid"},
                "at": {"type": "string", "format": "date-time"},
                "more": {"type": "object", "properties": {"done": {"type": "boolean"}}},
            },
        });
        for (value, sentence) in [
            (json!({}), "title is required"),
            (json!({"title": 5}), "title must be a string"),
            (json!({"title": ""}), "title must not be empty"),
            (json!({"title": "äöüßéx"}), "title must have at most 5 characters; it has 6"),
            (json!({"title": "a", "priority": "urgent"}), "priority must be one of low, high"),
            (json!({"title": "a", "kind": "c"}), "kind must be \"a\""),
            (json!({"title": "a", "tags": "b"}), "tags must be a list"),
            (json!({"title": "a", "tags": ["b", 5]}), "tags[1] must be a string"),
            (json!({"title": "a", "tags": ["b", "c", "d"]}), "tags must have at most 2 entries"),
            (json!({"title": "a", "limit": 0}), "limit must be at least 1"),
            (json!({"title": "a", "limit": 10}), "limit must be at most 9"),
            (json!({"title": "a", "limit": 1.5}), "limit must be an integer"),
            (json!({"title": "a", "uid": "7"}), "uid must be a uuid"),
            (
                json!({"title": "a", "at": "2031-05-17"}),
                "at must be a moment with its offset such as 2031-05-17T09:30:00Z",
            ),
            (json!({"title": "a", "more": {"done": 1}}), "more.done must be true or false"),
            (
                json!({"title": "a", "x": 1}),
                "x is not known here; known are at, kind, limit, more, priority, tags, title, uid",
            ),
        ] {
            assert_eq!(check_object(&schema, value.as_object().unwrap()).unwrap_err().to_string(), sentence);
        }
        let good = json!({"title": "äöüß", "priority": null, "kind": "b", "tags": ["x"], "limit": null,
            "uid": "0a1f0000-0000-7000-8000-000000000001", "more": {"other": 1}});
        check_object(&schema, good.as_object().unwrap()).unwrap();
    }
}
