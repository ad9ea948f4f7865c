//! What the Responses API is sent. It caches beginnings by itself; the key brings requests that begin alike to one machine.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::model::{
    ModelId, ModelMessage, ModelRequest,
    raw::{unwrap, wire_call_id},
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: &'a str,
    input: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    store: bool,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a str>,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
    strict: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Native(Box<RawValue>),
    Message {
        role: &'static str,
        content: &'a str,
    },
    Call {
        #[serde(rename = "type")]
        kind: &'static str,
        call_id: Cow<'a, str>,
        name: &'a str,
        arguments: String,
    },
    Output {
        #[serde(rename = "type")]
        kind: &'static str,
        call_id: Cow<'a, str>,
        output: Cow<'a, str>,
    },
}

/// Models that do not reason refuse the request for their encrypted reasoning.
fn reasons(model: &str) -> bool {
    !model.starts_with("gpt-4")
        && !model.starts_with("gpt-3")
        && !model.starts_with("chatgpt")
        && !model.contains("-chat")
}

/// The request as JSON text.
pub(super) fn body(id: &ModelId, request: &ModelRequest) -> String {
    let mut input = Vec::new();
    for message in &request.messages {
        add(id, message, &mut input);
    }
    let tools = request.tools.iter().map(|tool| Tool {
        kind: "function",
        name: &tool.name,
        description: &tool.description,
        parameters: &tool.input_schema,
        strict: false,
    });
    let body = Body {
        model: &id.name,
        instructions: &request.system,
        input,
        tools: tools.collect(),
        max_output_tokens: request.max_output_tokens,
        include: if reasons(&id.name) { &["reasoning.encrypted_content"] } else { &[] },
        store: false,
        stream: true,
        prompt_cache_key: request.cache_key.as_deref(),
    };
    serde_json::to_string(&body).expect("the body has string keys only")
}

fn add<'a>(id: &ModelId, message: &'a ModelMessage, input: &mut Vec<Item<'a>>) {
    match message {
        ModelMessage::User { text } => input.push(Item::Message { role: "user", content: text }),
        ModelMessage::Assistant { text, calls, native } => {
            let items = unwrap(native.as_ref(), id)
                .and_then(|blocks| serde_json::from_str::<Vec<Box<RawValue>>>(blocks.get()).ok())
                .filter(|items| !items.is_empty());
            if let Some(items) = items {
                input.extend(items.into_iter().filter(|item| replayable(item)).map(Item::Native));
                return;
            }
            if !text.is_empty() {
                input.push(Item::Message { role: "assistant", content: text });
            }
            input.extend(calls.iter().map(|call| Item::Call {
                kind: "function_call",
                call_id: wire_call_id(&call.id),
                name: &call.name,
                arguments: match &call.arguments {
                    Ok(value) => value.to_string(),
                    Err(raw) => raw.clone(),
                },
            }));
        }
        ModelMessage::ToolResults(results) => input.extend(results.iter().map(|result| Item::Output {
            kind: "function_call_output",
            call_id: wire_call_id(&result.call_id),
            output: output(&result.content, result.is_error),
        })),
    }
}

/// A result on a wire that has no field for failure.
pub(in crate::model) fn output(content: &str, is_error: bool) -> Cow<'_, str> {
    if is_error { Cow::Owned(format!("The tool failed: {content}")) } else { Cow::Borrowed(content) }
}

/// Reasoning without its encrypted content is only a reference into a storage that is not used.
fn replayable(item: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Reasoning<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(default)]
        encrypted_content: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str::<Reasoning<'_>>(item.get()) {
        Ok(item) => item.kind != "reasoning" || item.encrypted_content.is_some(),
        Err(_) => false,
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
        let id = ModelId { provider: Provider::OpenAi, name: "gpt-6.1-terra".into() };
        let native = NativeBlocks {
            provider: Provider::OpenAi,
            blocks: concat!(
                r#"{"model":"gpt-6.1-terra","content":[{"type":"reasoning","id":"rs_1","encrypted_content":"x"},"#,
                r#"{"type":"reasoning","id":"rs_2","encrypted_content":null},{"id": "fc", "type":"function_call"}]}"#
            )
            .into(),
        };
        let request = ModelRequest {
            system: "Be brief.".into(),
            messages: vec![
                ModelMessage::User { text: "hi".into() },
                ModelMessage::Assistant { text: "a".into(), calls: vec![], native: Some(native) },
                ModelMessage::Assistant {
                    text: "b".into(),
                    calls: vec![ToolCall {
                        id: "c".into(),
                        name: "t".into(),
                        arguments: Ok(json!({"n": 1})),
                    }],
                    native: None,
                },
                ModelMessage::ToolResults(vec![ToolResult {
                    call_id: "c".into(),
                    content: "no".into(),
                    is_error: true,
                }]),
            ],
            tools: Arc::from([ToolSpec {
                name: "t".into(),
                description: "d".into(),
                input_schema: json!({}),
            }]),
            max_output_tokens: 100,
            cache_key: Some("k".into()),
            lasting_tools: 1,
        };
        assert_eq!(
            body(&id, &request),
            concat!(
                r#"{"model":"gpt-6.1-terra","instructions":"Be brief.","input":[{"role":"user","content":"hi"},"#,
                r#"{"type":"reasoning","id":"rs_1","encrypted_content":"x"},{"id": "fc", "type":"function_call"},"#,
                r#"{"role":"assistant","content":"b"},"#,
                r#"{"type":"function_call","call_id":"c","name":"t","arguments":"{\"n\":1}"},"#,
                r#"{"type":"function_call_output","call_id":"c","output":"The tool failed: no"}],"#,
                r#""tools":[{"type":"function","name":"t","description":"d","parameters":{},"strict":false}],"#,
                r#""max_output_tokens":100,"include":["reasoning.encrypted_content"],"store":false,"stream":true,"prompt_cache_key":"k"}"#
            )
        );
        let plain = ModelId { name: "gpt-4.1".into(), ..id };
        let parsed: Value = serde_json::from_str(&body(&plain, &request)).unwrap();
        assert_eq!(parsed.get("include"), None);
        let unkeyed = body(&plain, &ModelRequest { cache_key: None, ..request });
        assert!(!unkeyed.contains("prompt_cache_key"), "{unkeyed}");
    }
}
