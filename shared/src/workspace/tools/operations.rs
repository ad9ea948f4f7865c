//! The operations of any entity as tools.
//!
//! Each is a thin typed shell, which is what a function pointer can hold, around a plain function over the definition.

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use super::{
    arguments::Arguments,
    describe::{self, snake, words},
};
use crate::{
    db::TenantTx,
    error::{Code, Error, Origin, Result},
    tools::{Effect, ToolDef, ToolOutput, ToolRun, WorkspaceRun},
    workspace::{
        Entity, EntityDef, Problem, definition,
        items::{self, Item, ListQuery, Page},
    },
};

/// What the tools of one entity differ in.
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) effect: Effect,
    pub(super) input: Value,
    pub(super) output: Value,
    pub(super) run: WorkspaceRun,
}

impl Shape {
    /// A tool whose calls run beside all others.
    pub(super) fn tool(self) -> ToolDef {
        ToolDef {
            name: self.name.into(),
            description: self.description.into(),
            effect: self.effect,
            input: self.input,
            output: Some(self.output),
            resource: None,
            run: ToolRun::Workspace(self.run),
        }
    }

    /// A tool whose calls on one item run in order.
    pub(super) fn tool_on_item<T: Entity>(self) -> ToolDef {
        ToolDef { resource: Some(resource::<T>), ..self.tool() }
    }
}

/// The definition of an entity that is in the list.
pub(super) fn erased<T: Entity>() -> &'static EntityDef {
    definition(T::KIND).expect("an entity with tools is in ENTITIES")
}

pub(super) fn list<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    Shape {
        name: list_name(def),
        description: format!(
            "List the user's {}, newest first, one page at a time. Archived and deleted ones are left out unless asked for.",
            words(def.plural)
        ),
        effect: Effect::Read,
        input: describe::input(describe::list(def), &[]),
        output: describe::page_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_list(def, tx, given))),
    }
    .tool()
}

pub(super) fn get<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    let mut properties = describe::item(def);
    properties.insert("include_deleted".to_owned(), describe::flag("Also find it when it was deleted."));
    Shape {
        name: get_name(def),
        description: format!("Read one {} with all its fields, also an archived one.", words(def.kind)),
        effect: Effect::Read,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_get(def, tx, given))),
    }
    .tool_on_item::<T>()
}

pub(super) fn create<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    let mut properties = describe::fields(def);
    properties.extend([describe::additional_fields()]);
    let required: Vec<&str> = def.required.iter().map(String::as_str).collect();
    Shape {
        name: create_name(def),
        description: format!("Make a new {}. Answers it with its id.", words(def.kind)),
        effect: Effect::Write,
        input: describe::input(properties, &required),
        output: describe::item_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_create(def, tx, given))),
    }
    .tool()
}

pub(super) fn update<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    let mut properties = describe::changes(def);
    properties.extend(describe::item(def));
    properties.extend([describe::if_match(), describe::additional_fields()]);
    let kind = words(def.kind);
    Shape {
        name: update_name(def),
        description: format!(
            "Replace a {kind}: fields that are not given are reset. To change some and keep the rest, use {}.",
            patch_name(def)
        ),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_update(def, tx, given))),
    }
    .tool_on_item::<T>()
}

pub(super) fn patch<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    let mut properties = describe::changes(def);
    properties.extend(describe::item(def));
    properties.extend([describe::if_match()]);
    Shape {
        name: patch_name(def),
        description: format!("Change the given fields of a {} and keep the rest.", words(def.kind)),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_patch(def, tx, given))),
    }
    .tool_on_item::<T>()
}

pub(super) fn delete<T: Entity>() -> ToolDef {
    let def = erased::<T>();
    let mut properties = describe::item(def);
    properties.extend([describe::if_match()]);
    Shape {
        name: delete_name(def),
        description: format!("Delete a {}. It is no longer listed.", words(def.kind)),
        effect: Effect::Destructive,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: |tx, given| run(erased::<T>(), tx, given, |def, tx, given| Box::pin(run_delete(def, tx, given))),
    }
    .tool_on_item::<T>()
}

/// The body of a tool, over the erased definition.
pub(super) type Body<Answer> =
    for<'a> fn(&'static EntityDef, &'a mut TenantTx, &'a Value) -> BoxFuture<'a, Result<Answer>>;

/// Runs a body and turns what the model can mend into a sentence for it.
pub(super) fn run<'a, Answer: Serialize + Send + 'a>(
    def: &'static EntityDef,
    tx: &'a mut TenantTx,
    given: &'a Value,
    body: Body<Answer>,
) -> BoxFuture<'a, Result<ToolOutput>> {
    Box::pin(async move {
        match body(def, tx, given).await {
            Ok(answer) => ToolOutput::json(&answer),
            Err(error) if error.origin == Origin::App && error.code != Code::Internal => {
                Ok(ToolOutput::error(sentence(def, &error)))
            }
            Err(error) => Err(error),
        }
    })
}

/// The error in the words of the tools: their names of fields, and where to look next.
fn sentence(def: &EntityDef, error: &Error) -> String {
    let field = error.details.as_ref().and_then(|details| details.get("field")).and_then(Value::as_str);
    match field.and_then(|field| error.message.strip_prefix(field).map(|rest| (snake(field), rest))) {
        Some((field, rest)) => format!("{field}{rest}"),
        None if error.code == Code::NotFound => {
            format!("{}; {} shows which there are", error.message, list_name(def))
        }
        None => error.message.to_string(),
    }
}

async fn run_list(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Page> {
    let mut arguments = Arguments::read(&list_name(def), tx.actor(), given)?;
    let query = ListQuery {
        limit: arguments.integer("limit"),
        cursor: arguments.text("cursor"),
        status: arguments.text("status"),
        include_deleted: arguments.flag("include_deleted"),
        include_archived: arguments.flag("include_archived"),
    };
    items::list(tx, def, &query).await
}

async fn run_get(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    let mut arguments = Arguments::read(&get_name(def), tx.actor(), given)?;
    let item = arguments.item(def)?;
    if arguments.flag("include_deleted") {
        items::get_even_deleted(tx, def, item).await
    } else {
        items::get(tx, def, item).await
    }
}

async fn run_create(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    create_as(&create_name(def), def, tx, given).await
}

async fn run_update(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    let mut arguments = Arguments::read(&update_name(def), tx.actor(), given)?;
    items::update(tx, def, arguments.target(def)?, arguments.fields(def)).await
}

async fn run_patch(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    patch_as(&patch_name(def), def, tx, given).await
}

async fn run_delete(def: &'static EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    let mut arguments = Arguments::read(&delete_name(def), tx.actor(), given)?;
    items::delete(tx, def, arguments.target(def)?).await
}

/// Makes an item with the arguments of this tool.
pub(super) async fn create_as(tool: &str, def: &EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    let mut arguments = Arguments::read(tool, tx.actor(), given)?;
    items::create(tx, def, arguments.fields(def)).await
}

/// Changes an item with the arguments of this tool.
pub(super) async fn patch_as(tool: &str, def: &EntityDef, tx: &mut TenantTx, given: &Value) -> Result<Item> {
    let mut arguments = Arguments::read(tool, tx.actor(), given)?;
    let target = arguments.target(def)?;
    let changes = arguments.fields(def);
    if changes.is_empty() {
        let names: Vec<String> = def.fields().map(|(name, _)| snake(name)).collect();
        return Err(Problem::new("arguments", format!("must change something: {}", names.join(", "))).into());
    }
    items::patch(tx, def, target, changes).await
}

/// `task:3`, so that calls on the same item run in order.
fn resource<T: Entity>(given: &Value) -> Option<String> {
    let name = T::ID_ARGUMENT.into_iter().chain(["id", "uid"]).find_map(|name| given.get(name))?;
    match name {
        Value::String(name) => Some(format!("{}:{}", T::KIND, name.trim())),
        Value::Number(name) => Some(format!("{}:{name}", T::KIND)),
        _ => None,
    }
}

fn list_name(def: &EntityDef) -> String {
    format!("list_{}", def.plural)
}

fn get_name(def: &EntityDef) -> String {
    format!("get_{}", def.kind)
}

fn create_name(def: &EntityDef) -> String {
    format!("create_{}", def.kind)
}

fn update_name(def: &EntityDef) -> String {
    format!("update_{}", def.kind)
}

fn patch_name(def: &EntityDef) -> String {
    format!("patch_{}", def.kind)
}

fn delete_name(def: &EntityDef) -> String {
    format!("delete_{}", def.kind)
}
