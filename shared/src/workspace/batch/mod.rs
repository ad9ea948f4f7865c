//! Many operations in one transaction, all or nothing.
//!
//! Each is one of the operations of [`items`]; the first that fails fails the batch, and its error says which it was. A
//! later operation can name an item that an earlier one made: `"uid": "$0"`, or `"$0"` in a field that names an item.

pub(super) mod store;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Bond, ENTITIES, EntityDef, ParentRule,
    items::{self, Item, ItemRef, Target},
    schema::Problem,
};
use crate::{
    db::{TenantDb, TenantTx},
    error::{Error, Result},
    idempotency::{self, IdempotencyKey},
    identity::Actor,
    ids::ItemUid,
};

/// The most operations of a batch.
pub const MOST: usize = 500;

/// What is done to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Makes one.
    Create,
    /// Replaces its payload.
    Update,
    /// Changes some of its fields.
    Patch,
    /// Deletes it.
    Delete,
    /// Archives it.
    Archive,
    /// Carries out one of the entity's actions.
    Process,
}

impl Op {
    /// Every operation, as tools list them.
    pub const WORDS: [&'static str; 6] = ["create", "update", "patch", "delete", "archive", "process"];
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// What is done.
    pub op: Op,
    /// The entity: task or tasks.
    pub entity: String,
    /// The item's uid, or `$N` for the one that operation N made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The item's short id, instead of the uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// The version that the item must still have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<i64>,
    /// Of create, update and patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Map<String, Value>>,
    /// Of process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Of process: kept with the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What was done.
    pub op: Op,
    /// The entity's kind.
    pub kind: String,
    /// The item after it.
    pub item: Item,
}

/// How often a batch is tried that another one stood in the way of.
const TRIES: usize = 3;

/// Carries out a batch in a transaction of its own, or answers what it answered when it was done before under this key.
///
/// # Errors
/// As [`run`]; 409 when the key was used with another body.
pub async fn commit(
    db: &TenantDb,
    actor: &Actor,
    key: Option<&IdempotencyKey>,
    operations: &[Operation],
) -> Result<Vec<Done>> {
    let mut tries = 1;
    loop {
        let mut tx = db.begin(actor).await?;
        if let Some(key) = key
            && let Some(answer) = idempotency::claim(&mut tx, key).await?
        {
            tx.rollback().await?;
            return Ok(serde_json::from_str(&answer)?);
        }
        let done = match run(&mut tx, operations.to_vec()).await {
            Ok(done) => done,
            // Batches lock in one order and wait for each other; whoever changes one item after another elsewhere may still
            // stand in the way: one of them goes first, the other again.
            Err(error) if is_deadlock(&error) && tries < TRIES => {
                tries += 1;
                continue;
            }
            Err(error) => {
                tx.rollback().await?;
                return Err(error);
            }
        };
        if let Some(key) = key {
            idempotency::keep(&mut tx, key, &serde_json::to_string(&done)?).await?;
        }
        tx.commit().await?;
        return Ok(done);
    }
}

fn is_deadlock(error: &Error) -> bool {
    let database = error.database().and_then(|error| error.as_database_error());
    database.and_then(|error| error.code()).is_some_and(|code| code == "40P01" || code == "40001")
}

/// Carries out all operations, in their order, as a part of the caller's transaction. After an error of the caller's
/// nothing of the batch has been written, and the transaction can go on.
///
/// # Errors
/// 422 for an empty batch, one that is too large, or an operation that is none; otherwise that of the operation. All but
/// the first two carry `index`, the place of the operation that failed.
pub async fn run(tx: &mut TenantTx, operations: Vec<Operation>) -> Result<Vec<Done>> {
    if operations.is_empty() || operations.len() > MOST {
        return Err(Problem::new("operations", format!("must be 1 to {MOST}")).into());
    }
    store::begin_part(tx).await?;
    store::lock(tx, &touched(&operations)).await?;
    let mut done: Vec<Done> = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let op = operation.op;
        match one(tx, &done, operation).await {
            Ok((kind, item)) => done.push(Done { index, op, kind: kind.to_owned(), item }),
            // After an error of the database's own, nothing but a rollback is possible.
            Err(error) if error.database().is_some() => return Err(at(index, error)),
            Err(error) => {
                store::undo_part(tx).await?;
                return Err(at(index, error));
            }
        }
    }
    store::end_part(tx).await?;
    Ok(done)
}

/// What a batch locks before it begins, so that two batches that want the same items wait for each other instead of each
/// holding what the other wants: the items that it names, and those that it adds parts to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Touched {
    by_uid: Vec<(&'static str, ItemUid)>,
    by_id: Vec<(&'static str, i64)>,
}

/// A name that is none, and one of an item that the batch itself makes, is left to the operation.
fn touched(operations: &[Operation]) -> Touched {
    let mut touched = Touched::default();
    for operation in operations {
        let Ok(def) = entity(&operation.entity) else { continue };
        if let Some(id) = operation.id {
            touched.by_id.push((def.kind, id));
        }
        if let Some(uid) = operation.uid.as_deref().and_then(|uid| uuid::Uuid::parse_str(uid).ok()) {
            touched.by_uid.push((def.kind, ItemUid(uid)));
        }
        if let Some(ParentRule { field, bond: Bond::PartOf { kind } }) = def.parent
            && operation.op == Op::Create
            && let Some(parent) = operation.payload.as_ref().and_then(|payload| payload.get(field)?.as_str())
            && let Ok(parent) = uuid::Uuid::parse_str(parent)
        {
            touched.by_uid.push((kind, ItemUid(parent)));
        }
    }
    touched
}

fn at(index: usize, error: Error) -> Error {
    error.with_detail("index", index)
}

async fn one(tx: &mut TenantTx, done: &[Done], operation: Operation) -> Result<(&'static str, Item)> {
    let def = entity(&operation.entity)?;
    let target = target(def, done, &operation)?;
    let named = || target.ok_or_else(|| Problem::new("uid", "is required (or id)"));
    let payload = match operation.payload {
        Some(payload) => Ok(resolved(done, payload)?),
        None => Err(Problem::new("payload", "is required")),
    };
    let item = match operation.op {
        Op::Create if target.is_some() => {
            return Err(
                Problem::new("uid, id", "are given to an item when it is created: leave them out").into()
            );
        }
        Op::Create => items::create(tx, def, payload?).await?,
        Op::Update => items::update(tx, def, named()?, payload?).await?,
        Op::Patch => items::patch(tx, def, named()?, payload?).await?,
        Op::Delete => items::delete(tx, def, named()?).await?,
        Op::Archive => items::archive(tx, def, named()?).await?,
        Op::Process => {
            let action = operation.action.ok_or_else(|| Problem::new("action", "is required"))?;
            let metadata = operation.metadata.unwrap_or_default();
            items::process_with(tx, def, named()?, &action, metadata).await?
        }
    };
    Ok((def.kind, item))
}

/// The entity of a name in either number.
///
/// # Errors
/// 422 with the names that there are.
pub(super) fn entity(name: &str) -> Result<&'static EntityDef, Problem> {
    ENTITIES.iter().find(|def| def.kind == name || def.plural == name).ok_or_else(|| {
        let known: Vec<&str> = ENTITIES.iter().map(|def| def.kind).collect();
        Problem::new("entity", format!("must be one of {}", known.join(", ")))
    })
}

fn target(def: &EntityDef, done: &[Done], operation: &Operation) -> Result<Option<Target>> {
    let item = match (&operation.uid, operation.id) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Problem::new("uid, id", "must not be given together: give one of them").into());
        }
        (None, Some(id)) => ItemRef::Id(id),
        (Some(name), None) => match made(done, name)? {
            Some(uid) => ItemRef::Uid(uid),
            None => match uuid::Uuid::parse_str(name) {
                Ok(uid) => ItemRef::Uid(ItemUid(uid)),
                Err(_) => {
                    return Err(Error::not_found(format!(
                        "there is no {} {name}",
                        def.kind.replace('_', " ")
                    )));
                }
            },
        },
    };
    Ok(Some(Target { item, if_match: operation.if_match }))
}

/// Fields that name items are given the uid of what an earlier operation made.
fn resolved(done: &[Done], mut payload: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    for (field, value) in &mut payload {
        if field.ends_with("Uid")
            && let Value::String(name) = value
            && let Some(uid) = made(done, name)?
        {
            *value = uid.to_string().into();
        }
    }
    Ok(payload)
}

/// What operation N made, for `$N`; none when the text is no such name.
fn made(done: &[Done], name: &str) -> Result<Option<ItemUid>, Problem> {
    let Some(index) = name.strip_prefix('$') else { return Ok(None) };
    let made = index.parse::<usize>().ok().and_then(|index| done.get(index));
    let made = made.filter(|done| done.op == Op::Create);
    made.map(|done| Some(done.item.uid))
        .ok_or_else(|| Problem::new(name, "must name an earlier operation that creates an item"))
}
