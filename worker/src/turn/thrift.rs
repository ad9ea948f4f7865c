//! What a model is sent of what is stored [M6]: long results are trimmed, and one that was sent before is named instead.
//!
//! Knows nothing of storage: what is stored never changes by it. Invariant: a message is sent in the same words in every
//! request of a turn, so that each request begins with the one before and a provider's prompt cache can keep that.

use std::{borrow::Cow, collections::HashMap};

use serde_json::Value;
use shared::{
    cache::canonical,
    config::ThriftConfig,
    model::{ModelMessage, ToolCall, ToolResult},
};

/// Shorter results are not worth a reference.
const WORTH_NAMING: usize = 240;

/// The messages as they are sent; those from `this_turn` on are the turn's own.
pub(super) fn sent(messages: &[ModelMessage], this_turn: usize, thrift: &ThriftConfig) -> Vec<ModelMessage> {
    let mut sent: Vec<ModelMessage> = Vec::with_capacity(messages.len());
    // What was sent, and the call that it answered.
    let mut seen: HashMap<String, String> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let ModelMessage::ToolResults(results) = message else {
            sent.push(message.clone());
            continue;
        };
        let most = if index < this_turn { thrift.old_result_bytes } else { thrift.result_bytes };
        let calls = match index.checked_sub(1).and_then(|before| messages.get(before)) {
            Some(ModelMessage::Assistant { calls, .. }) => calls.as_slice(),
            _ => &[],
        };
        let results = results.iter().map(|result| {
            let content = trimmed(&result.content, most).into_owned();
            if result.is_error || content.len() < WORTH_NAMING {
                return ToolResult { content, ..result.clone() };
            }
            let call = calls.iter().find(|call| call.id == result.call_id).map(described).unwrap_or_default();
            // Found only if all of it was sent in these very words.
            let content = match seen.get(&content) {
                Some(earlier) => reference(earlier),
                None => {
                    seen.insert(content.clone(), call);
                    content
                }
            };
            ToolResult { content, ..result.clone() }
        });
        sent.push(ModelMessage::ToolResults(results.collect()));
    }
    sent
}

/// Whether a history is so long, as it is sent, that its old turns should become a summary.
pub(super) fn is_long(history: &[ModelMessage], thrift: &ThriftConfig) -> bool {
    let Some(most) = thrift.compact_above_tokens.filter(|_| thrift.on) else { return false };
    // Most conversations are short however they are sent.
    tokens(history) > most && tokens(&sent(history, history.len(), thrift)) > most
}

/// Tokens of messages, by the rule of thumb of four bytes a token.
pub(super) fn tokens(messages: &[ModelMessage]) -> i64 {
    let bytes: usize = messages
        .iter()
        .map(|message| match message {
            ModelMessage::User { text } | ModelMessage::Assistant { text, .. } => text.len(),
            ModelMessage::ToolResults(results) => results.iter().map(|result| result.content.len()).sum(),
        })
        .sum();
    i64::try_from(bytes / 4).unwrap_or(i64::MAX)
}

/// A call in words that are the same in every turn, unlike its id.
fn described(call: &ToolCall) -> String {
    const LONGEST: usize = 200;
    let mut arguments = match &call.arguments {
        Ok(arguments) => canonical(arguments),
        Err(raw) => raw.clone(),
    };
    if arguments.len() > LONGEST {
        arguments.truncate(arguments.floor_char_boundary(LONGEST));
        arguments.push('…');
    }
    format!("{} {arguments}", call.name)
}

fn reference(earlier: &str) -> String {
    format!("[Unchanged: the result is, to the letter, the one above of the call {earlier}]")
}

/// At most so many bytes of a result: what is empty in it goes first, then its end.
fn trimmed(content: &str, most: usize) -> Cow<'_, str> {
    if content.len() <= most {
        return Cow::Borrowed(content);
    }
    let mut text = match serde_json::from_str::<Value>(content) {
        Ok(mut value) => {
            prune(&mut value);
            value.to_string()
        }
        Err(_) => content.to_owned(),
    };
    let whole = text.len();
    if whole > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str(&format!(
            "\n[The first {} of {whole} bytes. Ask the tool for a part, if it can, to read on.]",
            text.len()
        ));
    }
    Cow::Owned(text)
}

/// Takes out members that say nothing: null, empty text, empty lists and objects.
fn prune(value: &mut Value) {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, value| !says_nothing(value));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const THRIFT: ThriftConfig = ThriftConfig {
        on: true,
        result_bytes: 2000,
        old_result_bytes: 500,
        tools_on_demand_above: 64,
        compact_above_tokens: None,
    };

    fn read(id: &str, content: &str) -> [ModelMessage; 2] {
        let call = ToolCall { id: id.into(), name: "pages__get".into(), arguments: Ok(json!({"id": "p"})) };
        let result = ToolResult { call_id: id.into(), content: content.into(), is_error: false };
        [
            ModelMessage::Assistant { text: String::new(), calls: vec![call], native: None },
            ModelMessage::ToolResults(vec![result]),
        ]
    }

    fn results(messages: &[ModelMessage]) -> Vec<&str> {
        let results = messages.iter().filter_map(|message| match message {
            ModelMessage::ToolResults(results) => Some(results),
            _ => None,
        });
        results.flatten().map(|result| result.content.as_str()).collect()
    }

    #[test]
    fn a_result_that_was_sent_is_named_and_not_sent_again() {
        let (page, other) = ("a page ".repeat(40), "another ".repeat(40));
        let messages: Vec<ModelMessage> =
            [read("1", &page), read("2", &page), read("3", &other), read("4", &page)].concat();
        let sent = sent(&messages, 4, &THRIFT);
        let named =
            r#"[Unchanged: the result is, to the letter, the one above of the call pages__get {"id":"p"}]"#;
        assert_eq!(results(&sent), [page.as_str(), named, other.as_str(), named]);
        // Each request of a turn begins with the one before.
        for length in 0..messages.len() {
            assert_eq!(super::sent(&messages[..length], 4, &THRIFT), sent[..length]);
        }
    }

    #[test]
    fn short_results_and_errors_are_sent_again() {
        let mut messages = [read("1", "fine"), read("2", "fine")].concat();
        assert_eq!(results(&sent(&messages, 0, &THRIFT)), ["fine", "fine"]);
        let trouble = "it did not work ".repeat(30);
        messages = [read("1", &trouble), read("2", &trouble)].concat();
        for message in &mut messages {
            if let ModelMessage::ToolResults(results) = message {
                results[0].is_error = true;
            }
        }
        assert_eq!(results(&sent(&messages, 0, &THRIFT)), [trouble.as_str(), trouble.as_str()]);
    }

    #[test]
    fn long_results_are_trimmed_and_older_ones_more() {
        let page = "x".repeat(5000);
        let messages = [read("1", &page), read("2", &page)].concat();
        let sent = sent(&messages, 2, &THRIFT);
        let [old, new] = results(&sent)[..] else { panic!() };
        assert!(
            old.starts_with(&"x".repeat(500)) && old.ends_with("to read on.]") && old.len() < 620,
            "{old}"
        );
        // What was trimmed more is not all of it, so the newer one is sent.
        assert!(new.starts_with(&"x".repeat(2000)) && new.contains("The first 2000 of 5000 bytes"), "{new}");
    }

    #[test]
    fn what_says_nothing_goes_first() {
        let empty: Vec<Value> =
            (0..60).map(|n| json!({"id": n, "a": null, "b": [], "c": {"d": ""}})).collect();
        let content = json!(empty).to_string();
        assert!(content.len() > 1500);
        let messages = read("1", &content);
        let wider = ThriftConfig { result_bytes: 1200, ..THRIFT };
        let sent = sent(&messages, 0, &wider);
        let kept: Vec<Value> = serde_json::from_str(results(&sent)[0]).unwrap();
        assert_eq!((kept.len(), &kept[7]), (60, &json!({"id": 7})));
    }

    #[test]
    fn a_history_is_as_long_as_what_is_sent_of_it() {
        let page = "a page ".repeat(60);
        let messages: Vec<ModelMessage> = (0..20).flat_map(|n| read(&n.to_string(), &page)).collect();
        let above = |most| ThriftConfig { compact_above_tokens: Some(most), ..THRIFT };
        assert!(tokens(&messages) > 2000);
        assert!(!is_long(&messages, &above(1000)) && is_long(&messages, &above(400)));
        assert!(!is_long(&messages, &THRIFT) && !is_long(&messages, &ThriftConfig { on: false, ..above(1) }));
    }

    #[test]
    fn text_is_cut_between_letters() {
        let text = trimmed("ééééé", 5).into_owned();
        assert!(text.starts_with("éé\n[The first 4 of 10 bytes."), "{text}");
    }
}
