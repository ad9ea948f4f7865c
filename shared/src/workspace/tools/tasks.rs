//! What only tasks have: adding one by its title, completing one, and an `update_task` that keeps what it is not given.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    arguments::Arguments,
    describe,
    operations::{self, Shape, erased},
};
use crate::{
    db::TenantTx,
    error::{Code, Result},
    tools::{Effect, ToolDef},
    workspace::{
        EntityDef,
        entities::{Status, Task},
        items::{self, Item},
    },
};

const ADD: &str = "add_task";
const COMPLETE: &str = "complete_task";
const UPDATE: &str = "update_task";

pub(super) fn add() -> ToolDef {
    let def = erased::<Task>();
    let mut properties = describe::fields(def);
    properties.retain(|name, _| ["title", "description", "due_date", "priority"].contains(&name.as_str()));
    Shape {
        name: ADD.to_owned(),
        description: "Add a task to the user's list. Answers the task with its id.".to_owned(),
        effect: Effect::Write,
        input: describe::input(properties, &["title"]),
        output: describe::item_output(def),
        run: |tx, given| {
            operations::run(erased::<Task>(), tx, given, |def, tx, given| {
                Box::pin(operations::create_as(ADD, def, tx, given))
            })
        },
    }
    .tool()
}

pub(super) fn update() -> ToolDef {
    let def = erased::<Task>();
    let mut properties = describe::changes(def);
    properties.extend(describe::item(def));
    properties.extend([describe::if_match()]);
    Shape {
        name: UPDATE.to_owned(),
        description:
            "Change the given fields of a task and keep the rest. To mark one as done, use complete_task."
                .to_owned(),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: |tx, given| {
            operations::run(erased::<Task>(), tx, given, |def, tx, given| {
                Box::pin(operations::patch_as(UPDATE, def, tx, given))
            })
        },
    }
    .tool_on_item::<Task>()
}

pub(super) fn complete() -> ToolDef {
    let def = erased::<Task>();
    let properties = Map::from_iter([describe::short_id(def, "task_id"), describe::if_match()]);
    let mut output = describe::item_output(def);
    output["properties"]["note"] =
        serde_json::json!({"type": "string", "description": "Says so when the task was done before."});
    Shape {
        name: COMPLETE.to_owned(),
        description: "Mark a task as done. One that is done already stays as it is.".to_owned(),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &["task_id"]),
        output,
        run: |tx, given| {
            operations::run(erased::<Task>(), tx, given, |def, tx, given| {
                Box::pin(run_complete(def, tx, given))
            })
        },
    }
    .tool_on_item::<Task>()
}

#[derive(Serialize)]
struct Completed {
    #[serde(flatten)]
    item: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

async fn run_complete(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Completed> {
    let mut arguments = Arguments::read(COMPLETE, tx.actor(), given)?;
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
