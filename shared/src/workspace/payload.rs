//! What happens to a payload before its entity looks at it: cleaning, merging, measuring.

use serde_json::{Map, Value};

use crate::error::{Error, Invalid, Result};

/// The most bytes that a payload may take as JSON text.
pub(super) const MOST_BYTES: usize = 256 * 1024;

/// U+0000 becomes U+FFFD in every string and key: Postgres can store the former in neither text nor jsonb.
pub(super) fn clean(value: &mut Value) {
    match value {
        Value::String(text) => clean_text(text),
        Value::Array(entries) => entries.iter_mut().for_each(clean),
        Value::Object(object) => clean_object(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The same for an object.
pub(crate) fn clean_object(object: &mut Map<String, Value>) {
    object.values_mut().for_each(clean);
    if object.keys().any(|key| key.contains('\0')) {
        *object = std::mem::take(object)
            .into_iter()
            .map(|(mut key, value)| {
                clean_text(&mut key);
                (key, value)
            })
            .collect();
    }
}

fn clean_text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// JSON merge patch (RFC 7396): what is given replaces, null removes, objects are merged.
pub(crate) fn merge(target: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (key, change) in changes {
        match change {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(changes) => match target.get_mut(&key) {
                Some(Value::Object(inner)) => merge(inner, changes),
                _ => {
                    let mut inner = Map::new();
                    merge(&mut inner, changes);
                    target.insert(key, Value::Object(inner));
                }
            },
            other => {
                target.insert(key, other);
            }
        }
    }
}

/// The payload as text, when it is not too large.
///
/// # Errors
/// 413 beyond [`MOST_BYTES`].
pub(super) fn text(payload: &Map<String, Value>) -> Result<String> {
    let text = serde_json::to_string(payload)?;
    if text.len() > MOST_BYTES {
        let sentence =
            format!("the payload takes {} bytes as JSON; at most {MOST_BYTES} are kept", text.len());
        return Err(Error::invalid(Invalid::TooLarge, sentence));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nul_is_replaced_everywhere() {
        let mut value = json!({"a\0": ["x\0y", {"b": "\0"}], "c": 1});
        clean(&mut value);
        assert_eq!(value, json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\u{fffd}"}], "c": 1}));
    }

    #[test]
    fn merging_follows_the_examples_of_rfc_7396() {
        for (target, changes, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let Value::Object(mut target) = target else { unreachable!() };
            merge(&mut target, changes.as_object().unwrap().clone());
            assert_eq!(Value::Object(target), merged);
        }
    }

    #[test]
    fn large_payloads_are_refused() {
        let payload = |letters: usize| json!({"text": "x".repeat(letters)}).as_object().unwrap().clone();
        assert_eq!(text(&payload(MOST_BYTES - 11)).unwrap().len(), MOST_BYTES);
        assert_eq!(text(&payload(MOST_BYTES - 10)).unwrap_err().invalid, Invalid::TooLarge);
    }
}
