//! What was asked, as far as a rule wants to know. Parsing stays cheap: only the messages are looked at.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// The three wire formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// `/v1/messages`
    Anthropic,
    /// `/v1/responses`
    Responses,
    /// `/v1/chat/completions`
    Chat,
}

/// One request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// Counts from 1.
    pub number: u64,
    /// Where it came in.
    pub wire: Wire,
    /// The model it asks for.
    pub model: String,
    /// The last message a user wrote.
    pub last_user: String,
    /// How many rounds of tool results follow that message.
    pub rounds: usize,
    /// The key it carried.
    pub key: Option<String>,
    /// The body as it came.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    input: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    content: Value,
}

/// What a message is to the conversation.
enum Part {
    User(String),
    Results,
    Other,
}

fn part(raw: &RawValue) -> Part {
    let Ok(message) = serde_json::from_str::<Message<'_>>(raw.get()) else { return Part::Other };
    if message.role == "tool" || message.kind == "function_call_output" {
        return Part::Results;
    }
    if message.role != "user" {
        return Part::Other;
    }
    match message.content {
        Value::String(text) => Part::User(text),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            if texts.is_empty() { Part::Results } else { Part::User(texts.join("\n")) }
        }
        _ => Part::Other,
    }
}

impl ReceivedRequest {
    pub(super) fn read(wire: Wire, number: u64, key: Option<String>, body: Bytes) -> Option<Self> {
        let parsed: Body<'_> = serde_json::from_slice(&body).ok()?;
        let messages = if wire == Wire::Responses { &parsed.input } else { &parsed.messages };
        let (mut rounds, mut last_user, mut in_results) = (0, String::new(), false);
        for raw in messages.iter().rev() {
            match part(raw) {
                Part::User(text) => {
                    last_user = text;
                    break;
                }
                Part::Results => {
                    rounds += usize::from(!in_results);
                    in_results = true;
                }
                Part::Other => in_results = false,
            }
        }
        let model = parsed.model.into_owned();
        Some(Self { number, wire, model, last_user, rounds, key, body })
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
