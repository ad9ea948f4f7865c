//! The eight operations of any entity as tools: plain functions over its definition.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use super::{
    arguments::Arguments,
    describe::{self, snake, words},
};
use crate::{
    db::TenantTx,
    error::{Code, Error, Origin, Result},
    identity::Scope,
    ids::ItemUid,
    tools::{Effect, ToolDef, ToolOutput, ToolRun},
    workspace::{
        EntityDef, Problem,
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
    pub(super) run: Body,
}

/// The body of a tool: the definition, the transaction and the arguments as they were checked.
pub(super) type Body =
    for<'a> fn(&'static EntityDef, &'a mut TenantTx, Arguments) -> BoxFuture<'a, Result<ToolOutput>>;

impl Shape {
    /// A tool whose calls run beside all others.
    pub(super) fn tool(self, def: &'static EntityDef) -> ToolDef {
        let call = Arc::new(Call { input: self.input.clone(), effect: self.effect, body: self.run });
        ToolDef {
            name: self.name.into(),
            description: self.description.into(),
            effect: self.effect,
            input: self.input,
            output: Some(self.output),
            resource: None,
            run: ToolRun::workspace(move |tx, given| run(def, Arc::clone(&call), tx, given)),
        }
    }

    /// A tool whose calls on one item run in order.
    pub(super) fn tool_on_item(self, def: &'static EntityDef) -> ToolDef {
        ToolDef { resource: Some(Arc::new(|given| resource(def, given))), ..self.tool(def) }
    }
}

/// What a tool needs to know of itself to run.
struct Call {
    input: Value,
    effect: Effect,
    body: Body,
}

/// Runs a body and turns what the model can mend into a sentence for it.
fn run<'a>(
    def: &'static EntityDef,
    call: Arc<Call>,
    tx: &'a mut TenantTx,
    given: &'a Value,
) -> BoxFuture<'a, Result<ToolOutput>> {
    Box::pin(async move {
        match carry_out(def, &call, tx, given).await {
            Err(error) if error.origin == Origin::App && error.code != Code::Internal => {
                Ok(ToolOutput::error(sentence(def, &error)))
            }
            other => other,
        }
    })
}

async fn carry_out(
    def: &'static EntityDef,
    call: &Call,
    tx: &mut TenantTx,
    given: &Value,
) -> Result<ToolOutput> {
    if call.effect != Effect::Read {
        tx.actor().must_have(Scope::Write)?;
    }
    let arguments = Arguments::read(&call.input, tx.actor(), given)?;
    (call.body)(def, tx, arguments).await
}

/// A tool's body around a function that answers something.
macro_rules! body {
    ($function:path) => {
        |def, tx, arguments| {
            Box::pin(async move { $crate::tools::ToolOutput::json(&$function(def, tx, arguments).await?) })
        }
    };
}
pub(super) use body;

/// The eight tools of an entity.
pub(super) fn of(def: &'static EntityDef) -> [ToolDef; 8] {
    [
        list(def).tool(def),
        get(def).tool_on_item(def),
        create(def).tool(def),
        update(def).tool_on_item(def),
        patch(def).tool_on_item(def),
        delete(def).tool_on_item(def),
        archive(def).tool_on_item(def),
        process(def).tool_on_item(def),
    ]
}

fn list(def: &EntityDef) -> Shape {
    Shape {
        name: list_name(def),
        description: format!(
            "List the user's {}, newest first, one page at a time. Archived and deleted ones are left out unless asked for.",
            words(def.plural)
        ),
        effect: Effect::Read,
        input: describe::input(describe::list(def), &[]),
        output: describe::page_output(def),
        run: body!(run_list),
    }
}

fn get(def: &EntityDef) -> Shape {
    let mut properties = describe::item(def);
    properties.insert("include_deleted".to_owned(), describe::flag("Also find it when it was deleted."));
    Shape {
        name: format!("get_{}", def.kind),
        description: format!("Read one {} with all its fields, also an archived one.", words(def.kind)),
        effect: Effect::Read,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: body!(run_get),
    }
}

fn create(def: &EntityDef) -> Shape {
    let mut properties = describe::fields(def);
    properties.extend([describe::additional_fields()]);
    let required: Vec<String> = def.required.iter().map(|name| snake(name)).collect();
    let required: Vec<&str> = required.iter().map(String::as_str).collect();
    Shape {
        name: format!("create_{}", def.kind),
        description: format!("Make a new {}. Answers it with its id.", words(def.kind)),
        effect: Effect::Write,
        input: describe::input(properties, &required),
        output: describe::item_output(def),
        run: body!(run_create),
    }
}

fn update(def: &EntityDef) -> Shape {
    Shape {
        name: format!("update_{}", def.kind),
        description: format!(
            "Replace a {}: fields that are not given are reset. To change some and keep the rest, use patch_{}.",
            words(def.kind),
            def.kind
        ),
        effect: Effect::IdempotentWrite,
        input: describe::input(
            describe::item_and(def, [describe::if_match(), describe::additional_fields()]),
            &[],
        ),
        output: describe::item_output(def),
        run: body!(run_update),
    }
}

fn patch(def: &EntityDef) -> Shape {
    Shape {
        name: format!("patch_{}", def.kind),
        description: format!("Change the given fields of a {} and keep the rest.", words(def.kind)),
        effect: Effect::IdempotentWrite,
        input: describe::input(describe::item_and(def, [describe::if_match()]), &[]),
        output: describe::item_output(def),
        run: body!(run_patch),
    }
}

fn delete(def: &EntityDef) -> Shape {
    let mut properties = describe::item(def);
    properties.extend([describe::if_match()]);
    Shape {
        name: format!("delete_{}", def.kind),
        description: format!("Delete a {}. It is no longer listed.", words(def.kind)),
        effect: Effect::Destructive,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: body!(run_delete),
    }
}

fn archive(def: &EntityDef) -> Shape {
    let mut properties = describe::item(def);
    properties.extend([describe::if_match()]);
    Shape {
        name: format!("archive_{}", def.kind),
        description: format!(
            "Archive a {}: it is left out of lists and can still be read. An archived one stays as it is.",
            words(def.kind)
        ),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &[]),
        output: describe::item_output(def),
        run: body!(run_archive),
    }
}

fn process(def: &EntityDef) -> Shape {
    let mut properties = describe::item(def);
    properties.extend([describe::if_match(), describe::action(def), describe::metadata()]);
    Shape {
        name: format!("process_{}", def.kind),
        description: format!("Move a {} to another state: {}.", words(def.kind), def.actions.join(", ")),
        effect: Effect::IdempotentWrite,
        input: describe::input(properties, &["action"]),
        output: describe::item_output(def),
        run: body!(run_process),
    }
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

async fn run_list(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Page> {
    let parent = def.parent.and_then(|rule| arguments.text(&snake(rule.field)));
    let query = ListQuery {
        limit: arguments.integer("limit"),
        cursor: arguments.text("cursor"),
        status: arguments.text("status"),
        include_deleted: arguments.flag("include_deleted"),
        include_archived: arguments.flag("include_archived"),
        parent: parent.and_then(|uid| Uuid::parse_str(&uid).ok()).map(ItemUid),
    };
    items::list(tx, def, &query).await
}

async fn run_get(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    let item = arguments.item(def)?;
    if arguments.flag("include_deleted") {
        items::get_even_deleted(tx, def, item).await
    } else {
        items::get(tx, def, item).await
    }
}

/// Makes an item with the given fields.
pub(super) async fn run_create(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    items::create(tx, def, arguments.fields(def)).await
}

async fn run_update(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    items::update(tx, def, arguments.target(def)?, arguments.fields(def)).await
}

/// Changes an item by the given fields.
pub(super) async fn run_patch(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    let target = arguments.target(def)?;
    let changes = arguments.fields(def);
    if changes.is_empty() {
        let names: Vec<String> = def.fields().map(|(name, _)| snake(name)).collect();
        return Err(Problem::new("arguments", format!("must change something: {}", names.join(", "))).into());
    }
    items::patch(tx, def, target, changes).await
}

async fn run_delete(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    items::delete(tx, def, arguments.target(def)?).await
}

async fn run_archive(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    items::archive(tx, def, arguments.target(def)?).await
}

async fn run_process(def: &EntityDef, tx: &mut TenantTx, mut arguments: Arguments) -> Result<Item> {
    let target = arguments.target(def)?;
    let action = arguments.text("action").unwrap_or_default();
    let metadata = arguments.object("metadata").unwrap_or_default();
    items::process_with(tx, def, target, &action, metadata).await
}

/// `task:3`, so that calls on the same item run in order.
fn resource(def: &EntityDef, given: &Value) -> Option<String> {
    let name = def.id_argument.into_iter().chain(["id", "uid"]).find_map(|name| given.get(name))?;
    match name {
        Value::String(name) => Some(format!("{}:{}", def.kind, name.trim())),
        Value::Number(name) => Some(format!("{}:{name}", def.kind)),
        _ => None,
    }
}

fn list_name(def: &EntityDef) -> String {
    format!("list_{}", def.plural)
}
