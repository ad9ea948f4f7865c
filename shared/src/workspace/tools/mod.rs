//! The workspace for models: its operations as tool values, with identity taken from the transaction alone.
//!
//! A tool's input schema is also what its arguments are checked against. Whatever is wrong with a call is answered as
//! a sentence that the model can act on; `Err` is kept for our own trouble. The tools are built from the entities'
//! definitions by `operations`; `tasks` adds what only tasks have.

mod arguments;
mod describe;
mod operations;
mod tasks;

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::entities::{Note, Task};
use crate::tools::ToolDef;

/// Every tool, by name.
static CATALOGUE: LazyLock<BTreeMap<&'static str, ToolDef>> = LazyLock::new(|| {
    BTreeMap::from([
        ("add_task", tasks::add()),
        ("complete_task", tasks::complete()),
        ("create_note", operations::create::<Note>()),
        ("delete_note", operations::delete::<Note>()),
        ("delete_task", operations::delete::<Task>()),
        ("get_note", operations::get::<Note>()),
        ("list_notes", operations::list::<Note>()),
        ("list_tasks", operations::list::<Task>()),
        ("patch_note", operations::patch::<Note>()),
        ("update_note", operations::update::<Note>()),
        ("update_task", tasks::update()),
    ])
});

/// Every tool of the workspace, sorted by name.
#[must_use]
pub fn tools() -> Vec<ToolDef> {
    CATALOGUE.values().cloned().collect()
}

fn input_of(tool: &str) -> &'static Value {
    CATALOGUE.get(tool).map_or(&Value::Null, |tool| &tool.input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::schema::tests::assert_checkable;

    #[test]
    fn the_catalogue_is_sound() {
        for (name, tool) in CATALOGUE.iter() {
            assert_eq!(tool.name, *name);
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
    fn catalogue() {
        let catalogue: Vec<_> = tools()
            .into_iter()
            .map(|tool| {
                serde_json::json!({
                    "name": tool.name,
                    "description": tool.description,
                    "effect": tool.effect,
                    "inputSchema": tool.input,
                    "outputSchema": tool.output,
                })
            })
            .collect();
        insta::assert_json_snapshot!(catalogue);
    }
}
