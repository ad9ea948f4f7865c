//! What an answer is kept under: `{tool}:{version}:{sha256 of the arguments as canonical JSON}`.
//!
//! Canonical JSON, as meant here: members sorted by the bytes of their names, no space, numbers in one spelling (a whole
//! number without fraction or exponent), strings escaped as serde_json escapes them. Two calls that mean the same then
//! have the same key, however a model happened to write them.

use std::fmt::Write as _;

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// The key of a call of a tool of this version.
#[must_use]
pub fn key(tool: &str, version: &str, arguments: &Value) -> String {
    let mut text = String::new();
    write(arguments, &mut text);
    format!("{tool}:{version}:{}", hash(&text))
}

/// SHA-256 in hexadecimal: of arguments, and of content to tell whether it has changed.
#[must_use]
pub fn hash(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The value as canonical JSON.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => write_number(number, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            text.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(name.as_str()));
                write(&fields[name], text);
            }
            text.push('}');
        }
        plain => {
            let _ = write!(text, "{plain}");
        }
    }
}

/// Whole numbers up to 2^53, which every reader of JSON agrees on, are written without a fraction.
fn write_number(number: &Number, text: &mut String) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let _ = match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            // Minus zero is zero.
            write!(text, "{:.0}", float + 0.0)
        }
        _ => write!(text, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_meaning_has_one_spelling() {
        let written: Value = serde_json::from_str(
            r#"{ "b" : [1.0, 1e2, -0.0, 0.5, 10000000000000000000], "a": {"y": null, "x": "é\u0041\n"} }"#,
        )
        .unwrap();
        assert_eq!(
            canonical(&written),
            r#"{"a":{"x":"éA\n","y":null},"b":[1,100,0,0.5,10000000000000000000]}"#
        );
        let (one, other) = (json!({"id": "p", "n": 1}), json!({"n": 1.0, "id": "p"}));
        assert_eq!(key("notion.get_page", "v1", &one), key("notion.get_page", "v1", &other));
        assert_ne!(key("notion.get_page", "v1", &one), key("notion.get_page", "v2", &one));
        assert_ne!(key("a", "v", &json!({})), key("a", "v", &json!({"x": null})));
        assert_eq!(
            key("t", "v", &json!({})),
            "t:v:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Few digits: serde_json reads the last ones of a long fraction only roughly.
            any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,4}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_json_is_json_and_canonical(value in any_json()) {
            let text = canonical(&value);
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(canonical(&read), text);
        }
    }
}
