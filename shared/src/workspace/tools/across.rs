//! Tools that work on items of all kinds at once: search, figures, batch.

use std::fmt::Write as _;

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{arguments::Arguments, describe};
use crate::{
    db::TenantTx,
    error::{Code, Error, Origin, Result},
    model::embeddings::Embedder,
    tools::{Effect, ToolDef, ToolOutput, ToolRun},
    workspace::{
        ENTITIES, Problem,
        batch::{self, Done, Op, Operation},
        search::{self, Found, Meaning, Mode, Query},
        stats::{self, Stats},
    },
};

const SEARCH: &str = "search_workspace";

/// The three.
pub(super) fn all() -> [ToolDef; 3] {
    [batch(), search(), stats()]
}

fn kinds() -> Vec<&'static str> {
    ENTITIES.iter().map(|def| def.kind).collect()
}

fn search() -> ToolDef {
    let mut words: Vec<&str> =
        ENTITIES.iter().flat_map(|def| def.statuses).map(|status| status.word).collect();
    words.sort_unstable();
    words.dedup();
    words.insert(0, "all");
    let properties = object(json!({
        "query": {"type": "string", "minLength": 1, "maxLength": search::LONGEST,
            "description": "Words that must all occur. \"a phrase\" in quotes, or between alternatives, -word for what must not occur."},
        "kinds": {"type": "array", "items": {"type": "string", "enum": kinds()}, "description": "Only these kinds; all unless given."},
        "status": {"type": "string", "enum": words, "description": "Only those in this state."},
        "include_archived": {"type": "boolean", "description": "Also find archived ones."},
        "limit": {"type": "integer", "minimum": 1, "maximum": search::LARGEST_PAGE, "description": "How many at most; 20 unless given."},
        "cursor": {"type": "string", "description": "nextCursor of the page before, with the same query."},
        "mode": {"type": "string", "enum": Mode::WORDS, "description": "text looks for the words and is the default; semantic for what they mean; hybrid for both. The latter two have one page, and are refused where no model of embeddings is set up."},
    }));
    let input = describe::input(properties, &["query"]);
    let moment = json!({"type": "string", "format": "date-time"});
    ToolDef {
        name: SEARCH.into(),
        description: "Search all of the user's items by their words: notes, tasks, comments, chats and what was said in them. The snippet shows matches between <mark> and </mark>.".into(),
        effect: Effect::Read,
        output: Some(json!({
            "type": "object",
            "required": ["results", "nextCursor"],
            "properties": {
                "results": {"type": "array", "items": {
                    "type": "object",
                    "required": ["kind", "uid", "id", "title", "snippet", "rank", "status", "archived", "parentUid", "createdAt", "updatedAt"],
                    "properties": {
                        "kind": {"type": "string"},
                        "uid": {"type": "string", "format": "uuid"},
                        "id": {"type": "integer"},
                        "title": {"type": ["string", "null"]},
                        "snippet": {"type": "string"},
                        "rank": {"type": "number"},
                        "status": {"type": ["string", "null"]},
                        "archived": {"type": "boolean"},
                        "parentUid": {"type": ["string", "null"], "format": "uuid"},
                        "createdAt": moment,
                        "updatedAt": moment,
                    },
                }},
                "nextCursor": {"type": ["string", "null"]},
            },
        })),
        resource: None,
        run: run(input.clone(), |tx, arguments| Box::pin(run_search(tx, arguments))),
        input,
    }
}

async fn run_search(tx: &mut TenantTx, mut arguments: Arguments) -> Result<Found> {
    let kinds = arguments.list("kinds");
    let query = Query {
        text: arguments.text("query").unwrap_or_default(),
        kinds: kinds.into_iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect(),
        status: arguments.text("status"),
        include_archived: arguments.flag("include_archived"),
        limit: arguments.integer("limit").and_then(|limit| usize::try_from(limit).ok()),
        cursor: arguments.text("cursor"),
        mode: arguments.text("mode").map_or(Ok(Mode::Text), |mode| Mode::from_word(&mode))?,
        meaning: tx.brought().get::<Meaning>().cloned(),
    };
    search::search(tx, &query).await
}

/// What a call of one of the workspace's tools needs to know from a model, asked before its transaction begins.
///
/// # Errors
/// Those of the model. What is wrong with the arguments is for the tool to say.
pub async fn meaning_of_call(
    embedder: Option<&Embedder>,
    tool: &str,
    arguments: &Value,
) -> Result<Option<Meaning>> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let (Some(embedder), SEARCH, Some(query)) = (embedder, tool, text("query")) else { return Ok(None) };
    let mode = text("mode").and_then(|mode| Mode::from_word(mode).ok()).unwrap_or_default();
    match Meaning::of(Some(embedder), mode, query).await {
        Err(error) if error.code == Code::Malformed => Ok(None),
        other => other,
    }
}

fn stats() -> ToolDef {
    let input = describe::input(Map::new(), &[]);
    let count = json!({"type": "integer"});
    ToolDef {
        name: "workspace_stats".into(),
        description: "Count the user's items: by kind and state, archived and deleted ones, tasks that are overdue or due within seven days, and how many were made on each of the last 30 days.".into(),
        effect: Effect::Read,
        output: Some(json!({
            "type": "object",
            "required": ["kinds", "tasks", "created"],
            "properties": {
                "kinds": {"type": "object", "additionalProperties": {
                    "type": "object",
                    "required": ["total", "archived", "deleted"],
                    "properties": {"total": count, "archived": count, "deleted": count,
                        "byStatus": {"type": "object", "additionalProperties": count}},
                }},
                "tasks": {"type": "object", "required": ["pending", "overdue", "dueSoon"],
                    "properties": {"pending": count, "overdue": count, "dueSoon": count}},
                "created": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": count}},
            },
        })),
        resource: None,
        run: run(input.clone(), |tx, _| Box::pin(run_stats(tx))),
        input,
    }
}

async fn run_stats(tx: &mut TenantTx) -> Result<Stats> {
    stats::stats(tx).await
}

fn batch() -> ToolDef {
    let properties = object(json!({
        "operations": {
            "type": "array", "maxItems": batch::MOST,
            "description": "Carried out in this order, all or none.",
            "items": {
                "type": "object",
                "required": ["op", "entity"],
                "additionalProperties": false,
                "properties": {
                    "op": {"type": "string", "enum": Op::WORDS, "description": "What to do. update replaces, patch keeps the fields that are not given."},
                    "entity": {"type": "string", "enum": kinds(), "description": "The kind of item."},
                    "uid": {"type": "string", "description": "The item's uid; $0 is what the first operation made. Not with create."},
                    "id": {"type": "integer", "description": "The item's short id, instead of uid."},
                    "ifMatch": {"type": "integer", "minimum": 1, "description": "Change only if the item still has this version."},
                    "payload": {"type": "object", "description": "The fields, for create, update and patch, as the item's own create tool names them but in camelCase. $0 in a field such as parentUid is what the first operation made."},
                    "action": {"type": "string", "description": "For process: one of the entity's actions."},
                    "metadata": {"type": "object", "description": "For process: kept with the item."},
                },
            },
        },
    }));
    let input = describe::input(properties, &["operations"]);
    let done = json!({
        "type": "object",
        "required": ["index", "op", "kind", "item"],
        "properties": {
            "index": {"type": "integer"},
            "op": {"type": "string", "enum": Op::WORDS},
            "kind": {"type": "string"},
            "item": {"type": "object"},
        },
    });
    ToolDef {
        name: "batch_workspace".into(),
        description: "Create, change or delete up to 500 items of any kinds at once: all of it happens, or none. Answers each item as it is afterwards.".into(),
        effect: Effect::Destructive,
        output: Some(json!({
            "type": "object",
            "required": ["results"],
            "properties": {"results": {"type": "array", "items": done}},
        })),
        resource: None,
        run: run(input.clone(), |tx, arguments| Box::pin(run_batch(tx, arguments))),
        input,
    }
}

#[derive(Serialize)]
struct Results {
    results: Vec<Done>,
}

async fn run_batch(tx: &mut TenantTx, mut arguments: Arguments) -> Result<Results> {
    let operations: Vec<Operation> = serde_json::from_value(Value::Array(arguments.list("operations")))
        .map_err(|error| Problem::new("operations", format!("must be operations: {error}")))?;
    Ok(Results { results: batch::run(tx, operations).await? })
}

type Body<Answer> = for<'a> fn(&'a mut TenantTx, Arguments) -> BoxFuture<'a, Result<Answer>>;

/// Checks the arguments, runs the body, and turns what the model can mend into a sentence for it.
fn run<Answer: Serialize + Send + 'static>(input: Value, body: Body<Answer>) -> ToolRun {
    ToolRun::workspace(move |tx, given| {
        let arguments = Arguments::read(&input, tx.actor(), given);
        Box::pin(async move {
            let outcome = match arguments {
                Ok(arguments) => body(tx, arguments).await,
                Err(problem) => Err(problem.into()),
            };
            match outcome {
                Ok(answer) => ToolOutput::json(&answer),
                Err(error) if error.origin == Origin::App && error.code != Code::Internal => {
                    Ok(ToolOutput::error(sentence(&error)))
                }
                Err(error) => Err(error),
            }
        })
    })
}

fn sentence(error: &Error) -> String {
    let mut sentence = error.message.to_string();
    if let Some(index) = error.details.as_ref().and_then(|details| details.get("index")) {
        let _ = write!(sentence, " (operation {index}; nothing was carried out)");
    }
    sentence
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
