//! JSON that keeps its bytes: objects put together from deltas with every field, known or not, in order; the wrapping
//! of a provider's blocks for storage; and the clean-up of text that Postgres would refuse.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Value, value::RawValue};

use super::{ModelId, NativeBlocks};

/// A JSON object whose fields keep their order and bytes.
#[derive(Debug, Default)]
pub(super) struct RawObject(Vec<(String, Piece)>);

/// One field's value while it grows.
#[derive(Debug)]
enum Piece {
    Raw(Box<RawValue>),
    Text(String),
    List(Vec<Box<RawValue>>),
}

impl RawObject {
    fn piece(&mut self, key: &str) -> Option<&mut Piece> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, piece)| piece)
    }

    fn put(&mut self, key: &str, piece: Piece) {
        match self.piece(key) {
            Some(old) => *old = piece,
            None => self.0.push((key.to_owned(), piece)),
        }
    }

    /// The field as text, when it is a string.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.0.iter().find(|(name, _)| name == key).and_then(|(_, piece)| match piece {
            Piece::Raw(raw) => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
            Piece::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Piece::List(_) => None,
        })
    }

    /// The field as it came, when it has not been added to.
    pub(super) fn raw(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(name, _)| name == key).and_then(|(_, piece)| match piece {
            Piece::Raw(raw) => Some(&**raw),
            Piece::Text(_) | Piece::List(_) => None,
        })
    }

    /// Replaces the field.
    pub(super) fn set(&mut self, key: &str, value: Box<RawValue>) {
        self.put(key, Piece::Raw(value));
    }

    /// Replaces the field with a string.
    pub(super) fn set_text(&mut self, key: &str, text: impl Into<String>) {
        self.put(key, Piece::Text(text.into()));
    }

    /// Removes the field.
    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| name != key);
    }

    /// Adds to the end of the field's string.
    pub(super) fn append(&mut self, key: &str, more: &str) {
        if let Some(Piece::Text(text)) = self.piece(key) {
            text.push_str(more);
            return;
        }
        let mut text = self.text(key).map(Cow::into_owned).unwrap_or_default();
        text.push_str(more);
        self.put(key, Piece::Text(text));
    }

    /// Adds to the end of the field's list.
    pub(super) fn push(&mut self, key: &str, value: Box<RawValue>) {
        if let Some(Piece::List(list)) = self.piece(key) {
            list.push(value);
            return;
        }
        let mut list: Vec<Box<RawValue>> =
            self.raw(key).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        list.push(value);
        self.put(key, Piece::List(list));
    }

    /// Merges a delta's field of a kind we do not know: strings and lists grow, everything else replaces, null only
    /// fills a gap.
    pub(super) fn merge(&mut self, key: &str, value: Box<RawValue>) {
        match value.get().as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(value.get()) {
                Ok(more) => self.append(key, &more),
                Err(_) => self.set(key, value),
            },
            Some(b'[') => match serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) {
                Ok(items) => items.into_iter().for_each(|item| self.push(key, item)),
                Err(_) => self.set(key, value),
            },
            Some(b'n') if self.piece(key).is_some() => {}
            _ => self.set(key, value),
        }
    }

    /// Merges all fields of a delta but the named ones.
    pub(super) fn merge_except(&mut self, delta: Self, known: &[&str]) {
        for (key, piece) in delta.0 {
            if let Piece::Raw(raw) = piece
                && !known.contains(&key.as_str())
            {
                self.merge(&key, raw);
            }
        }
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawObject;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    fields.push((key, Piece::Raw(raw)));
                }
                Ok(RawObject(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, piece) in &self.0 {
            match piece {
                Piece::Raw(raw) => map.serialize_entry(key, raw)?,
                Piece::Text(text) => map.serialize_entry(key, text)?,
                Piece::List(list) => map.serialize_entry(key, list)?,
            }
        }
        map.end()
    }
}

/// A provider's blocks as they are stored: beside the model that made them, because signed and encrypted reasoning is
/// refused by any other model.
#[derive(Serialize)]
struct Stored<'a, T> {
    model: &'a str,
    content: &'a T,
}

/// The blocks of a reply as text for storage.
pub(super) fn wrap<T: Serialize>(id: &ModelId, content: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Stored { model: &id.name, content })
}

/// The blocks of an earlier reply of this very model, byte for byte; `None` when another model wrote it.
pub(super) fn unwrap(native: Option<&NativeBlocks>, id: &ModelId) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Loaded<'a> {
        model: Cow<'a, str>,
        content: Box<RawValue>,
    }
    let native = native.filter(|native| native.provider == id.provider)?;
    let loaded: Loaded<'_> = serde_json::from_str(&native.blocks).ok()?;
    (loaded.model == id.name).then_some(loaded.content)
}

/// U+0000, which Postgres refuses, becomes U+FFFD.
pub(super) fn clean(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

/// The arguments of a call: an object, or the raw text of what is none. Nothing at all means no arguments.
pub(super) fn arguments(raw: &str) -> Result<Value, String> {
    let trimmed = raw.trim();
    if trimmed.is_empty() || trimmed == "null" {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str(trimmed) {
        Ok(Value::Object(mut fields)) => {
            if trimmed.contains("\\u0000") {
                fields = fields.into_iter().map(|(key, value)| (clean(&key), clean_value(value))).collect();
            }
            Ok(Value::Object(fields))
        }
        Ok(_) | Err(_) => Err(clean(raw)),
    }
}

fn clean_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean_value).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (clean(&key), clean_value(value))).collect())
        }
        other => other,
    }
}

/// A call id that every provider takes: letters, digits, `_`, `-`, at most 64. Ids that fit are left alone.
pub(super) fn wire_call_id(id: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !id.is_empty() && id.len() <= 64 && id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    let kept: String = id.chars().map(|c| if fits(c) { c } else { '_' }).take(64).collect();
    Cow::Owned(if kept.is_empty() { "call".to_owned() } else { kept })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Provider;

    #[test]
    fn objects_keep_order_bytes_and_unknown_fields() {
        let mut object: RawObject =
            serde_json::from_str(r#"{"z":1.0,"text":"","a":{"y" : 2,"b":1},"l":[1]}"#).unwrap();
        object.append("text", "hé");
        object.append("text", "\n");
        object.merge("new", RawValue::from_string("\"x\"".into()).unwrap());
        object.merge("new", RawValue::from_string("\"y\"".into()).unwrap());
        object.merge("l", RawValue::from_string("[2, 3]".into()).unwrap());
        object.merge("a", RawValue::from_string("null".into()).unwrap());
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"z":1.0,"text":"hé\n","a":{"y" : 2,"b":1},"l":[1,2,3],"new":"xy"}"#
        );
    }

    #[test]
    fn blocks_return_only_to_the_model_that_made_them() {
        let id = ModelId { provider: Provider::OpenAi, name: "a".into() };
        let content = RawValue::from_string(r#"[{"b":1,  "a":2}]"#.into()).unwrap();
        let native = NativeBlocks { provider: Provider::OpenAi, blocks: wrap(&id, &content).unwrap() };
        assert_eq!(unwrap(Some(&native), &id).unwrap().get(), content.get());
        assert!(unwrap(Some(&native), &ModelId { name: "b".into(), ..id.clone() }).is_none());
        assert!(unwrap(Some(&native), &ModelId { provider: Provider::Anthropic, ..id.clone() }).is_none());
        assert!(unwrap(None, &id).is_none());
    }

    #[test]
    fn arguments_are_objects() {
        assert_eq!(arguments(" "), Ok(json!({})));
        assert_eq!(arguments(r#"{"a":["\u0000"]}"#), Ok(json!({"a": ["\u{fffd}"]})));
        assert_eq!(arguments("[1]"), Err("[1]".into()));
        assert_eq!(arguments("{\"a\":"), Err("{\"a\":".into()));
    }

    #[test]
    fn call_ids_fit_the_wire() {
        assert_eq!(wire_call_id("toolu_01"), "toolu_01");
        assert_eq!(wire_call_id("functions.add:0"), "functions_add_0");
        assert_eq!(wire_call_id(""), "call");
    }
}
