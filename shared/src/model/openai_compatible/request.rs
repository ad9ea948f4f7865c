//! What a chat-completions server is sent.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::model::{ModelId, ModelMessage, ModelRequest, openai::output, raw::unwrap};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    max_tokens: u32,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Message<'a> {
    Native(Box<RawValue>),
    Text { role: &'static str, content: &'a str },
    Calls { role: &'static str, content: Option<&'a str>, tool_calls: Vec<Call<'a>> },
    Result { role: &'static str, tool_call_id: &'a str, content: Cow<'a, str> },
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: String,
}

/// The request as JSON text.
pub(super) fn body(id: &ModelId, request: &ModelRequest) -> String {
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(Message::Text { role: "system", content: &request.system });
    }
    for message in &request.messages {
        add(id, message, &mut messages);
    }
    let tools = request.tools.iter().map(|tool| Tool {
        kind: "function",
        function: Function {
            name: &tool.name,
            description: &tool.description,
            parameters: &tool.input_schema,
        },
    });
    let body = Body {
        model: &id.name,
        messages,
        tools: tools.collect(),
        max_tokens: request.max_output_tokens,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
    };
    serde_json::to_string(&body).expect("the body has string keys only")
}

fn add<'a>(id: &ModelId, message: &'a ModelMessage, messages: &mut Vec<Message<'a>>) {
    match message {
        ModelMessage::User { text } => messages.push(Message::Text { role: "user", content: text }),
        ModelMessage::Assistant { text, calls, native } => {
            if let Some(message) = unwrap(native.as_ref(), id) {
                messages.push(Message::Native(message));
            } else if !calls.is_empty() {
                let tool_calls = calls.iter().map(|call| Call {
                    id: &call.id,
                    kind: "function",
                    function: CalledFunction {
                        name: &call.name,
                        // Some servers parse these, so what is not JSON cannot be sent back.
                        arguments: match &call.arguments {
                            Ok(value) => value.to_string(),
                            Err(_) => "{}".to_owned(),
                        },
                    },
                });
                messages.push(Message::Calls {
                    role: "assistant",
                    content: (!text.is_empty()).then_some(text),
                    tool_calls: tool_calls.collect(),
                });
            } else if !text.is_empty() {
                messages.push(Message::Text { role: "assistant", content: text });
            }
        }
        ModelMessage::ToolResults(results) => {
            messages.extend(results.iter().map(|result| Message::Result {
                role: "tool",
                tool_call_id: &result.call_id,
                content: output(&result.content, result.is_error),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::{NativeBlocks, Provider, ToolCall, ToolResult, ToolSpec};

    #[test]
    fn a_whole_conversation() {
        let id = ModelId { provider: Provider::OpenAiCompatible, name: "m".into() };
        let native = NativeBlocks {
            provider: Provider::OpenAiCompatible,
            blocks: r#"{"model":"m","content":{"role":"assistant", "z":1}}"#.into(),
        };
        let request = ModelRequest {
            system: "Be brief.".into(),
            messages: vec![
                ModelMessage::User { text: "hi".into() },
                ModelMessage::Assistant { text: "a".into(), calls: vec![], native: Some(native) },
                ModelMessage::Assistant {
                    text: String::new(),
                    calls: vec![ToolCall { id: "f:0".into(), name: "t".into(), arguments: Err("{".into()) }],
                    native: None,
                },
                ModelMessage::ToolResults(vec![ToolResult {
                    call_id: "f:0".into(),
                    content: "ok".into(),
                    is_error: false,
                }]),
            ],
            tools: Arc::from([ToolSpec {
                name: "t".into(),
                description: "d".into(),
                input_schema: json!({}),
            }]),
            max_output_tokens: 100,
            // Servers of this kind refuse members that they do not know.
            cache_key: Some("k".into()),
            lasting_tools: 1,
        };
        assert_eq!(
            body(&id, &request),
            concat!(
                r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"},"#,
                r#"{"role":"assistant", "z":1},{"role":"assistant","content":null,"tool_calls":[{"id":"f:0","#,
                r#""type":"function","function":{"name":"t","arguments":"{}"}}]},"#,
                r#"{"role":"tool","tool_call_id":"f:0","content":"ok"}],"#,
                r#""tools":[{"type":"function","function":{"name":"t","description":"d","parameters":{}}}],"#,
                r#""max_tokens":100,"stream":true,"stream_options":{"include_usage":true}}"#
            )
        );
    }
}
