//! Puts a Responses reply together. The blocks are the output items exactly as each one was completed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{
    ModelId, ModelReply, StopReason, ToolCall, Usage,
    http::Fault,
    raw::{arguments, clean, wrap},
    sse::Event,
    stream::{Assemble, Broken, Out},
};

#[derive(Deserialize)]
struct Tagged<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct TextDelta<'a> {
    #[serde(borrow)]
    delta: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ItemDone {
    output_index: usize,
    item: Box<RawValue>,
}

#[derive(Deserialize)]
struct Ended {
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    output: Vec<Box<RawValue>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: i64,
    #[serde(default)]
    output_tokens: i64,
    #[serde(default)]
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<i64>,
    #[serde(default)]
    cache_write_tokens: Option<i64>,
}

impl From<&Counts> for Usage {
    fn from(counts: &Counts) -> Self {
        let details = counts.input_tokens_details.as_ref();
        Self {
            input: counts.input_tokens.max(0),
            output: counts.output_tokens.max(0),
            cache_read: details.and_then(|details| details.cached_tokens).unwrap_or(0).max(0),
            cache_write: details.and_then(|details| details.cache_write_tokens).unwrap_or(0).max(0),
        }
    }
}

/// The parts of an item that matter here.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    call_id: Cow<'a, str>,
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow)]
    arguments: Cow<'a, str>,
}

/// A reply in the making.
pub(super) struct Reply {
    id: ModelId,
    items: Vec<(usize, Box<RawValue>)>,
    text: String,
    refused: bool,
}

impl Reply {
    pub(super) fn new(id: ModelId) -> Self {
        Self { id, items: Vec::new(), text: String::new(), refused: false }
    }

    fn finish(&mut self, response: Response, incomplete: bool) -> Result<ModelReply, Broken> {
        let mut items = std::mem::take(&mut self.items);
        items.sort_by_key(|(index, _)| *index);
        let mut content: Vec<Box<RawValue>> = items.into_iter().map(|(_, item)| item).collect();
        if content.is_empty() {
            content = response.output;
        }
        let mut calls = Vec::new();
        for raw in &content {
            let item: Item<'_> = serde_json::from_str(raw.get())?;
            if item.kind == "function_call" {
                calls.push(ToolCall {
                    id: clean(&item.call_id),
                    name: clean(&item.name),
                    arguments: arguments(&item.arguments),
                });
            }
        }
        let reason = response.incomplete_details.and_then(|details| details.reason);
        let stop = match reason.as_deref() {
            Some("content_filter") => StopReason::Refused,
            _ if incomplete => StopReason::MaxTokens,
            _ if self.refused => StopReason::Refused,
            _ if calls.is_empty() => StopReason::End,
            _ => StopReason::ToolUse,
        };
        Ok(ModelReply {
            blocks: wrap(&self.id, &content)?,
            text: std::mem::take(&mut self.text),
            calls,
            stop,
            usage: response.usage.as_ref().map(Usage::from).unwrap_or_default(),
        })
    }
}

impl Assemble for Reply {
    fn take(&mut self, event: &Event, out: &mut Out) -> Result<Option<ModelReply>, Broken> {
        let data = event.data.as_str();
        let kind = serde_json::from_str::<Tagged<'_>>(data)?.kind;
        match &*kind {
            "response.output_text.delta" | "response.refusal.delta" => {
                self.refused |= kind == "response.refusal.delta";
                let text = clean(&serde_json::from_str::<TextDelta<'_>>(data)?.delta);
                self.text.push_str(&text);
                out.text(text);
            }
            "response.output_item.done" => {
                let ItemDone { output_index, item } = serde_json::from_str(data)?;
                self.items.push((output_index, item));
            }
            "response.completed" | "response.incomplete" => {
                let Ended { response } = serde_json::from_str(data)?;
                return self.finish(response, kind == "response.incomplete").map(Some);
            }
            "response.failed" => {
                let Ended { response } = serde_json::from_str(data)?;
                if let Some(counts) = &response.usage {
                    out.usage(counts.into());
                }
                return Err(Broken::Fault(Box::new(response.error.unwrap_or_default())));
            }
            "error" => return Err(Broken::Fault(Box::new(Fault::of_event(data)))),
            // Progress of items whose end is awaited, and what a later API may add.
            _ => {}
        }
        Ok(None)
    }
}
