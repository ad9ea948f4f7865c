//! Last writer wins: what a client wrote while it was away, by the times at which it wrote it.
//!
//! An item's `updatedAt` is the time of the write that won, so that the same push again changes nothing, and pushes of
//! several clients end in the same state in whichever order they come. Each item is judged by itself; one that is refused
//! does not hold up the others.

mod store;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    EntityDef,
    batch::{self, store as part},
    items::{self, Item, ItemRef},
    schema::Problem,
};
use crate::{
    db::TenantTx,
    error::{Code, Error, Origin, Result},
    ids::ItemUid,
};

/// The most items of a push.
pub const MOST: usize = 500;
/// How far a client's clock may be ahead of the database's.
const AHEAD: TimeDelta = TimeDelta::minutes(1);

/// An item as a client has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pushed {
    /// The entity: task or tasks.
    pub entity: String,
    /// The client's own for a new item: a UUIDv7.
    pub uid: ItemUid,
    /// When the client wrote it.
    pub updated_ts: DateTime<Utc>,
    /// Whether the client deleted it.
    #[serde(default)]
    pub deleted: bool,
    /// The whole payload; not needed of a deleted item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Map<String, Value>>,
}

/// What became of an item that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was none; now there is.
    Created,
    /// The push was later, and replaced it.
    Updated,
    /// The push was later, and deleted it.
    Deleted,
    /// It was so before.
    Unchanged,
    /// What is stored was written later: the client takes `item`.
    Superseded,
    /// It is not acceptable; `error` says why.
    Refused,
}

/// The answer for one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Its place in the push, from 0.
    pub index: usize,
    /// The item's uid.
    pub uid: ItemUid,
    /// What became of it.
    pub outcome: Outcome,
    /// The item as it is now.
    pub item: Option<Item>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

/// Why an item was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code of the taxonomy.
    pub error: String,
    /// A sentence.
    pub message: String,
}

/// Applies a push, item by item. Whatever is wrong with an item is told with it.
///
/// # Errors
/// 422 for an empty push or one that is too large; the database's.
pub async fn push(tx: &mut TenantTx, pushed: Vec<Pushed>) -> Result<Vec<Answer>> {
    if pushed.is_empty() || pushed.len() > MOST {
        return Err(Problem::new("items", format!("must be 1 to {MOST}")).into());
    }
    let mut answers = Vec::with_capacity(pushed.len());
    for (index, pushed) in pushed.into_iter().enumerate() {
        let uid = pushed.uid;
        let answer = match one(tx, pushed).await {
            Ok((outcome, item)) => Answer { index, uid, outcome, item, error: None },
            Err(error) if error.origin == Origin::App && error.code != Code::Internal => {
                let refusal =
                    Refusal { error: error.code.as_str().to_owned(), message: error.message.into_owned() };
                Answer { index, uid, outcome: Outcome::Refused, item: None, error: Some(refusal) }
            }
            Err(error) => return Err(error),
        };
        answers.push(answer);
    }
    Ok(answers)
}

async fn one(tx: &mut TenantTx, pushed: Pushed) -> Result<(Outcome, Option<Item>)> {
    let def = batch::entity(&pushed.entity)?;
    if pushed.updated_ts > Utc::now() + AHEAD {
        return Err(Problem::new("updatedTs", "is in the future: set the client's clock").into());
    }
    match store::lock(tx, def.kind, pushed.uid).await? {
        Some(item) => settle(tx, def, item, pushed).await,
        None => create(tx, def, pushed).await,
    }
}

/// The stored item and the pushed one: the later write wins, and of equal times what is stored.
async fn settle(
    tx: &mut TenantTx,
    def: &EntityDef,
    item: Item,
    pushed: Pushed,
) -> Result<(Outcome, Option<Item>)> {
    let at = micros(pushed.updated_ts);
    if at < item.updated_at {
        return Ok((Outcome::Superseded, Some(item)));
    }
    if at == item.updated_at {
        let same = pushed.deleted == item.deleted_at.is_some();
        return Ok((if same { Outcome::Unchanged } else { Outcome::Superseded }, Some(item)));
    }
    if pushed.deleted {
        if item.deleted_at.is_some() {
            return Ok((Outcome::Unchanged, Some(item)));
        }
        let item = items::delete(tx, def, ItemRef::Uid(item.uid).into()).await?;
        return Ok((Outcome::Deleted, Some(store::date(tx, def.kind, item, at).await?)));
    }
    if item.deleted_at.is_some() {
        // A deletion is the end of an item: what was written elsewhere does not bring it back.
        return Ok((Outcome::Superseded, Some(item)));
    }
    let payload = payload(pushed.payload)?;
    let item = items::update(tx, def, ItemRef::Uid(item.uid).into(), payload).await?;
    Ok((Outcome::Updated, Some(store::date(tx, def.kind, item, at).await?)))
}

async fn create(tx: &mut TenantTx, def: &EntityDef, pushed: Pushed) -> Result<(Outcome, Option<Item>)> {
    if pushed.deleted {
        return Ok((Outcome::Unchanged, None));
    }
    if pushed.uid.0.get_version_num() != 7 {
        return Err(Problem::new("uid", "of a new item must be a UUIDv7").into());
    }
    let (at, payload) = (micros(pushed.updated_ts), payload(pushed.payload)?);
    part::begin_part(tx).await?;
    let item = match items::create_as(tx, def, pushed.uid, payload).await {
        Ok(item) => item,
        // Somebody else's uid: to this actor there is no such item, and there cannot be one.
        Err(error) if is_taken(&error) => {
            part::undo_part(tx).await?;
            return Err(Error::conflict(format!("{} is no new uid: make another", pushed.uid)));
        }
        Err(error) if error.database().is_some() => return Err(error),
        Err(error) => {
            part::undo_part(tx).await?;
            return Err(error);
        }
    };
    part::end_part(tx).await?;
    Ok((Outcome::Created, Some(store::date(tx, def.kind, item, at).await?)))
}

fn is_taken(error: &Error) -> bool {
    let database = error.database().and_then(|error| error.as_database_error());
    database.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

fn payload(payload: Option<Map<String, Value>>) -> Result<Map<String, Value>, Problem> {
    payload.ok_or_else(|| Problem::new("payload", "is required, unless the item is deleted"))
}

/// As Postgres keeps it.
fn micros(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}
