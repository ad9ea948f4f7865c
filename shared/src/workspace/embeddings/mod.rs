//! What items mean, as numbers to search by: made by the queue `embeddings` from a list that a trigger writes in the
//! transaction that changes an item, so that nothing is missed and nobody who writes an item waits for a model.
//!
//! A round takes some of the list for two minutes, reads each text as the item's owner, asks the model once, writes the
//! vectors as the owner again, and takes off the list what has not changed meanwhile. A process that dies in between leaves
//! its part to others; a text that was embedded already is not sent again; no transaction is open while the model is asked.

mod store;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;

use crate::{
    db::TenantDb,
    error::Result,
    identity::Actor,
    ids::{ItemUid, TenantId, UserId},
    model::{ModelError, ModelErrorKind, embeddings::Embedder},
};

/// Items of one round.
const ROUND: i64 = 64;
/// Items from before the model that are put on the list together.
const BACKFILL: i64 = 1000;
/// The most letters of a text that are sent; models cut it at some such place anyway.
const LONGEST: usize = 6000;
/// The pause after a first failure; it doubles with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How often a text is tried that the model refuses.
const TRIES_IF_REFUSED: i64 = 3;

/// An item on the list, taken by a round.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Due {
    tenant_id: TenantId,
    uid: ItemUid,
    kind: String,
    user_id: UserId,
    seq: i64,
    attempts: i64,
}

/// A text that the model has to see.
struct Unseen {
    due: Due,
    text: String,
    hash: [u8; 32],
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Items that it took from the list.
    pub taken: usize,
    /// Those whose text was sent, and whose vectors are stored.
    pub embedded: usize,
    /// Those that are to be tried again.
    pub failed: usize,
}

/// Says which model embeds from now on, or that none does. A model that is another one embeds all items again.
///
/// # Errors
/// The database's.
pub async fn announce(engine: &PgPool, model: Option<&str>) -> Result<()> {
    match model {
        Some(model) => store::announce(engine, model).await,
        None => store::switch_off(engine).await,
    }
}

/// Puts some items from before the model on the list; answers whether there are more.
///
/// # Errors
/// The database's.
pub async fn backfill(engine: &PgPool) -> Result<bool> {
    Ok(store::backfill(engine, BACKFILL).await? >= BACKFILL)
}

/// How long until something on the list is due; none when the list is empty.
///
/// # Errors
/// The database's.
pub async fn due_in(engine: &PgPool) -> Result<Option<Duration>> {
    let seconds = store::due_in(engine).await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()))
}

/// Embeds a part of what is due.
///
/// # Errors
/// The database's. That the model fails is no error here: its items are tried again later.
pub async fn round(engine: &PgPool, tenants: &TenantDb, embedder: &Embedder) -> Result<Round> {
    let taken = store::take(engine, ROUND).await?;
    let mut round = Round { taken: taken.len(), ..Round::default() };
    if taken.is_empty() {
        return Ok(round);
    }
    let (unseen, seen) = read(tenants, embedder.name(), taken).await?;
    store::finish(engine, &seen).await?;
    let texts: Vec<String> = unseen.iter().map(|unseen| unseen.text.clone()).collect();
    if texts.is_empty() {
        return Ok(round);
    }
    match embedder.embed(&texts).await {
        Ok(embeddings) => {
            round.embedded = unseen.len();
            write(engine, tenants, embedder.name(), unseen.into_iter().zip(embeddings.vectors)).await?;
        }
        // One text that the model will not have must not keep the others.
        Err(error) if error.kind == ModelErrorKind::Rejected => {
            for unseen in unseen {
                match embedder.embed(std::slice::from_ref(&unseen.text)).await {
                    Ok(embeddings) => {
                        round.embedded += 1;
                        let pairs = std::iter::once(unseen).zip(embeddings.vectors);
                        write(engine, tenants, embedder.name(), pairs).await?;
                    }
                    Err(error) => {
                        round.failed += 1;
                        put_back(engine, &error, vec![unseen.due]).await?;
                    }
                }
            }
        }
        Err(error) => {
            round.failed = unseen.len();
            put_back(engine, &error, unseen.into_iter().map(|unseen| unseen.due).collect()).await?;
        }
    }
    Ok(round)
}

/// Reads texts, each as its item's owner: those that the model has to see, and the items that need nothing more.
async fn read(tenants: &TenantDb, model: &str, taken: Vec<Due>) -> Result<(Vec<Unseen>, Vec<Due>)> {
    let (mut unseen, mut seen) = (Vec::new(), Vec::new());
    for ((tenant, user), of_owner) in by_owner(taken, |due| due) {
        let mut tx = tenants.begin(&Actor::of_turn(tenant, user)).await?;
        let mut stored = store::texts(&mut tx, model, &of_owner).await?;
        tx.commit().await?;
        for due in of_owner {
            let found = stored.remove(&(due.kind.clone(), due.uid));
            let text = found.as_ref().map(|found| text(&found.payload)).filter(|text| !text.is_empty());
            let hashed = text.map(|text| (<[u8; 32]>::from(Sha256::digest(&text)), text));
            match hashed {
                Some((hash, text))
                    if found.and_then(|found| found.text_hash).is_none_or(|old| old != hash) =>
                {
                    unseen.push(Unseen { due, text, hash });
                }
                _ => seen.push(due),
            }
        }
    }
    Ok((unseen, seen))
}

/// Stores vectors, each as its item's owner, then takes the items off the list.
async fn write(
    engine: &PgPool,
    tenants: &TenantDb,
    model: &str,
    pairs: impl Iterator<Item = (Unseen, Vec<f32>)>,
) -> Result<()> {
    for ((tenant, user), of_owner) in by_owner(pairs.collect(), |(unseen, _)| &unseen.due) {
        let mut tx = tenants.begin(&Actor::of_turn(tenant, user)).await?;
        for (unseen, vector) in &of_owner {
            store::put(&mut tx, model, &unseen.due, &unseen.hash, vector).await?;
        }
        tx.commit().await?;
        let done: Vec<Due> = of_owner.into_iter().map(|(unseen, _)| unseen.due).collect();
        store::finish(engine, &done).await?;
    }
    Ok(())
}

/// Leaves items for later, or for good when the model has refused them often enough.
async fn put_back(engine: &PgPool, error: &ModelError, items: Vec<Due>) -> Result<()> {
    let is_refused = error.kind == ModelErrorKind::Rejected;
    let (given_up, later): (Vec<Due>, Vec<Due>) =
        items.into_iter().partition(|due| is_refused && due.attempts >= TRIES_IF_REFUSED);
    tracing::warn!(
        error = error as &dyn std::error::Error,
        later = later.len(),
        given_up = given_up.len(),
        "texts could not be embedded"
    );
    store::finish(engine, &given_up).await?;
    let attempts = later.iter().map(|due| due.attempts).max().unwrap_or(1);
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let pause = FIRST_PAUSE.saturating_mul(1 << exponent).min(LONGEST_PAUSE);
    let pause = pause.max(error.retry_after.unwrap_or_default().min(LONGEST_PAUSE));
    store::put_back(engine, &later, pause.mul_f64(rand::random_range(0.8..1.2)).as_secs_f64()).await
}

/// In one order, so that two rounds never wait for each other.
fn by_owner<T>(all: Vec<T>, due: impl Fn(&T) -> &Due) -> BTreeMap<(TenantId, UserId), Vec<T>> {
    let mut owners: BTreeMap<(TenantId, UserId), Vec<T>> = BTreeMap::new();
    for one in all {
        let key = (due(&one).tenant_id, due(&one).user_id);
        owners.entry(key).or_default().push(one);
    }
    owners
}

/// What an item says: its title, its tags and its text. What tools answered is not searched.
fn text(payload: &Map<String, Value>) -> String {
    let field = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default().trim();
    if field("role") == "tool" {
        return String::new();
    }
    let tags = payload.get("tags").and_then(Value::as_array).into_iter().flatten();
    let tags: Vec<&str> = tags.filter_map(Value::as_str).collect();
    let parts = [field("title"), &tags.join(", "), field("content"), field("description")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_is_what_an_item_says() {
        let of = |payload: Value| text(payload.as_object().unwrap());
        let note =
            json!({"title": " Fence ", "tags": ["garden", "paint"], "content": "Green.", "pinned": true});
        assert_eq!(of(note), "Fence\ngarden, paint\nGreen.");
        assert_eq!(of(json!({"role": "tool", "content": "{}"})), "");
        assert_eq!(of(json!({"title": "x".repeat(9000)})).len(), LONGEST);
    }
}
