//! What only tasks have: adding one by its title, completing one, and an `update_task` that keeps what it is not given.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    arguments::Arguments,
    describe,
    operations::{self, Shape, body},
};
use crate::{
    db::TenantTx,
    error::{Code, Result},
    tools::{Effect, ToolDef},
    workspace::{
        EntityDef,
        entities::Status,
        items::{self, Item},
    },
};

/// The tools of tasks beside the eight of every entity, or instead of one of them.
pub(super) fn of(def: &'static EntityDef) -> [ToolDef; 3] {
    [add(def).tool(def), update(def).tool_on_item(def), complete(def).tool_on_item(def)]
}

fn add(def: &EntityDef) -> Shape {
    let mut properties = describe::fields(def);
    properties.retain(|name, _| ["title", "description", "due_date", "priority"].contains(&name.as_str()));
    Shape {
        name: "add_task".to_owned(),
        description: "Add a task to the user's list. Answers the task with its id.".to_owned(),
        effect: Effect::Write,
        input: describe::input(properties, &["title"]),
        output: describe::item_output(def),
        run: body!(operations::run_create),
    }
}

fn update(def: &EntityDef) -> Shape {
    Shape {
        name: "update_task".to_owned(),
        description:
            "Change the given fields of a task and keep the rest. To mark one as done, use complete_task."
                .to_owned(),
        effect: Effect::IdempotentWrite,
        input: describe::input(describe::item_and(def, [describe::if_match()]), &[]),
        output: describe::item_output(def),
        run: body!(operations::run_patch),
    }
}

fn complete(def: &EntityDef) -> Shape {
    let properties = Map::from_iter([describe::short_id(def, "task_id"), describe::if_match()]);
    let mut output = describe::item_output(def);
    output["properties"]["note"] =
        serde_json::json!({"type": "string", "description": "Says so when the task was done before."});
    Shape {
        name: "complete_task".to_owned(),
        description: "Mark a task as done. One that is done already stays as it is.".to_owned(),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &["task_id"]),
        output,
        run: body!(run_complete),
    }
}

#[derive(Serialize)]
struct Completed {
    #[serde(flatten)]
    item: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

async fn run_complete(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Completed> {
    let target = arguments.target(def)?;
    match items::process(tx, def, target, "complete").await {
        Ok(item) => Ok(Completed { item, note: None }),
        Err(error) if error.code == Code::Conflict => {
            let item = items::get(tx, def, target.item).await?;
            if item.payload.get("status").and_then(Value::as_str) != Some(Status::Done.as_str()) {
                return Err(error);
            }
            let note = Some(format!("task {} was done already; nothing was changed", item.id));
            Ok(Completed { item, note })
        }
        Err(error) => Err(error),
    }
}
