//! Tools on demand [M6]: with many tools a model is offered a few, and `search_tools` to find the others.
//!
//! What a search found is offered from then on, and so is every tool that the conversation has called. Both are read from
//! the messages, which are the journal's, so a worker that takes the turn over offers the same.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::model::{ModelMessage, ToolSpec};

/// The tool's name.
pub(super) const SEARCH_TOOLS: &str = "search_tools";
/// Tools that one search finds at most.
const MOST: usize = 8;

/// The tools of a request.
pub(super) struct Offer {
    pub(super) tools: Arc<[ToolSpec]>,
    /// So many at the front are the same in every request of the conversation.
    pub(super) lasting: usize,
}

/// What is offered of `all`, which is in a stable order.
pub(super) fn offer(all: Arc<[ToolSpec]>, messages: &[ModelMessage], above: usize) -> Offer {
    if all.len() <= above {
        return Offer { lasting: all.len(), tools: all };
    }
    let mut tools: Vec<ToolSpec> =
        all.iter().filter(|tool| is_own(&tool.name)).take(above).cloned().collect();
    tools.push(search_tools());
    let lasting = tools.len();
    let mut offered: BTreeSet<String> = tools.iter().map(|tool| tool.name.clone()).collect();
    for name in wanted(messages) {
        if let Some(tool) = all.iter().find(|tool| tool.name == name)
            && offered.insert(name)
        {
            tools.push(tool.clone());
        }
    }
    Offer { tools: tools.into(), lasting }
}

/// Whether a tool is the workspace's own; those of servers have the server's name in front.
fn is_own(wire_name: &str) -> bool {
    !wire_name.contains("__")
}

/// Names that the conversation called or a search found, in the order in which it did.
fn wanted(messages: &[ModelMessage]) -> Vec<String> {
    let mut names = Vec::new();
    let mut searches: Vec<&str> = Vec::new();
    for message in messages {
        match message {
            ModelMessage::Assistant { calls, .. } => {
                searches = calls
                    .iter()
                    .filter(|call| call.name == SEARCH_TOOLS)
                    .map(|call| call.id.as_str())
                    .collect();
                names.extend(calls.iter().map(|call| call.name.clone()));
            }
            ModelMessage::ToolResults(results) => {
                for result in results.iter().filter(|result| searches.contains(&result.call_id.as_str())) {
                    if let Ok(found) = serde_json::from_str::<Found>(&result.content) {
                        names.extend(found.tools.into_iter().map(|tool| tool.name));
                    }
                }
            }
            ModelMessage::User { .. } => {}
        }
    }
    names
}

#[derive(Serialize, Deserialize)]
struct Found {
    tools: Vec<FoundTool>,
    #[serde(default)]
    note: String,
}

#[derive(Serialize, Deserialize)]
struct FoundTool {
    name: String,
    description: String,
}

fn search_tools() -> ToolSpec {
    ToolSpec {
        name: SEARCH_TOOLS.to_owned(),
        description: "Finds tools of connected servers by what they do. There are many more tools than are listed here: \
                      search before you say that something cannot be done. What is found can be called in the next step."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What the tool should do, in a few words, with the service's name if there is one."}},
            "required": ["query"],
            "additionalProperties": false,
        }),
    }
}

/// What a search answers.
pub(super) fn search(all: &[ToolSpec], arguments: Option<&Value>) -> Result<String, String> {
    let Some(query) =
        arguments.and_then(|arguments| arguments["query"].as_str()).filter(|query| !query.trim().is_empty())
    else {
        return Err("search_tools takes {\"query\": what the tool should do}".to_owned());
    };
    let wanted = words(query);
    let mut scored: Vec<(usize, &ToolSpec)> =
        all.iter().filter(|tool| !is_own(&tool.name)).map(|tool| (score(&wanted, tool), tool)).collect();
    scored.retain(|(score, _)| *score > 0);
    // By score; of those that are alike the first in the stable order.
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let tools: Vec<FoundTool> = scored
        .into_iter()
        .take(MOST)
        .map(|(_, tool)| FoundTool {
            name: tool.name.clone(),
            description: tool.description.chars().take(200).collect(),
        })
        .collect();
    let note = if tools.is_empty() {
        let servers: BTreeSet<&str> =
            all.iter().filter_map(|tool| Some(tool.name.split_once("__")?.0)).collect();
        let servers: Vec<&str> = servers.into_iter().collect();
        format!("Nothing fits. There are tools of: {}.", servers.join(", "))
    } else {
        "These can be called from now on.".to_owned()
    };
    serde_json::to_string(&Found { tools, note }).map_err(|error| error.to_string())
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() > 1);
    parts.map(str::to_lowercase).collect()
}

/// A word of the name counts for more than one of the description, a beginning for less than the whole.
fn score(wanted: &[String], tool: &ToolSpec) -> usize {
    let (name, description) = (words(&tool.name), words(&tool.description));
    let of = |word: &String| {
        let alike = |other: &String| {
            word.len() > 3
                && (other.starts_with(word.as_str()) || word.starts_with(other.as_str()) && other.len() > 3)
        };
        match () {
            () if name.contains(word) => 8,
            () if name.iter().any(alike) => 4,
            () if description.contains(word) => 2,
            () if description.iter().any(alike) => 1,
            () => 0,
        }
    };
    wanted.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use shared::model::{ToolCall, ToolResult};

    use super::*;

    fn spec(name: &str, description: &str) -> ToolSpec {
        ToolSpec {
            name: name.into(),
            description: description.into(),
            input_schema: json!({"type": "object"}),
        }
    }

    fn all() -> Arc<[ToolSpec]> {
        let mut all = vec![spec("add_task", "Adds a task"), spec("list_tasks", "Lists tasks")];
        all.push(spec("github__get_repo", "Reads a repository"));
        all.push(spec("notion__get_page", "Reads a page of the wiki"));
        all.push(spec("notion__search", "Searches pages"));
        all.extend((0..20).map(|n| spec(&format!("zoo__feed_{n}"), "Feeds an animal")));
        all.into()
    }

    fn names(offer: &Offer) -> Vec<&str> {
        offer.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    fn exchange(id: &str, name: &str, result: &str) -> [ModelMessage; 2] {
        let call = ToolCall { id: id.into(), name: name.into(), arguments: Ok(json!({})) };
        let result = ToolResult { call_id: id.into(), content: result.into(), is_error: false };
        [
            ModelMessage::Assistant { text: String::new(), calls: vec![call], native: None },
            ModelMessage::ToolResults(vec![result]),
        ]
    }

    #[test]
    fn few_tools_are_all_offered() {
        let offer = offer(all(), &[], 25);
        assert_eq!((offer.tools.len(), offer.lasting), (25, 25));
    }

    #[test]
    fn what_was_found_or_called_is_offered_after_what_lasts() {
        let begun = offer(all(), &[], 10);
        assert_eq!((names(&begun), begun.lasting), (vec!["add_task", "list_tasks", SEARCH_TOOLS], 3));
        let found = search(&all(), Some(&json!({"query": "read a notion page"}))).unwrap();
        let mut messages = exchange("1", SEARCH_TOOLS, &found).to_vec();
        messages.extend(exchange(
            "2",
            "zoo__feed_3",
            "{\"tools\":[{\"name\":\"zoo__feed_9\",\"description\":\"\"}]}",
        ));
        messages.extend(exchange("3", "gone__tool", "x"));
        let after = offer(all(), &messages, 10);
        assert_eq!(
            names(&after),
            [
                "add_task",
                "list_tasks",
                SEARCH_TOOLS,
                "notion__get_page",
                "notion__search",
                "github__get_repo",
                "zoo__feed_3"
            ]
        );
        assert_eq!(after.lasting, 3);
    }

    #[test]
    fn a_search_says_what_fits_or_what_there_is() {
        let found = |query: &str| search(&all(), Some(&json!({"query": query}))).unwrap();
        assert!(found("repository").contains("github__get_repo"), "{}", found("repository"));
        assert!(!found("add a task").contains("add_task"), "it is offered anyway");
        assert!(found("xyzzy").contains("github, notion, zoo"), "{}", found("xyzzy"));
        assert_eq!(found("feed animals").matches("zoo__").count(), MOST);
        assert!(search(&all(), None).is_err());
    }
}
