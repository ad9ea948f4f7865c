//! Puts a Messages reply together from its events. Blocks are kept with every field in order, so that thinking
//! signatures and whatever comes next replay unchanged; only blank text blocks are left out, which the API refuses
//! to read back.

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

/// What an event or a delta is; the rest is read once this is known (a tagged enum would lose the raw bytes).
#[derive(Deserialize)]
struct Tagged<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: Started,
}

#[derive(Deserialize)]
struct BlockStart {
    index: usize,
    content_block: RawObject,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    index: usize,
    #[serde(borrow)]
    delta: &'a RawValue,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Stopped,
    #[serde(default)]
    usage: Counts,
}

#[derive(Deserialize)]
struct Failed {
    error: Fault,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default)]
    usage: Counts,
}

#[derive(Deserialize)]
struct Stopped {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Numbers are cumulative; those that are missing have not changed.
#[derive(Deserialize, Default)]
struct Counts {
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_input_tokens: Option<i64>,
    cache_creation_input_tokens: Option<i64>,
}

#[derive(Deserialize)]
struct TextDelta<'a> {
    #[serde(borrow, alias = "thinking", alias = "signature", alias = "partial_json")]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct CitationsDelta {
    citation: Box<RawValue>,
}

struct Block {
    index: usize,
    fields: RawObject,
    /// The arguments so far, when it is a tool call.
    input: String,
}

/// A reply in the making.
pub(super) struct Reply {
    id: ModelId,
    blocks: Vec<Block>,
    text: String,
    counts: Counts,
    stop: Option<String>,
}

impl Reply {
    pub(super) fn new(id: ModelId) -> Self {
        Self { id, blocks: Vec::new(), text: String::new(), counts: Counts::default(), stop: None }
    }

    fn count(&mut self, new: &Counts, out: &mut Out) {
        let counts = &mut self.counts;
        counts.input_tokens = new.input_tokens.or(counts.input_tokens);
        counts.output_tokens = new.output_tokens.or(counts.output_tokens);
        counts.cache_read_input_tokens = new.cache_read_input_tokens.or(counts.cache_read_input_tokens);
        counts.cache_creation_input_tokens =
            new.cache_creation_input_tokens.or(counts.cache_creation_input_tokens);
        out.usage(self.usage());
    }

    fn usage(&self) -> Usage {
        let number = |count: Option<i64>| count.unwrap_or(0).max(0);
        let cache_read = number(self.counts.cache_read_input_tokens);
        let cache_write = number(self.counts.cache_creation_input_tokens);
        Usage {
            // The API counts only what it neither read from nor wrote to the cache.
            input: number(self.counts.input_tokens) + cache_read + cache_write,
            output: number(self.counts.output_tokens),
            cache_read,
            cache_write,
        }
    }

    fn show(&mut self, text: &str, out: &mut Out) {
        let text = clean(text);
        self.text.push_str(&text);
        out.text(text);
    }

    fn delta(&mut self, index: usize, raw: &RawValue, out: &mut Out) -> Result<(), Broken> {
        let Some(block) = self.blocks.iter_mut().find(|block| block.index == index) else {
            return Err(Broken::Garbage(serde::de::Error::custom("delta of a block that was not begun")));
        };
        let raw = raw.get();
        let kind = serde_json::from_str::<Tagged<'_>>(raw)?.kind;
        let text = || serde_json::from_str::<TextDelta<'_>>(raw).map(|delta| delta.text);
        match &*kind {
            "text_delta" => {
                let text = text()?;
                block.fields.append("text", &text);
                self.show(&text, out);
            }
            "thinking_delta" => block.fields.append("thinking", &text()?),
            "signature_delta" => block.fields.set_text("signature", text()?),
            "input_json_delta" => block.input.push_str(&text()?),
            "citations_delta" => {
                block.fields.push("citations", serde_json::from_str::<CitationsDelta>(raw)?.citation);
            }
            _ => block.fields.merge_except(serde_json::from_str(raw)?, &["type"]),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ModelReply, Broken> {
        let mut calls = Vec::new();
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.sort_by_key(|block| block.index);
        for block in &mut blocks {
            if block.fields.text("type").as_deref() != Some("tool_use") {
                continue;
            }
            let parsed = match block.input.as_str() {
                "" => arguments(block.fields.raw("input").map_or("", RawValue::get)),
                input => arguments(input),
            };
            if parsed.is_ok()
                && !block.input.is_empty()
                && let Ok(raw) = RawValue::from_string(block.input.trim().to_owned())
            {
                block.fields.set("input", raw);
            }
            calls.push(ToolCall {
                id: clean(&block.fields.text("id").unwrap_or_default()),
                name: clean(&block.fields.text("name").unwrap_or_default()),
                arguments: parsed,
            });
        }
        let content: Vec<RawObject> = blocks
            .into_iter()
            .map(|block| block.fields)
            .filter(|fields| {
                fields.text("type").as_deref() != Some("text")
                    || fields.text("text").is_some_and(|text| !text.trim().is_empty())
            })
            .collect();
        let stop = match self.stop.as_deref() {
            Some("tool_use") => StopReason::ToolUse,
            Some("max_tokens" | "model_context_window_exceeded") => StopReason::MaxTokens,
            Some("refusal") => StopReason::Refused,
            None if !calls.is_empty() => StopReason::ToolUse,
            _ => StopReason::End,
        };
        Ok(ModelReply {
            blocks: wrap(&self.id, &content)?,
            text: std::mem::take(&mut self.text),
            calls,
            stop,
            usage: self.usage(),
        })
    }
}

impl Assemble for Reply {
    fn take(&mut self, event: &Event, out: &mut Out) -> Result<Option<ModelReply>, Broken> {
        let data = event.data.as_str();
        let kind = serde_json::from_str::<Tagged<'_>>(data)?.kind;
        match &*kind {
            "message_start" => {
                let start: MessageStart = serde_json::from_str(data)?;
                self.count(&start.message.usage, out);
            }
            "content_block_start" => {
                let start: BlockStart = serde_json::from_str(data)?;
                let text = match start.content_block.text("type").as_deref() {
                    Some("text") => start.content_block.text("text").map(Cow::into_owned),
                    _ => None,
                };
                self.blocks.push(Block {
                    index: start.index,
                    fields: start.content_block,
                    input: String::new(),
                });
                self.show(&text.unwrap_or_default(), out);
            }
            "content_block_delta" => {
                let BlockDelta { index, delta } = serde_json::from_str(data)?;
                self.delta(index, delta, out)?;
            }
            "message_delta" => {
                let MessageDelta { delta, usage } = serde_json::from_str(data)?;
                self.stop = delta.stop_reason.or(self.stop.take());
                self.count(&usage, out);
            }
            "message_stop" => return self.finish().map(Some),
            "error" => {
                let Failed { error } = serde_json::from_str(data)?;
                return Err(Broken::Fault(Box::new(error)));
            }
            // Pings, block ends, and what a later API may add.
            _ => {}
        }
        Ok(None)
    }
}
