//! Chats. A chat is also a conversation that turns can use, under the same short id. Resolving and archiving are
//! independent of each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    identity::Actor,
    workspace::{Entity, Projection},
};

/// A conversation: what its messages are part of.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// What it is about, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub title: Option<String>,
    /// More about it, as long as need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who takes part, by user id or name; the caller unless given.
    #[serde(default)]
    #[schemars(length(max = 100), inner(length(max = 200)))]
    pub participants: Vec<String>,
    /// Whether it has come to its end.
    #[serde(default)]
    pub resolved: bool,
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

impl Entity for Chat {
    const KIND: &'static str = "chat";
    const PLURAL: &'static str = "chats";
    const ACTIONS: &'static [&'static str] = &["resolve", "reopen"];
    const IS_CONVERSATION: bool = true;

    fn complete(&mut self, actor: &Actor) {
        if self.participants.is_empty() {
            self.participants.push(actor.user.to_string());
        }
    }

    fn projection(&self) -> Projection {
        Projection { archived: self.archived, ..Projection::default() }
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        match (action, self.resolved) {
            ("resolve", true) => return Err("resolved already".to_owned()),
            ("resolve", false) => self.resolved = true,
            (_, true) => self.resolved = false,
            (_, false) => return Err("not resolved".to_owned()),
        }
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

    #[test]
    fn every_action_in_every_state() {
        for (action, resolved, after) in [
            ("resolve", false, Some(true)),
            ("resolve", true, None),
            ("reopen", true, Some(false)),
            ("reopen", false, None),
        ] {
            let mut chat: Chat = serde_json::from_value(json!({"resolved": resolved})).unwrap();
            assert_eq!(chat.act(action).is_ok(), after.is_some(), "{action} {resolved}");
            assert_eq!(chat.resolved, after.unwrap_or(resolved));
        }
    }
}
