//! Messages of chats. Those that a turn wrote are what its model saw; those that people write by hand are read by the
//! next turn, so that nothing may be stored here that a turn could not read back.

use chrono::{DateTime, SubsecRound as _, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    identity::Actor,
    ids::ItemUid,
    workspace::{Bond, Entity, Parent, ParentRule, Problem, Projection},
};

/// The sender of what models say.
const ASSISTANT: &str = "assistant";

/// One message of a chat.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// The uid of the chat that it is part of. It cannot be moved to another.
    pub chat_uid: Uuid,
    /// Who speaks.
    #[serde(default)]
    pub role: Speaker,
    /// The text; a user's message has some.
    #[serde(default)]
    pub content: String,
    /// What a model asked for besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub tool_calls: Vec<MessageToolCall>,
    /// The call that this is the result of, for the role tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub tool_call_id: Option<String>,
    /// Whether that result is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// A user's id, or assistant; the caller, or assistant for that role, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// What the content is; text unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub message_type: Option<String>,
    /// When it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<DateTime<Utc>>,
    /// When it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<DateTime<Utc>>,
    /// Whether lists leave it out.
    #[serde(default)]
    pub archived: bool,
    /// Words to find it by.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(max = 100)))]
    pub tags: Vec<String>,
    /// Fields that are not ours.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    #[default]
    User,
    Assistant,
    Tool,
}

/// A call of a tool that a model asked for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MessageToolCall {
    /// Names the call within the chat.
    #[schemars(length(min = 1, max = 200))]
    pub id: String,
    /// The tool's name.
    #[schemars(length(min = 1, max = 200))]
    pub tool: String,
    /// Its arguments.
    #[serde(default = "no_arguments")]
    #[schemars(extend("type" = ["object", "array", "string", "number", "boolean", "null"]))]
    pub args: Value,
    /// Fields that are not ours.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

fn no_arguments() -> Value {
    Value::Object(Map::new())
}

impl Entity for ChatMessage {
    const KIND: &'static str = "chat_message";
    const PLURAL: &'static str = "chat_messages";
    const ACTIONS: &'static [&'static str] = &["mark_read", "mark_delivered"];
    const PARENT: Option<ParentRule> =
        Some(ParentRule { field: "chatUid", bond: Bond::PartOf { kind: "chat" } });

    fn complete(&mut self, actor: &Actor) {
        self.sender.get_or_insert_with(|| match self.role {
            Speaker::User => actor.user.to_string(),
            Speaker::Assistant | Speaker::Tool => ASSISTANT.to_owned(),
        });
        self.message_type.get_or_insert_with(|| "text".to_owned());
    }

    fn check(&self) -> Result<(), Problem> {
        if self.role == Speaker::User && self.content.trim().is_empty() {
            return Err(Problem::new("content", "must not be empty in a user's message"));
        }
        match self.sender.as_deref() {
            None | Some(ASSISTANT) => Ok(()),
            Some(user) if Uuid::parse_str(user).is_ok() => Ok(()),
            Some(_) => Err(Problem::new("sender", "must be a user's id or assistant")),
        }
    }

    fn projection(&self) -> Projection {
        Projection {
            parent: Some(Parent { kind: "chat", uid: ItemUid(self.chat_uid) }),
            archived: self.archived,
            ..Projection::default()
        }
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        let (mark, word) = match action {
            "mark_read" => (&mut self.read_at, "read"),
            _ => (&mut self.delivered_at, "delivered"),
        };
        if mark.is_some() {
            return Err(format!("{word} already"));
        }
        *mark = Some(Utc::now().trunc_subsecs(3));
        Ok(())
    }

    fn archive(&mut self) {
        self.archived = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::turns::HistoryMessage;

    fn message(more: &Value) -> ChatMessage {
        let mut payload = json!({"chatUid": Uuid::nil(), "content": "x"});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(payload).unwrap()
    }

    #[test]
    fn marks_are_set_once() {
        let mut message = message(&json!({}));
        for _ in 0..2 {
            let first = message.read_at.is_none();
            assert_eq!(message.act("mark_read").is_ok(), first);
            assert_eq!(message.act("mark_delivered").is_ok(), first);
        }
        assert!(message.read_at.is_some() && message.delivered_at.is_some());
    }

    #[test]
    fn senders_are_people_or_the_assistant() {
        for (sender, good) in [("assistant", true), ("ann", false), ("", false)] {
            assert_eq!(message(&json!({"sender": sender})).check().is_ok(), good, "{sender}");
        }
        assert!(message(&json!({"sender": Uuid::nil()})).check().is_ok());
    }

    #[test]
    fn a_turn_reads_every_message_back() {
        let def = crate::workspace::definition("chat_message").unwrap();
        let actor =
            Actor::of_turn(crate::ids::TenantId(Uuid::from_u128(1)), crate::ids::UserId(Uuid::from_u128(2)));
        let mut refused = 0;
        for more in [
            json!({"content": "hello"}),
            json!({"role": "assistant", "toolCalls": [{"id": "c1", "tool": "add_task", "args": {"a": 1}}]}),
            json!({"role": "assistant", "toolCalls": [{"id": "c1", "tool": "add_task", "args": "half"}]}),
            json!({"role": "assistant", "toolCalls": [{"id": "c1", "tool": "add_task", "more": [1]}]}),
            json!({"role": "tool", "toolCallId": "c1", "isError": true, "content": "no"}),
            json!({"role": "assistant", "toolCalls": [{"tool": "add_task"}]}),
            json!({"role": "assistant", "toolCalls": ["add_task"]}),
            json!({"role": "assistant", "toolCalls": {}}),
            json!({"role": "tool", "toolCallId": 7}),
            json!({"role": "tool", "isError": "yes"}),
            json!({"role": "system", "content": "x"}),
            json!({"content": ["x"]}),
        ] {
            let mut payload = more.as_object().unwrap().clone();
            payload.insert("chatUid".to_owned(), json!(Uuid::nil()));
            match def.prepare(payload, &actor) {
                Ok(prepared) => {
                    serde_json::from_str::<HistoryMessage>(&prepared.text).unwrap();
                }
                Err(_) => refused += 1,
            }
        }
        assert_eq!(refused, 7);
    }
}
