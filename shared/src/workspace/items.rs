//! The eight operations on items, whatever their kind. Every function works in the caller's transaction, sees only
//! what row-level security lets the actor see, and has written nothing when it answers an error of the caller's.
//!
//! Lists come newest first, by uid. A short id names an item; it never orders one.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    cursor,
    definition::{Acted, Bond, EntityDef, Parent, ParentRule, Prepared},
    payload,
    schema::Problem,
    store::{self, Found},
};
use crate::{
    db::TenantTx,
    error::{Code, Error, Invalid, Result},
    ids::{ItemUid, UserId},
};

/// How many items a page has unless the caller says otherwise.
pub const PAGE: i64 = 100;
/// The most items that a page may have.
pub const LARGEST_PAGE: i64 = 1000;

/// An item as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Version 7, so that uids sort by age.
    pub uid: ItemUid,
    /// Short, for people and models; unique within tenant and kind.
    pub id: i64,
    /// One more with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was deleted, if it was.
    pub deleted_at: Option<DateTime<Utc>>,
    /// The entity's fields, and others that the client gave.
    #[sqlx(json)]
    pub payload: Map<String, Value>,
}

/// How a caller names an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemRef {
    /// By its uid.
    Uid(ItemUid),
    /// By its short id.
    Id(i64),
}

impl ItemRef {
    /// Reads either form; none when the text is neither, and so names no item.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse::<i64>() {
            Ok(id) => Some(Self::Id(id)),
            Err(_) => Uuid::parse_str(text).ok().map(|uid| Self::Uid(ItemUid(uid))),
        }
    }
}

impl fmt::Display for ItemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => uid.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Which item to change, and which version of it the caller has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The item.
    pub item: ItemRef,
    /// The version it must still have; none: whichever it has.
    pub if_match: Option<i64>,
}

impl From<ItemRef> for Target {
    fn from(item: ItemRef) -> Self {
        Self { item, if_match: None }
    }
}

/// What a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// 1 to [`LARGEST_PAGE`]; none: [`PAGE`].
    pub limit: Option<i64>,
    /// [`Page::next_cursor`] of the page before.
    pub cursor: Option<String>,
    /// A word of the entity's statuses, or `all`.
    pub status: Option<String>,
    /// Also what was deleted.
    pub include_deleted: bool,
    /// Also what was archived.
    pub include_archived: bool,
    /// Only what hangs on this item, for entities that hang on others.
    pub parent: Option<ItemUid>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Newest first.
    pub items: Vec<Item>,
    /// For the next page; none: this was the last.
    pub next_cursor: Option<String>,
}

/// Makes an item that belongs to the actor, or to whom its parent belongs to.
///
/// # Errors
/// 422 naming the field, also when it names no parent; 413 for a payload too large.
pub async fn create(tx: &mut TenantTx, def: &EntityDef, payload: Map<String, Value>) -> Result<Item> {
    create_as(tx, def, ItemUid::generate(), payload).await
}

/// The same, with a uid that a client has made.
///
/// # Errors
/// As [`create`]; the database's when the uid is taken.
pub(super) async fn create_as(
    tx: &mut TenantTx,
    def: &EntityDef,
    uid: ItemUid,
    payload: Map<String, Value>,
) -> Result<Item> {
    let prepared = def.prepare(payload, tx.actor())?;
    let id = tx.next_id(def.kind).await?;
    let owner = match (def.parent, prepared.projection.parent) {
        (Some(rule), Some(parent)) => owner_of(tx, rule, parent).await?,
        _ => tx.actor().user,
    };
    store::insert(tx, def, owner, (uid, id), &prepared).await
}

/// Whose the parent is; a part also moves the parent's time.
async fn owner_of(tx: &mut TenantTx, rule: ParentRule, parent: Parent) -> Result<UserId> {
    let owner = match rule.bond {
        Bond::About => store::owner(tx, parent).await?,
        Bond::PartOf { .. } => store::touch(tx, parent).await?,
    };
    let kind = spaced(parent.kind);
    owner.ok_or_else(|| Problem::new(rule.field, format!("must name a {kind} that is there")).into())
}

/// An item that is there.
///
/// # Errors
/// 404, or 410 when it was deleted.
pub async fn get(tx: &mut TenantTx, def: &EntityDef, item: ItemRef) -> Result<Item> {
    let found = get_even_deleted(tx, def, item).await?;
    if found.deleted_at.is_some() { Err(gone(def, item)) } else { Ok(found) }
}

/// An item, also when it was deleted.
///
/// # Errors
/// 404.
pub async fn get_even_deleted(tx: &mut TenantTx, def: &EntityDef, item: ItemRef) -> Result<Item> {
    let found = store::find(tx, def, item).await?;
    found.map(|found| found.item).ok_or_else(|| unknown(def, item))
}

/// One page, newest first: the actor's items, or the tenant's when the actor is its admin.
///
/// # Errors
/// 400 for a cursor that is not ours, 422 for a limit or status that is not one.
pub async fn list(tx: &mut TenantTx, def: &EntityDef, query: &ListQuery) -> Result<Page> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::new("limit", format!("must be between 1 and {LARGEST_PAGE}")).into());
    }
    let status = match query.status.as_deref() {
        None | Some("all") => None,
        Some(word) => {
            Some(def.statuses.iter().find(|known| known.word == word).ok_or_else(|| no_status(def))?)
        }
    };
    let cut = store::Cut {
        before: query.cursor.as_deref().map(cursor::read).transpose()?,
        states: status.map(|status| status.states),
        deleted: query.include_deleted,
        archived: query.include_archived || status.is_some_and(|status| status.archived),
        parent: query.parent,
        most: limit + 1,
    };
    let mut items = store::page(tx, def, &cut).await?;
    let more = items.len() as i64 > limit;
    if more {
        items.pop();
    }
    let next_cursor = if more { items.last().map(|item| cursor::after(item.uid)) } else { None };
    Ok(Page { items, next_cursor })
}

/// Replaces the payload: fields that are not given fall back to their defaults.
///
/// # Errors
/// 404, 410, 412; 409 for a message that a turn wrote; 422 naming the field, 413.
pub async fn update(
    tx: &mut TenantTx,
    def: &EntityDef,
    target: Target,
    payload: Map<String, Value>,
) -> Result<Item> {
    let prepared = def.prepare(payload, tx.actor())?;
    if let Some(rule) = def.parent {
        let found = store::lock(tx, def, target.item).await?;
        let item = open_to_people(def, target.item, writable(def, target, found)?)?;
        stays(def, rule, item.payload, &prepared)?;
        return store::write(tx, def.kind, item.uid, &prepared).await;
    }
    match store::replace(tx, def.kind, target.item, target.if_match, &prepared).await? {
        Some(item) => Ok(item),
        None => {
            let found = store::find(tx, def, target.item).await?;
            open_to_people(def, target.item, writable(def, target, found)?)?;
            Err(moved(def, target.item))
        }
    }
}

/// Changes the given fields as a JSON merge patch does: what is given replaces, null removes, the rest stays.
///
/// # Errors
/// As [`update`].
pub async fn patch(
    tx: &mut TenantTx,
    def: &EntityDef,
    target: Target,
    changes: Map<String, Value>,
) -> Result<Item> {
    let found = store::lock(tx, def, target.item).await?;
    let item = open_to_people(def, target.item, writable(def, target, found)?)?;
    let mut merged = item.payload.clone();
    payload::merge(&mut merged, changes);
    let prepared = def.prepare(merged, tx.actor())?;
    if let Some(rule) = def.parent {
        stays(def, rule, item.payload, &prepared)?;
    }
    store::write(tx, def.kind, item.uid, &prepared).await
}

/// Hides the item; its row stays.
///
/// # Errors
/// 404, 410, 412.
pub async fn delete(tx: &mut TenantTx, def: &EntityDef, target: Target) -> Result<Item> {
    match store::delete(tx, def, target.item, target.if_match).await? {
        Some(item) => Ok(item),
        None => {
            let found = store::find(tx, def, target.item).await?;
            writable(def, target, found)?;
            Err(moved(def, target.item))
        }
    }
}

/// Moves the item out of lists. An archived one is answered as it is.
///
/// # Errors
/// 404, 410, 412.
pub async fn archive(tx: &mut TenantTx, def: &EntityDef, target: Target) -> Result<Item> {
    let found = store::lock(tx, def, target.item).await?;
    let item = writable(def, target, found)?.item;
    let acted = def.archive(item.payload.clone())?;
    finish(tx, def, item, acted, "archive").await
}

/// Carries out one of the entity's actions.
///
/// # Errors
/// 404, 410, 412; 409 when the state does not allow the action; 422 for an action that the entity does not have.
pub async fn process(tx: &mut TenantTx, def: &EntityDef, target: Target, action: &str) -> Result<Item> {
    process_with(tx, def, target, action, Map::new()).await
}

/// The same, and keeps what the caller says about it in the payload, as `metadata.{action}`.
///
/// # Errors
/// As [`process`]; 413 when the payload becomes too large.
pub async fn process_with(
    tx: &mut TenantTx,
    def: &EntityDef,
    target: Target,
    action: &str,
    mut metadata: Map<String, Value>,
) -> Result<Item> {
    let found = store::lock(tx, def, target.item).await?;
    let item = writable(def, target, found)?.item;
    let mut stored = item.payload.clone();
    if !metadata.is_empty() {
        payload::clean_object(&mut metadata);
        let said = Map::from_iter([(action.to_owned(), Value::Object(metadata))]);
        payload::merge(&mut stored, Map::from_iter([("metadata".to_owned(), Value::Object(said))]));
    }
    let acted = def.act(stored, action)?;
    finish(tx, def, item, acted, action).await
}

async fn finish(tx: &mut TenantTx, def: &EntityDef, item: Item, acted: Acted, action: &str) -> Result<Item> {
    match acted {
        Acted::Changed(prepared) => store::write(tx, def.kind, item.uid, &prepared).await,
        Acted::AlreadySo => Ok(item),
        Acted::Refused(state) => {
            let (action, kind) = (spaced(action), spaced(def.kind));
            Err(Error::conflict(format!("cannot {action} {kind} {}: it is {state}", item.id)))
        }
    }
}

/// What every write asks first: is it there, not deleted, and what the caller saw?
fn writable(def: &EntityDef, target: Target, found: Option<Found>) -> Result<Found> {
    let found = found.ok_or_else(|| unknown(def, target.item))?;
    if found.item.deleted_at.is_some() {
        return Err(gone(def, target.item));
    }
    match target.if_match {
        Some(seen) if seen != found.item.version => Err(Error::new(
            Code::Precondition,
            format!(
                "{} {} has version {}, not {seen}: read it again before changing it",
                spaced(def.kind),
                target.item,
                found.item.version
            ),
        )
        .with_detail("version", found.item.version)),
        _ => Ok(found),
    }
}

/// What a turn wrote is a record of what happened.
fn open_to_people(def: &EntityDef, item: ItemRef, found: Found) -> Result<Item> {
    if found.written_by_turn {
        return Err(Error::conflict(format!(
            "{} {item} was written by a turn and cannot be changed",
            spaced(def.kind)
        )));
    }
    Ok(found.item)
}

/// An item stays with its parent.
fn stays(def: &EntityDef, rule: ParentRule, stored: Map<String, Value>, new: &Prepared) -> Result<()> {
    if def.projection(stored)?.parent == new.projection.parent {
        return Ok(());
    }
    let reason = format!("cannot be changed: make a new {} instead", spaced(def.kind));
    Err(Problem::new(rule.field, reason).into())
}

fn unknown(def: &EntityDef, item: ItemRef) -> Error {
    Error::not_found(format!("there is no {} {item}", spaced(def.kind)))
}

fn gone(def: &EntityDef, item: ItemRef) -> Error {
    Error::new(Code::Gone, format!("{} {item} was deleted", spaced(def.kind)))
}

/// The statement found no row to change and the next one found nothing wrong with it.
fn moved(def: &EntityDef, item: ItemRef) -> Error {
    Error::conflict(format!("{} {item} was changed at the same moment: try again", spaced(def.kind)))
}

fn no_status(def: &EntityDef) -> Error {
    let words: Vec<&str> = def.statuses.iter().map(|status| status.word).chain(["all"]).collect();
    let sentence = format!("status must be one of {}", words.join(", "));
    Error::invalid(Invalid::Unacceptable, sentence).with_detail("field", "status")
}

fn spaced(kind: &str) -> String {
    kind.replace('_', " ")
}
