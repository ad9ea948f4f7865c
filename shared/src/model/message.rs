//! What a model is sent: the conversation in a form that no provider owns, beside the provider's own blocks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::Provider;

/// One request for a reply.
#[derive(Debug, Clone, Default)]
pub struct ModelRequest {
    /// The system prompt; empty means none.
    pub system: String,
    /// The conversation, oldest first.
    pub messages: Vec<ModelMessage>,
    /// The tools on offer, in a stable order: providers cache the prompt by its prefix.
    pub tools: Arc<[ToolSpec]>,
    /// The most tokens the reply may have.
    pub max_output_tokens: u32,
    /// Requests of one key begin alike, and the provider is asked to keep that in its prompt cache; none: it is not.
    pub cache_key: Option<String>,
    /// So many of the tools, at the front, are the same in every request of that key.
    pub lasting_tools: usize,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelMessage {
    /// What the user wrote.
    User {
        /// The text.
        text: String,
    },
    /// What a model answered.
    Assistant {
        /// The text for the user.
        text: String,
        /// The calls it made.
        calls: Vec<ToolCall>,
        /// The provider's own form of the same, replayed verbatim to the same provider.
        native: Option<NativeBlocks>,
    },
    /// The results of the calls of the assistant message before.
    ToolResults(Vec<ToolResult>),
}

/// A reply in the words of the provider that made it. Another provider is sent text and calls instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeBlocks {
    /// Who made it.
    pub provider: Provider,
    /// [`super::ModelReply::blocks`].
    pub blocks: String,
}

/// A tool call of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredCall", into = "StoredCall")]
pub struct ToolCall {
    /// The provider's id of the call.
    pub id: String,
    /// The tool's name as it went over the wire.
    pub name: String,
    /// The arguments, or the raw text when it is not JSON.
    pub arguments: Result<Value, String>,
}

/// How a call is stored: `arguments`, or `malformed` with the raw text.
#[derive(Serialize, Deserialize)]
struct StoredCall {
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
}

impl From<ToolCall> for StoredCall {
    fn from(call: ToolCall) -> Self {
        let (arguments, malformed) = match call.arguments {
            Ok(value) => (Some(value), None),
            Err(raw) => (None, Some(raw)),
        };
        Self { id: call.id, name: call.name, arguments, malformed }
    }
}

impl From<StoredCall> for ToolCall {
    fn from(stored: StoredCall) -> Self {
        let arguments = match stored.malformed {
            Some(raw) => Err(raw),
            None => Ok(stored.arguments.unwrap_or(Value::Null)),
        };
        Self { id: stored.id, name: stored.name, arguments }
    }
}

/// The result of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// [`ToolCall::id`].
    pub call_id: String,
    /// The result as text, mostly JSON.
    pub content: String,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// A tool on offer.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// The name as it goes over the wire: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub input_schema: Value,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_store_and_load() {
        for (arguments, stored) in [
            (
                Ok(json!({"title": "milk"})),
                json!({"id": "1", "name": "add_task", "arguments": {"title": "milk"}}),
            ),
            (Err("{\"ti".to_owned()), json!({"id": "1", "name": "add_task", "malformed": "{\"ti"})),
        ] {
            let call = ToolCall { id: "1".into(), name: "add_task".into(), arguments };
            assert_eq!(serde_json::to_value(&call).unwrap(), stored);
            assert_eq!(serde_json::from_value::<ToolCall>(stored).unwrap(), call);
        }
    }
}
