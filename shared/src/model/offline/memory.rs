//! What the conversation has shown so far: the things its tool results told of, the list that the user last saw, and
//! the thing that "it" means. All of it is read from the messages.

use std::collections::HashMap;

use serde::Deserialize;

use super::target::Kind;
use crate::model::{ModelMessage, ToolCall, ToolResult};

/// A task or a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) id: i64,
    pub(super) title: String,
    /// A note's text.
    pub(super) content: String,
    pub(super) done: bool,
    pub(super) due: Option<String>,
}

#[derive(Deserialize)]
struct WireItem {
    id: i64,
    payload: WirePayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePayload {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    due_date: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireList {
    items: Vec<WireItem>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Item {
    /// One that is only known by its number.
    pub(super) fn numbered(kind: Kind, id: i64) -> Self {
        Self { kind, id, title: String::new(), content: String::new(), done: false, due: None }
    }

    fn from_wire(kind: Kind, wire: WireItem) -> Self {
        let payload = wire.payload;
        let content = payload.content.unwrap_or_default();
        let title = payload
            .title
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| content.lines().next().unwrap_or_default().chars().take(60).collect());
        let done = matches!(payload.status.as_deref(), Some("done" | "archived"));
        Self { kind, id: wire.id, title, content, done, due: payload.due_date }
    }
}

/// A list result: its items by number, oldest first, and whether there are more.
pub(super) fn list(kind: Kind, content: &str) -> Option<(Vec<Item>, bool)> {
    let wire: WireList = serde_json::from_str(content).ok()?;
    let more = wire.next_cursor.is_some();
    let mut items: Vec<Item> = wire.items.into_iter().map(|item| Item::from_wire(kind, item)).collect();
    items.sort_by_key(|item| item.id);
    Some((items, more))
}

/// The item that a result tells of.
pub(super) fn single(kind: Kind, content: &str) -> Option<Item> {
    serde_json::from_str(content).ok().map(|wire| Item::from_wire(kind, wire))
}

/// What a tool of this name is about.
fn kind_of(tool: &str) -> Option<Kind> {
    if tool.ends_with("_task") || tool.ends_with("_tasks") {
        Some(Kind::Task)
    } else if tool.ends_with("_note") || tool.ends_with("_notes") {
        Some(Kind::Note)
    } else {
        None
    }
}

/// What is known before the message at hand.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: HashMap<(Kind, i64), Item>,
    /// The list that the user saw last.
    pub(super) shown: Vec<Item>,
    /// What "it" means.
    pub(super) last: Option<Item>,
    /// The message that was answered with "which one?".
    pub(super) question: Option<String>,
}

/// How a question back begins.
pub(super) const WHICH: &str = "Which one do you mean";

impl Memory {
    pub(super) fn read(history: &[ModelMessage]) -> Self {
        let mut memory = Self::default();
        let mut calls: HashMap<&str, &ToolCall> = HashMap::new();
        let mut asked = "";
        let mut kind = Kind::Task;
        for message in history {
            match message {
                ModelMessage::User { text } => asked = text,
                ModelMessage::Assistant { text, calls: made, .. } => {
                    calls.extend(made.iter().map(|call| (call.id.as_str(), call)));
                    if made.is_empty() {
                        memory.hear(text, kind);
                        memory.question = text.starts_with(WHICH).then(|| asked.to_owned());
                    }
                }
                ModelMessage::ToolResults(results) => {
                    for result in results {
                        if let Some(call) = calls.get(result.call_id.as_str())
                            && let Some(about) = kind_of(&call.name)
                        {
                            kind = about;
                            memory.learn(about, call, result);
                        }
                    }
                }
            }
        }
        memory
    }

    fn learn(&mut self, kind: Kind, call: &ToolCall, result: &ToolResult) {
        if result.is_error {
            return;
        }
        if let Some((items, _)) = list(kind, &result.content) {
            self.known.extend(items.iter().map(|item| ((kind, item.id), item.clone())));
            if call.name.starts_with("list_") {
                self.shown = items;
            }
        } else if let Some(item) = single(kind, &result.content) {
            self.known.insert((kind, item.id), item.clone());
            self.last = Some(item);
        }
    }

    /// What the user was shown counts more than what was looked up on the way: numbers as the replies write them,
    /// `(#12`. Numbered lines are a list; the last thing named outside of them is "it".
    fn hear(&mut self, text: &str, kind: Kind) {
        let (mut listed, mut named) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let numbered = rest.len() < line.len() && rest.starts_with(". ");
            let items = line.split("(#").skip(1).filter_map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse().ok().map(|id| self.known(kind, id))
            });
            if numbered { &mut listed } else { &mut named }.extend(items);
        }
        if let Some(last) = named.last().or(if listed.len() == 1 { listed.first() } else { None }) {
            self.last = Some(last.clone());
        }
        if !listed.is_empty() {
            self.shown = listed;
        } else if named.len() > 1 {
            self.shown = named;
        }
    }

    /// What is known of the item of that number.
    pub(super) fn known(&self, kind: Kind, id: i64) -> Item {
        self.known.get(&(kind, id)).cloned().unwrap_or_else(|| Item::numbered(kind, id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results(name: &str, content: &serde_json::Value) -> [ModelMessage; 2] {
        let call = ToolCall { id: name.into(), name: name.into(), arguments: Ok(json!({})) };
        let result = ToolResult { call_id: name.into(), content: content.to_string(), is_error: false };
        [
            ModelMessage::Assistant { text: String::new(), calls: vec![call], native: None },
            ModelMessage::ToolResults(vec![result]),
        ]
    }

    fn said(text: &str) -> ModelMessage {
        ModelMessage::Assistant { text: text.into(), calls: vec![], native: None }
    }

    #[test]
    fn what_was_shown_is_remembered() {
        let task = |id: i64, title: &str| json!({"id": id, "payload": {"title": title, "status": "todo"}});
        let mut history = vec![ModelMessage::User { text: "list".into() }];
        history.extend(results(
            "list_tasks",
            &json!({"items": [task(9, "Bread"), task(7, "Milk"), task(8, "Eggs")]}),
        ));
        let memory = Memory::read(&history);
        assert_eq!(memory.shown.iter().map(|item| item.id).collect::<Vec<_>>(), [7, 8, 9]);
        history.push(said("You have 2 open tasks:\n1. Milk (#7)\n2. Bread (#9, due 2026-11-07)"));
        let memory = Memory::read(&history);
        assert_eq!(
            memory.shown.iter().map(|item| item.title.as_str()).collect::<Vec<_>>(),
            ["Milk", "Bread"]
        );
        history.extend(results("complete_task", &task(8, "Eggs")));
        history.push(said("Done: \"Eggs\" (#8)."));
        let memory = Memory::read(&history);
        assert_eq!((memory.last.unwrap().title.as_str(), memory.shown.len()), ("Eggs", 2));
        assert_eq!(memory.question, None);
        history.push(ModelMessage::User { text: "delete the milk task".into() });
        history.push(said("Which one do you mean: 1. Milk (#7) or 2. Bread (#9)?"));
        assert_eq!(Memory::read(&history).question.as_deref(), Some("delete the milk task"));
    }
}
