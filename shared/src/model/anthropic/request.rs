//! What the Messages API is sent. Cache breakpoints stand after the tools, the system prompt and the last message of
//! the user's side, so that each step of a turn reads everything before it from the provider's cache.

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::model::{
    ModelId, ModelMessage, ModelRequest,
    raw::{unwrap, wire_call_id},
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    messages: Vec<Message<'a>>,
    stream: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Native(Box<RawValue>),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
struct Block<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind<'a> {
    Text {
        text: &'a str,
    },
    ToolUse {
        id: String,
        name: &'a str,
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "ephemeral")]
struct CacheControl {}

impl<'a> From<Kind<'a>> for Block<'a> {
    fn from(kind: Kind<'a>) -> Self {
        Self { kind, cache_control: None }
    }
}

fn mark(last: Option<&mut Block<'_>>) {
    if let Some(block) = last {
        block.cache_control = Some(CacheControl {});
    }
}

/// The request as JSON text.
pub(super) fn body(id: &ModelId, request: &ModelRequest) -> String {
    let mut tools: Vec<Tool<'_>> = request
        .tools
        .iter()
        .map(|tool| Tool {
            name: &tool.name,
            description: &tool.description,
            input_schema: &tool.input_schema,
            cache_control: None,
        })
        .collect();
    if let Some(tool) = tools.last_mut() {
        tool.cache_control = Some(CacheControl {});
    }
    let mut system: Vec<Block<'_>> = text(&request.system).map(Block::from).into_iter().collect();
    mark(system.last_mut());
    let mut messages: Vec<Message<'_>> =
        request.messages.iter().filter_map(|message| self::message(id, message)).collect();
    if let Some(Message { role: "user", content: Content::Blocks(blocks) }) = messages.last_mut() {
        mark(blocks.last_mut());
    }
    let body = Body {
        model: &id.name,
        max_tokens: request.max_output_tokens,
        tools,
        system,
        messages,
        stream: true,
    };
    serde_json::to_string(&body).expect("the body has string keys only")
}

/// The API refuses blank text blocks, so there are none.
fn text(text: &str) -> Option<Kind<'_>> {
    (!text.trim().is_empty()).then_some(Kind::Text { text })
}

fn message<'a>(id: &ModelId, message: &'a ModelMessage) -> Option<Message<'a>> {
    let (role, blocks): (_, Vec<Block<'a>>) = match message {
        ModelMessage::User { text } => ("user", self::text(text).map(Block::from).into_iter().collect()),
        ModelMessage::Assistant { text, calls, native } => {
            if let Some(blocks) = unwrap(native.as_ref(), id).filter(|blocks| blocks.get() != "[]") {
                return Some(Message { role: "assistant", content: Content::Native(blocks) });
            }
            let calls = calls.iter().map(|call| Kind::ToolUse {
                id: wire_call_id(&call.id).into_owned(),
                name: &call.name,
                input: call.arguments.clone().unwrap_or_else(|_| json!({})),
            });
            ("assistant", self::text(text).into_iter().chain(calls).map(Block::from).collect())
        }
        ModelMessage::ToolResults(results) => (
            "user",
            results
                .iter()
                .map(|result| {
                    Block::from(Kind::ToolResult {
                        tool_use_id: wire_call_id(&result.call_id).into_owned(),
                        content: &result.content,
                        is_error: result.is_error,
                    })
                })
                .collect(),
        ),
    };
    (!blocks.is_empty()).then_some(Message { role, content: Content::Blocks(blocks) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{NativeBlocks, Provider, ToolCall, ToolResult, ToolSpec};

    #[test]
    fn a_whole_conversation() {
        let id = ModelId { provider: Provider::Anthropic, name: "m".into() };
        let call =
            |id: &str| ToolCall { id: id.into(), name: "add_task".into(), arguments: Ok(json!({"t": 1})) };
        let native = NativeBlocks {
            provider: Provider::Anthropic,
            blocks: r#"{"model":"m","content":[{"z":1, "type":"x"}]}"#.into(),
        };
        let request = ModelRequest {
            system: "Be brief.".into(),
            messages: vec![
                ModelMessage::User { text: "hi".into() },
                ModelMessage::Assistant { text: "a".into(), calls: vec![], native: Some(native) },
                ModelMessage::Assistant { text: " ".into(), calls: vec![call("c:1")], native: None },
                ModelMessage::ToolResults(vec![ToolResult {
                    call_id: "c:1".into(),
                    content: "no".into(),
                    is_error: true,
                }]),
            ],
            tools: Arc::from([ToolSpec {
                name: "add_task".into(),
                description: "Adds".into(),
                input_schema: json!({"type": "object"}),
            }]),
            max_output_tokens: 100,
        };
        assert_eq!(
            body(&id, &request),
            concat!(
                r#"{"model":"m","max_tokens":100,"tools":[{"name":"add_task","description":"Adds","#,
                r#""input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],"#,
                r#""system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"#,
                r#""messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},"#,
                r#"{"role":"assistant","content":[{"z":1, "type":"x"}]},"#,
                r#"{"role":"assistant","content":[{"type":"tool_use","id":"c_1","name":"add_task","input":{"t":1}}]},"#,
                r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"c_1","content":"no","is_error":true,"#,
                r#""cache_control":{"type":"ephemeral"}}]}],"stream":true}"#
            )
        );
        let parsed: Value = serde_json::from_str(&body(&id, &request)).unwrap();
        assert_eq!(parsed["stream"], true);
    }
}
