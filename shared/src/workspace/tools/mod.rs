//! The workspace for models: its operations as tool values, with identity taken from the transaction alone.
//!
//! A tool's input schema is also what its arguments are checked against. Whatever is wrong with a call is answered as
//! a sentence that the model can act on; `Err` is kept for our own trouble. The tools are built from the entities'
//! definitions by `operations`; `tasks` adds what only tasks have.

mod across;
mod arguments;
mod describe;
mod operations;
mod tasks;

use std::{collections::BTreeMap, sync::LazyLock};

pub use self::across::meaning_of_call;
use super::{ENTITIES, EntityDef};
use crate::tools::ToolDef;

/// The tools of the product's own entities, which are made once.
static TOOLS: LazyLock<Vec<ToolDef>> = LazyLock::new(|| tools_of(&*ENTITIES));

/// What a turn is offered: each costs its model tokens with every request, so those that say the same in another way
/// are left out, and so is writing the messages that turns write themselves.
const IN_TURNS: &[&str] = &[
    "add_task",
    "archive_note",
    "complete_task",
    "create_comment",
    "create_note",
    "delete_note",
    "delete_task",
    "get_note",
    "get_task",
    "list_chat_messages",
    "list_chats",
    "list_comments",
    "list_notes",
    "list_tasks",
    "patch_note",
    "process_comment",
    "process_note",
    "process_task",
    "search_workspace",
    "update_note",
    "update_task",
    "workspace_stats",
];

/// Every tool of the workspace, sorted by name.
#[must_use]
pub fn tools() -> Vec<ToolDef> {
    TOOLS.clone()
}

/// The tools that a turn is offered, sorted by name.
#[must_use]
pub fn turn_tools() -> Vec<ToolDef> {
    TOOLS.iter().filter(|tool| IN_TURNS.contains(&tool.name.as_ref())).cloned().collect()
}

/// Every tool of these entities and those across all, sorted by name.
#[must_use]
pub fn tools_of(entities: &'static [EntityDef]) -> Vec<ToolDef> {
    let mut tools = BTreeMap::new();
    for def in entities {
        let extra = if def.kind == "task" { tasks::of(def).to_vec() } else { Vec::new() };
        tools.extend(operations::of(def).into_iter().chain(extra).map(|tool| (tool.name.clone(), tool)));
    }
    tools.extend(across::all().map(|tool| (tool.name.clone(), tool)));
    tools.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace::schema::tests::assert_checkable;

    #[test]
    fn the_catalogue_is_sound() {
        let tools = tools();
        assert_eq!(tools.len(), 45);
        for tool in tools {
            let name = &tool.name;
            assert_eq!(tool.input["type"], "object", "{name}");
            assert_eq!(tool.input["additionalProperties"], false, "{name}");
            assert!(tool.description.ends_with('.'), "{name}");
            assert_checkable(&tool.input);
            for (argument, schema) in tool.input["properties"].as_object().into_iter().flatten() {
                assert!(schema["description"].is_string(), "{name}: {argument} says nothing of itself");
            }
        }
    }

    #[test]
    fn the_names_are_the_contracts() {
        let mut wanted: BTreeSet<String> =
            ["add_task", "batch_workspace", "complete_task", "search_workspace", "workspace_stats"]
                .map(str::to_owned)
                .into();
        for (kind, plural) in [
            ("note", "notes"),
            ("task", "tasks"),
            ("comment", "comments"),
            ("chat", "chats"),
            ("chat_message", "chat_messages"),
        ] {
            wanted.insert(format!("list_{plural}"));
            for verb in ["get", "create", "update", "patch", "delete", "archive", "process"] {
                wanted.insert(format!("{verb}_{kind}"));
            }
        }
        let names: BTreeSet<String> = tools().into_iter().map(|tool| tool.name.into_owned()).collect();
        assert_eq!(names, wanted);
        assert_eq!(turn_tools().len(), IN_TURNS.len(), "a turn is offered a tool that there is not");
    }
}
