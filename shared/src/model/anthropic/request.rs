//! What the Messages API is sent. Cache breakpoints, of which there may be four, stand after the tools that last, the
//! system prompt and the last two messages of the user's side. The newest has everything written to the provider's cache;
//! the one before it is where the last request ended, and makes sure that it is found there: by itself the provider looks
//! only twenty blocks back, and one step of many tool calls is longer than that.

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
    let mut system: Vec<Block<'_>> = text(&request.system).map(Block::from).into_iter().collect();
    let mut messages: Vec<Message<'_>> =
        request.messages.iter().filter_map(|message| self::message(id, message)).collect();
    if request.cache_key.is_some() {
        let lasting = request.lasting_tools.min(tools.len());
        if let Some(tool) = lasting.checked_sub(1).and_then(|last| tools.get_mut(last)) {
            tool.cache_control = Some(CacheControl {});
        }
        mark(system.last_mut());
        let from_user = messages.iter_mut().rev().filter_map(|message| match message {
            Message { role: "user", content: Content::Blocks(blocks) } => Some(blocks),
            _ => None,
        });
        from_user.take(2).for_each(|blocks| mark(blocks.last_mut()));
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
            cache_key: Some("k".into()),
            lasting_tools: 1,
        };
        assert_eq!(
            body(&id, &request),
            concat!(
                r#"{"model":"m","max_tokens":100,"tools":[{"name":"add_task","description":"Adds","#,
                r#""input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],"#,
                r#""system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"#,
                r#""messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},"#,
                r#"{"role":"assistant","content":[{"z":1, "type":"x"}]},"#,
                r#"{"role":"assistant","content":[{"type":"tool_use","id":"c_1","name":"add_task","input":{"t":1}}]},"#,
                r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"c_1","content":"no","is_error":true,"#,
                r#""cache_control":{"type":"ephemeral"}}]}],"stream":true}"#
            )
        );
        let parsed: Value = serde_json::from_str(&body(&id, &request)).unwrap();
        assert_eq!(parsed["stream"], true);
        let unmarked = body(&id, &ModelRequest { cache_key: None, ..request });
        assert!(!unmarked.contains("cache_control"), "{unmarked}");
    }

    #[test]
    fn breakpoints_stand_where_requests_begin_alike() {
        let id = ModelId { provider: Provider::Anthropic, name: "m".into() };
        let tool =
            |name: &str| ToolSpec { name: name.into(), description: String::new(), input_schema: json!({}) };
        let said = |text: &str| ModelMessage::User { text: text.into() };
        let answered =
            |text: &str| ModelMessage::Assistant { text: text.into(), calls: vec![], native: None };
        let mut request = ModelRequest {
            system: "s".into(),
            messages: vec![said("one"), answered("1"), said("two"), answered("2"), said("three")],
            tools: Arc::from([tool("lasting"), tool("found")]),
            max_output_tokens: 1,
            cache_key: Some("k".into()),
            lasting_tools: 1,
        };
        let marked = |request: &ModelRequest| -> Vec<String> {
            let body: Value = serde_json::from_str(&body(&id, request)).unwrap();
            let messages = body["messages"].as_array().unwrap().iter();
            let blocks = messages.flat_map(|message| message["content"].as_array().unwrap());
            let all = body["tools"]
                .as_array()
                .unwrap()
                .iter()
                .chain(body["system"].as_array().unwrap())
                .chain(blocks);
            let marked = all.filter(|block| block.get("cache_control").is_some());
            marked
                .map(|block| block["name"].as_str().or(block["text"].as_str()).unwrap().to_owned())
                .collect()
        };
        assert_eq!(marked(&request), ["lasting", "s", "two", "three"]);
        request.messages.truncate(1);
        request.lasting_tools = 0;
        assert_eq!(marked(&request), ["s", "one"]);
    }
}
