//! SQL of search.

use sqlx::PgPool;

use super::{Filter, Hit, Match, Meaning, mark};
use crate::{
    db::TenantTx,
    error::Result,
    ids::ItemUid,
    workspace::{ENTITIES, EntityDef},
};

/// The newest matches before an item. Whose items are searched is the function's business: it asks the transaction.
pub(super) async fn matches(
    tx: &mut TenantTx,
    filter: &Filter<'_>,
    before: Option<ItemUid>,
    most: usize,
) -> Result<Vec<Match>> {
    Ok(sqlx::query_as("select kind, uid, rank from search_items($1, $2, $3, $4, $5, $6)")
        .bind(filter.text)
        .bind(filter.kinds.as_deref())
        .bind(filter.states.as_deref())
        .bind(filter.archived)
        .bind(before)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(tx.connection())
        .await?)
}

/// The items nearest to a meaning, nearest first; the rank is how far they are. Whose items are searched is the function's
/// business, as with [`matches`].
pub(super) async fn nearest(
    tx: &mut TenantTx,
    filter: &Filter<'_>,
    meaning: &Meaning,
    most: usize,
) -> Result<Vec<Match>> {
    Ok(sqlx::query_as("select kind, uid, distance as rank from search_embeddings($1, $2, $3, $4, $5, $6)")
        .bind(&meaning.vector)
        .bind(&meaning.model)
        .bind(filter.kinds.as_deref())
        .bind(filter.states.as_deref())
        .bind(filter.archived)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(tx.connection())
        .await?)
}

/// Kinds of items that are hidden with another one, each with the kind of that.
fn hidden_with() -> (Vec<&'static str>, Vec<&'static str>) {
    let pair = |def: &EntityDef| Some((def.kind, def.parent?.hides_with()?));
    ENTITIES.iter().filter_map(pair).unzip()
}

/// The items of matches, as far as the actor sees them.
pub(super) async fn hits(tx: &mut TenantTx, text: &str, matches: Vec<Match>) -> Result<Vec<Hit>> {
    if matches.is_empty() {
        return Ok(Vec::new());
    }
    let tenant = tx.actor().tenant;
    let kinds: Vec<&str> = matches.iter().map(|found| found.kind.as_str()).collect();
    let uids: Vec<ItemUid> = matches.iter().map(|found| found.uid).collect();
    let ranks: Vec<f32> = matches.iter().map(|found| found.rank).collect();
    let (parts, wholes) = hidden_with();
    let mut hits: Vec<Hit> = sqlx::query_as(
        "select i.kind, i.uid, i.id, i.payload ->> 'title' as title, w.rank, i.status, i.archived, i.parent_uid,
                i.created_at, i.updated_at,
                search_snippet($1, coalesce(nullif(item_text(i.payload), ''), i.payload ->> 'title', '')) as snippet
         from unnest($3::text[], $4::uuid[], $5::real[]) with ordinality w (kind, uid, rank, place)
         join items i on i.tenant_id = $2 and i.kind = w.kind and i.uid = w.uid
         where i.deleted_at is null
           and not exists (
             select from unnest($6::text[], $7::text[]) p (part, whole)
             join items c on c.tenant_id = $2 and c.kind = p.whole and c.uid = i.parent_uid
             where p.part = i.kind and c.deleted_at is not null)
         order by w.place",
    )
    .bind(text)
    .bind(tenant)
    .bind(&kinds)
    .bind(&uids)
    .bind(&ranks)
    .bind(parts)
    .bind(wholes)
    .fetch_all(tx.connection())
    .await?;
    for hit in &mut hits {
        hit.snippet = mark::safe(&hit.snippet);
    }
    Ok(hits)
}

/// Indexes messages that turns wrote, in all tenants.
pub(super) async fn catch_up(engine: &PgPool, most: i64) -> Result<i64> {
    Ok(sqlx::query_scalar("select search_catch_up(null, $1)").bind(most).fetch_one(engine).await?)
}
