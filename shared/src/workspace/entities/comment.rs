//! Comments on notes, tasks and chats. A comment belongs to whom its parent belongs to, so that both see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    identity::Actor,
    ids::ItemUid,
    workspace::{Bond, Entity, Parent, ParentRule, Problem, Projection},
};

/// A remark on a note, a task or a chat.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// The remark, Markdown if you like.
    #[schemars(length(min = 1))]
    pub content: String,
    /// What kind of item it is on.
    pub parent_type: ParentType,
    /// The uid of the item that it is on. It cannot be moved to another.
    pub parent_uid: Uuid,
    /// Whose remark it is; the caller's user id unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub author: Option<String>,
    /// Whether it is dealt with.
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

/// What can be commented on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParentType {
    Note,
    Task,
    Chat,
}

impl ParentType {
    fn kind(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Task => "task",
            Self::Chat => "chat",
        }
    }
}

impl Entity for Comment {
    const KIND: &'static str = "comment";
    const PLURAL: &'static str = "comments";
    const ACTIONS: &'static [&'static str] = &["resolve", "reopen"];
    const PARENT: Option<ParentRule> = Some(ParentRule { field: "parentUid", bond: Bond::About });

    fn complete(&mut self, actor: &Actor) {
        self.author.get_or_insert_with(|| actor.user.to_string());
    }

    fn check(&self) -> Result<(), Problem> {
        if self.content.trim().is_empty() {
            return Err(Problem::new("content", "must not be empty"));
        }
        Ok(())
    }

    fn projection(&self) -> Projection {
        Projection {
            parent: Some(Parent { kind: self.parent_type.kind(), uid: ItemUid(self.parent_uid) }),
            archived: self.archived,
            ..Projection::default()
        }
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
            let mut comment: Comment = serde_json::from_value(json!({
                "content": "x", "parentType": "note", "parentUid": Uuid::nil(), "resolved": resolved,
            }))
            .unwrap();
            assert_eq!(comment.act(action).is_ok(), after.is_some(), "{action} {resolved}");
            assert_eq!(comment.resolved, after.unwrap_or(resolved));
        }
    }
}
