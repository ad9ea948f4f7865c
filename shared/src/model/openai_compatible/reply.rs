//! Puts a chat-completions reply together. The block is the assistant message with every field that the deltas had,
//! known or not: Gemini's thought signature rides on a tool call, others put their reasoning beside the content.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{
    ModelId, ModelReply, StopReason, ToolCall, Usage,
    http::Fault,
    raw::{RawObject, arguments, clean, wrap},
    sse::Event,
    stream::{Assemble, Broken, Out},
};

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: i64,
    #[serde(default)]
    delta: Option<RawObject>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Option<i64>,
    #[serde(default)]
    completion_tokens: Option<i64>,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<i64>,
}

#[derive(Default)]
struct Call {
    index: Option<i64>,
    fields: RawObject,
    function: RawObject,
    arguments: String,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: Option<i64>,
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    function: Option<RawObject>,
}

/// A reply in the making.
pub(super) struct Reply {
    id: ModelId,
    message: RawObject,
    calls: Vec<Call>,
    text: String,
    usage: Usage,
    finish: Option<String>,
}

impl Reply {
    pub(super) fn new(id: ModelId) -> Self {
        let mut message = RawObject::default();
        message.set_text("role", "assistant");
        Self { id, message, calls: Vec::new(), text: String::new(), usage: Usage::default(), finish: None }
    }

    fn delta(&mut self, delta: RawObject, out: &mut Out) -> Result<(), Broken> {
        for (key, is_refusal) in [("content", false), ("refusal", true)] {
            if let Some(text) = delta.text(key).filter(|text| !text.is_empty()) {
                let text = clean(&text);
                self.text.push_str(&text);
                out.text(text);
                if is_refusal {
                    self.finish = Some("refusal".to_owned());
                }
            }
        }
        if let Some(calls) = delta.raw("tool_calls")
            && let Some(calls) = serde_json::from_str::<Option<Vec<Box<RawValue>>>>(calls.get())?
        {
            for call in calls {
                self.call(&call)?;
            }
        }
        self.message.merge_except(delta, &["role", "tool_calls"]);
        Ok(())
    }

    fn call(&mut self, raw: &RawValue) -> Result<(), Broken> {
        let delta: CallDelta<'_> = serde_json::from_str(raw.get())?;
        let id = delta.id.as_deref().filter(|id| !id.is_empty());
        let names = delta
            .function
            .as_ref()
            .is_some_and(|function| function.text("name").is_some_and(|name| !name.is_empty()));
        let known = match delta.index {
            Some(_) => self.calls.iter().rposition(|call| call.index == delta.index),
            None if names => None,
            None => self.calls.len().checked_sub(1),
        };
        // Some servers give every call of a reply the same index; a new id with a name is a new call.
        let known = known.filter(|known| {
            let same = id.is_none() || self.calls[*known].fields.text("id").as_deref() == id;
            same || !names
        });
        let call = match known {
            Some(known) => &mut self.calls[known],
            None => {
                self.calls.push(Call { index: delta.index, ..Call::default() });
                let Some(call) = self.calls.last_mut() else { return Ok(()) };
                call
            }
        };
        if let Some(id) = id {
            call.fields.set_text("id", id);
        }
        if let Some(function) = delta.function {
            if let Some(more) = function.text("arguments") {
                call.arguments.push_str(&more);
            }
            if let Some(name) = function.text("name").filter(|name| !name.is_empty()) {
                call.function.set_text("name", name);
            }
            call.function.merge_except(function, &["name", "arguments"]);
        }
        let fields: RawObject = serde_json::from_str(raw.get())?;
        if let Some(kind) = fields.text("type") {
            call.fields.set_text("type", kind);
        }
        call.fields.merge_except(fields, &["index", "id", "type", "function"]);
        Ok(())
    }

    fn finish(&mut self) -> Result<ModelReply, Broken> {
        let mut calls = Vec::new();
        for (at, mut call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            let mut id = clean(&call.fields.text("id").unwrap_or_default());
            if id.is_empty() {
                id = format!("call_{at}");
                call.fields.set_text("id", &*id);
            }
            if call.fields.text("type").is_none() {
                call.fields.set_text("type", "function");
            }
            let parsed = arguments(&call.arguments);
            // Some servers parse these, so what is not JSON cannot be sent back.
            let sendable = if parsed.is_ok() && !call.arguments.trim().is_empty() {
                call.arguments
            } else {
                "{}".to_owned()
            };
            calls.push(ToolCall {
                id,
                name: clean(&call.function.text("name").unwrap_or_default()),
                arguments: parsed,
            });
            call.function.set_text("arguments", sendable);
            call.fields.set("function", serde_json::value::to_raw_value(&call.function)?);
            self.message.push("tool_calls", serde_json::value::to_raw_value(&call.fields)?);
        }
        self.message.remove("refusal");
        let stop = match self.finish.as_deref() {
            Some("length") => StopReason::MaxTokens,
            Some("content_filter" | "refusal") => StopReason::Refused,
            _ if calls.is_empty() => StopReason::End,
            _ => StopReason::ToolUse,
        };
        Ok(ModelReply {
            blocks: wrap(&self.id, &self.message)?,
            text: std::mem::take(&mut self.text),
            calls,
            stop,
            usage: self.usage,
        })
    }
}

impl Assemble for Reply {
    fn take(&mut self, event: &Event, out: &mut Out) -> Result<Option<ModelReply>, Broken> {
        if event.data.trim() == "[DONE]" {
            return match self.finish {
                Some(_) => self.finish().map(Some),
                None => Err(Broken::Garbage(serde::de::Error::custom("end marker without a finish reason"))),
            };
        }
        let chunk: Chunk = serde_json::from_str(&event.data)?;
        if let Some(fault) = chunk.error {
            return Err(Broken::Fault(Box::new(fault)));
        }
        if let Some(counts) = chunk.usage {
            let details = counts.prompt_tokens_details.as_ref();
            self.usage = Usage {
                input: counts.prompt_tokens.unwrap_or(self.usage.input).max(0),
                output: counts.completion_tokens.unwrap_or(self.usage.output).max(0),
                cache_read: details.and_then(|details| details.cached_tokens).unwrap_or(0).max(0),
                cache_write: 0,
            };
            out.usage(self.usage);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                self.delta(delta, out)?;
            }
            if self.finish.is_none() {
                self.finish = choice.finish_reason;
            }
        }
        Ok(None)
    }

    /// Some servers leave the `[DONE]` out.
    fn closed(&mut self) -> Option<ModelReply> {
        self.finish.is_some().then(|| self.finish().ok()).flatten()
    }
}
