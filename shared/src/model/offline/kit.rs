//! The tools on offer, and the calls that connected servers' tools want.

use std::sync::Arc;

use serde_json::{Value, json};

use super::text::Words;
use crate::model::ToolSpec;

/// The tools of a request.
pub(super) struct Kit {
    tools: Arc<[ToolSpec]>,
}

/// What the names of our own tools end in; all others belong to connected servers.
const OWN: [&str; 10] = [
    "_task",
    "_tasks",
    "_note",
    "_notes",
    "_comment",
    "_comments",
    "_chat",
    "_chats",
    "_chat_message",
    "_chat_messages",
];

impl Kit {
    pub(super) fn new(tools: Arc<[ToolSpec]>) -> Self {
        Self { tools }
    }

    /// Whether the tool is on offer.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name == name)
    }

    /// Whether the tool takes this argument.
    pub(super) fn takes(&self, name: &str, argument: &str) -> bool {
        let tool = self.tools.iter().find(|tool| tool.name == name);
        tool.is_some_and(|tool| tool.input_schema["properties"].get(argument).is_some())
    }

    /// A connected server's tool that searches, and its arguments for this text.
    pub(super) fn search(&self, text: &str, place: &str) -> Option<(String, Value)> {
        self.connected(
            &["search", "find", "query"],
            place,
            text,
            &["query", "q", "search", "text", "keyword"],
        )
    }

    /// A connected server's tool that reads one thing, and its arguments for this name or address.
    pub(super) fn read(&self, text: &str, place: &str) -> Option<(String, Value)> {
        let inputs = ["page_id", "id", "url", "uri", "path", "repo", "name", "page", "title", "query"];
        self.connected(&["read", "get", "fetch", "retrieve"], place, text, &inputs)
    }

    fn connected(&self, verbs: &[&str], place: &str, text: &str, inputs: &[&str]) -> Option<(String, Value)> {
        let fits = |tool: &&ToolSpec| {
            let name = tool.name.to_lowercase();
            let parts: Vec<&str> = name.split(['.', '_', '-']).collect();
            !OWN.iter().any(|own| name.ends_with(own))
                && parts.len() > 1
                && verbs.iter().any(|verb| parts.contains(verb))
        };
        let named = |tool: &&ToolSpec| {
            let name = tool.name.to_lowercase();
            Words::new(place).plain().any(|word| name.starts_with(word) && word.len() > 2)
        };
        let mut candidates: Vec<&ToolSpec> = self.tools.iter().filter(fits).collect();
        if !place.is_empty() && candidates.iter().any(named) {
            candidates.retain(named);
        }
        candidates.iter().find_map(|tool| {
            let properties = tool.input_schema["properties"].as_object()?;
            let is_text = |name: &str| properties.get(name).is_some_and(|schema| schema["type"] == "string");
            let known = inputs.iter().copied().find(|name| is_text(name));
            let required = tool.input_schema["required"].as_array().into_iter().flatten();
            let input = known.or_else(|| required.filter_map(Value::as_str).find(|name| is_text(name)))?;
            Some((tool.name.clone(), json!({ input: text })))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit(tools: &[(&str, Value)]) -> Kit {
        let tools = tools.iter().map(|(name, properties)| ToolSpec {
            name: (*name).into(),
            description: String::new(),
            input_schema: json!({"type": "object", "properties": properties}),
        });
        Kit::new(tools.collect())
    }

    #[test]
    fn connected_tools_are_told_from_our_own() {
        let text = json!({"type": "string"});
        let kit = kit(&[
            ("get_note", json!({"id": {"type": "integer"}})),
            ("github.search_code", json!({"q": text})),
            ("notion__search", json!({"query": text, "page_size": {"type": "integer"}})),
            ("notion__get_page", json!({"page_id": text})),
        ]);
        assert_eq!(kit.search("x", "notion"), Some(("notion__search".into(), json!({"query": "x"}))));
        assert_eq!(kit.search("x", "").map(|(name, _)| name), Some("github.search_code".into()));
        assert_eq!(kit.read("p", ""), Some(("notion__get_page".into(), json!({"page_id": "p"}))));
        assert!(kit.takes("notion__search", "query") && !kit.takes("notion__search", "other"));
    }
}
