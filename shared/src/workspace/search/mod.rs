//! Search over all entities, by words and by meaning ([`Mode`]). By words: who matches comes from one audited function of the database, what they say is
//! then read under row-level security like anything else.
//!
//! The newest [`WINDOW`] matches are ranked together, then the next older ones, page after page: a common word costs no
//! more than a rare one, and a reader who goes on sees every match.

mod cursor;
mod mark;
mod meaning;
mod store;

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use self::cursor::Place;
pub use self::meaning::{Meaning, Mode};
use super::{ENTITIES, EntityDef, schema::Problem};
use crate::{db::TenantTx, error::Result, ids::ItemUid};

/// How many results a page has unless the caller says otherwise.
pub const PAGE: usize = 20;
/// The most results that a page may have.
pub const LARGEST_PAGE: usize = 100;
/// Matches that are ranked together.
const WINDOW: usize = 200;
/// The longest query, in letters.
pub const LONGEST: usize = 500;

/// What to look for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// Words, all of which must occur; `"a phrase"`, `or`, `-not`.
    pub text: String,
    /// Kinds, in either number; none: all.
    pub kinds: Vec<String>,
    /// A word of some kind's status filter, or `all`.
    pub status: Option<String>,
    /// Also what was archived.
    pub include_archived: bool,
    /// 1 to [`LARGEST_PAGE`]; none: [`PAGE`].
    pub limit: Option<usize>,
    /// [`Found::next_cursor`] of the page before; by words only.
    pub cursor: Option<String>,
    /// How the text is understood.
    pub mode: Mode,
    /// What it means, for modes that ask.
    pub meaning: Option<Meaning>,
}

/// A page of results.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The best first, within the newest matches.
    pub results: Vec<Hit>,
    /// For the next page; none: this was the last.
    pub next_cursor: Option<String>,
}

/// An item that matches.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Hit {
    /// Its kind.
    pub kind: String,
    /// Its uid.
    pub uid: ItemUid,
    /// Its short id.
    pub id: i64,
    /// Its title, if it has one, as it is.
    pub title: Option<String>,
    /// Its text around the matches: `&`, `<`, `>`, `"` and `'` as entities, and each match between `<mark>` and `</mark>`.
    pub snippet: String,
    /// How well it matches; to be compared within a page only.
    #[sqlx(default)]
    pub rank: f32,
    /// Its state, if it has states.
    pub status: Option<String>,
    /// Whether it is archived.
    pub archived: bool,
    /// The item that it hangs on.
    pub parent_uid: Option<ItemUid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What [`store::matches`] filters by.
struct Filter<'a> {
    text: &'a str,
    kinds: Option<Vec<&'static str>>,
    states: Option<Vec<&'static str>>,
    archived: bool,
}

/// A match, before anybody has looked at the item.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
struct Match {
    kind: String,
    uid: ItemUid,
    rank: f32,
}

impl Match {
    /// The best first; of equals, the newest.
    fn order(&self, other: &Self) -> Ordering {
        other.rank.total_cmp(&self.rank).then(other.uid.cmp(&self.uid)).then(other.kind.cmp(&self.kind))
    }
}

/// Searches what the actor may see: their own items, or the tenant's for its admin. What was deleted is not found.
///
/// # Errors
/// 400 for a cursor that is not ours; 422 naming the parameter.
pub async fn search(tx: &mut TenantTx, query: &Query) -> Result<Found> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::new("limit", format!("must be between 1 and {LARGEST_PAGE}")).into());
    }
    let text = text_of(&query.text)?;
    let filter = filter(query, &text)?;
    if query.mode != Mode::Text {
        if query.cursor.is_some() {
            return Err(Problem::new("cursor", "is for mode=text: other modes have one page").into());
        }
        let best = meaning::best(tx, &filter, query.mode, query.meaning.as_ref(), limit).await?;
        return Ok(Found { results: store::hits(tx, filter.text, best).await?, next_cursor: None });
    }
    let mut place = query.cursor.as_deref().map(Place::read).transpose()?.unwrap_or_default();
    loop {
        let mut matches = store::matches(tx, &filter, place.before, WINDOW).await?;
        let oldest = matches.iter().map(|found| found.uid).min();
        let full = matches.len() >= WINDOW;
        matches.sort_by(Match::order);
        matches.retain(|found| place.is_before(found));
        let more = matches.len() > limit;
        matches.truncate(limit);
        let next = match (matches.last(), oldest) {
            (Some(last), _) if more => Some(place.after(last)),
            (_, Some(oldest)) if full => Some(Place::window(oldest)),
            _ => None,
        };
        let results = store::hits(tx, filter.text, matches).await?;
        // What a deleted item hides makes no result, and a page without any is no answer while there are more.
        match next {
            Some(next) if results.is_empty() => place = next,
            next => return Ok(Found { results, next_cursor: next.map(|next| next.to_string()) }),
        }
    }
}

/// Indexes a chunk of the messages that turns wrote, in all tenants; answers how many. A search does so for its own
/// tenant first, so that this only keeps it from having to.
///
/// # Errors
/// The database's.
pub async fn catch_up(engine: &PgPool, most: i64) -> Result<i64> {
    store::catch_up(engine, most).await
}

/// The text of a query, as it is looked for.
fn text_of(text: &str) -> Result<String, Problem> {
    let text = text.replace('\0', " ").trim().to_owned();
    if text.is_empty() || text.chars().count() > LONGEST {
        return Err(Problem::new("q", format!("must have 1 to {LONGEST} letters")));
    }
    Ok(text)
}

fn filter<'a>(query: &Query, text: &'a str) -> Result<Filter<'a>> {
    let searched: Vec<&EntityDef> = if query.kinds.is_empty() {
        ENTITIES.iter().collect()
    } else {
        query.kinds.iter().map(|name| kind(name)).collect::<Result<_, _>>()?
    };
    let status = query.status.as_deref().filter(|status| *status != "all");
    let filters = status.map(|word| {
        let all = searched.iter().flat_map(|def| def.statuses);
        all.filter(|status| status.word == word).collect::<Vec<_>>()
    });
    if filters.as_ref().is_some_and(Vec::is_empty) {
        let mut words: Vec<&str> =
            searched.iter().flat_map(|def| def.statuses).map(|status| status.word).collect();
        words.sort_unstable();
        words.dedup();
        let sentence =
            format!("must be one of {}", words.into_iter().chain(["all"]).collect::<Vec<_>>().join(", "));
        return Err(Problem::new("status", sentence).into());
    }
    let archived = filters.iter().flatten().any(|status| status.archived);
    Ok(Filter {
        text,
        kinds: (!query.kinds.is_empty()).then(|| searched.iter().map(|def| def.kind).collect()),
        states: filters.map(|filters| filters.iter().flat_map(|status| status.states).copied().collect()),
        archived: query.include_archived || archived,
    })
}

fn kind(name: &str) -> Result<&'static EntityDef, Problem> {
    ENTITIES.iter().find(|def| def.kind == name || def.plural == name).ok_or_else(|| {
        let known: Vec<&str> = ENTITIES.iter().map(|def| def.plural).collect();
        Problem::new("kinds", format!("must be some of {}", known.join(", ")))
    })
}
