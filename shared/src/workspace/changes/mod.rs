//! The change feed: every version of every item, in an order that no late commit can slip behind.
//!
//! The rows are written by a trigger, in the transaction that changed the item, whoever changed it. A page ends short of
//! the oldest transaction that is still running, so that what lies before a [`Cursor`] is complete for ever: a reader who
//! goes on from the last cursor it was given misses nothing, and a transaction that takes long holds later changes up
//! instead of being passed by. [`ChangeHub`] tells followers when to look.
//!
//! Invariant: a page shows an actor their own changes, and an admin the tenant's; nothing of another tenant's.

mod cursor;
mod hub;
mod store;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgPool;

pub use cursor::{Cursor, Place};
pub use hub::{ChangeHub, Follower};

use super::{items::Item, schema::Problem};
use crate::{
    db::TenantTx,
    error::{Code, Error, Result},
    ids::{ItemUid, UserId},
};

/// How many changes a page has unless the caller says otherwise.
pub const PAGE: i64 = 100;
/// The most changes that a page may have.
pub const LARGEST_PAGE: i64 = 1000;

/// One version of an item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Goes on after this change.
    pub cursor: String,
    /// The item's kind, such as task.
    pub kind: String,
    /// The item.
    pub uid: ItemUid,
    /// The version that this change made.
    pub version: i64,
    /// created, updated or deleted.
    pub change: String,
    /// Whose item it is.
    pub user_id: UserId,
    /// When it was changed.
    pub at: DateTime<Utc>,
    /// The item as it is now, when items were asked for: with the item's last change on the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Item>,
}

/// What follows a cursor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// In the order in which they are told, which is the same for every reader.
    pub changes: Vec<Change>,
    /// For the next page; also when there were no changes.
    pub next_cursor: String,
    /// Whether the next page would have changes already.
    pub more: bool,
}

/// What a page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to [`LARGEST_PAGE`].
    pub limit: i64,
    /// Whether the items come with their changes.
    pub items: bool,
}

/// The cursor behind everything that has happened: whoever lists items after taking it, then goes on from it, has all.
///
/// # Errors
/// The database's.
pub async fn now(tx: &mut TenantTx) -> Result<Cursor> {
    let state = store::state(tx).await?;
    Ok(Cursor { epoch: state.epoch()?, place: state.settled()? })
}

/// What comes after the cursor.
///
/// # Errors
/// 410 when the cursor belongs to another history or retention has passed it: list again; 422 for a limit that is none.
pub async fn page(tx: &mut TenantTx, after: &Cursor, query: PageQuery) -> Result<Page> {
    if !(1..=LARGEST_PAGE).contains(&query.limit) {
        return Err(Problem::new("limit", format!("must be between 1 and {LARGEST_PAGE}")).into());
    }
    let (state, mut rows) = store::page(tx, after.place, query.limit + 1, query.items).await?;
    let epoch = state.epoch()?;
    if after.epoch != epoch || after.place < state.dropped()? {
        return Err(list_again());
    }
    let more = rows.len() as i64 > query.limit;
    if more {
        rows.pop();
    }
    let last = rows.last().map_or(after.place, |row| row.place);
    // Behind a last page, everything that is settled has been seen, also others' changes.
    let next = if more { last } else { last.max(state.settled()?) };
    Ok(Page { changes: told(rows, &epoch), next_cursor: Cursor { epoch, place: next }.to_string(), more })
}

/// Deletes a chunk of the changes that are older than this, in all tenants; answers how many. Cursors before them are
/// answered 410 from then on.
///
/// # Errors
/// The database's.
pub async fn forget(engine: &PgPool, age: TimeDelta, most: i64) -> Result<u64> {
    store::forget(engine, Utc::now() - age, most).await
}

/// For how many seconds the feed has been held up: how long the oldest change that is committed and cannot be told yet has
/// waited for an older transaction to end. 0 when nothing waits.
///
/// # Errors
/// The database's.
pub async fn lag_seconds(engine: &PgPool) -> Result<f64> {
    store::lag_seconds(engine).await
}

/// Each item comes once, with its last change.
fn told(rows: Vec<store::Row>, epoch: &cursor::Epoch) -> Vec<Change> {
    let mut seen = std::collections::HashSet::new();
    let mut changes: Vec<Change> = rows
        .into_iter()
        .rev()
        .map(|row| Change {
            cursor: Cursor { epoch: *epoch, place: row.place }.to_string(),
            item: row.item.filter(|item| seen.insert(item.uid)),
            kind: row.kind,
            uid: row.uid,
            version: row.version,
            change: row.change,
            user_id: row.user_id,
            at: row.at,
        })
        .collect();
    changes.reverse();
    changes
}

fn list_again() -> Error {
    Error::new(
        Code::Gone,
        "what came after this cursor is no longer known: take a new cursor with ?since=now, then list again",
    )
}
