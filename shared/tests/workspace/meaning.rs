//! Search by meaning in the database: whose items are compared, and which of them.

use serde_json::json;
use shared::{
    Code,
    identity::Actor,
    ids::ItemUid,
    testing::disguise,
    workspace::{
        definition,
        items::{self, ItemRef},
        search::{self, Meaning, Mode, Query},
    },
};

use crate::world::{World, object};

const MODEL: &str = "a-model";

/// Gives an item a vector, as a worker would.
async fn embed(world: &World, actor: &Actor, kind: &str, uid: ItemUid, model: &str, vector: &[f32]) {
    sqlx::query(
        "insert into item_embeddings (tenant_id, uid, kind, user_id, model, text_hash, embedding)
         values ($1, $2, $3, $4, $5, '', $6)",
    )
    .bind(actor.tenant)
    .bind(uid)
    .bind(kind)
    .bind(actor.user)
    .bind(model)
    .bind(vector)
    .execute(&world.database.admin())
    .await
    .unwrap();
}

fn near(vector: &[f32]) -> Query {
    let meaning = Meaning { model: MODEL.to_owned(), vector: vector.to_vec() };
    Query { text: "anything".to_owned(), mode: Mode::Semantic, meaning: Some(meaning), ..Query::default() }
}

async fn found(world: &World, actor: &Actor, query: &Query) -> Vec<ItemUid> {
    let mut tx = world.begin(actor).await;
    let found = search::search(&mut tx, query).await.unwrap();
    assert_eq!(found.next_cursor, None);
    found.results.into_iter().map(|hit| hit.uid).collect()
}

#[tokio::test]
async fn only_what_one_may_see_is_compared() {
    let world = World::new().await;
    let note = definition("note").unwrap();
    let anns = world.make_sample(&world.ann, note, 1).await.uid;
    let bobs = world.make_sample(&world.bob, note, 2).await.uid;
    let theirs = world.make_sample(&world.stranger, note, 3).await.uid;
    for (actor, uid) in [(&world.ann, anns), (&world.bob, bobs), (&world.stranger, theirs)] {
        embed(&world, actor, "note", uid, MODEL, &[1.0, 0.0]).await;
    }
    let query = near(&[1.0, 0.0]);
    assert_eq!(found(&world, &world.ann, &query).await, [anns]);
    assert_eq!(found(&world, &world.bob, &query).await, [bobs]);
    assert_eq!(found(&world, &world.stranger, &query).await, [theirs]);
    assert_eq!(found(&world, &world.admin, &query).await, [bobs, anns]);
    // Our filters name Ann; the function asks the transaction who is there.
    for other in [&world.bob, &world.stranger] {
        let mut tx = disguise(world.begin(other).await, &world.ann);
        let found = search::search(&mut tx, &query).await.unwrap();
        assert!(found.results.iter().all(|hit| hit.uid != anns), "somebody else's item was compared");
    }
    // And without anybody there is nothing.
    let nobody: Vec<(String,)> = sqlx::query_as(
        "select kind from search_embeddings(array[1, 0]::real[], 'a-model', null, null, true, 100)",
    )
    .fetch_all(&world.database.app)
    .await
    .unwrap();
    assert!(nobody.is_empty());
}

#[tokio::test]
async fn the_nearest_come_first_and_filters_hold() {
    let world = World::new().await;
    let ann = &world.ann;
    let note = definition("note").unwrap();
    let mut notes = Vec::new();
    for (number, vector) in [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]].iter().enumerate() {
        let uid = world.make_sample(ann, note, number).await.uid;
        embed(&world, ann, "note", uid, MODEL, vector).await;
        notes.push(uid);
    }
    let other_model = world.make_sample(ann, note, 7).await.uid;
    embed(&world, ann, "note", other_model, "another", &[1.0, 0.0]).await;
    let other_size = world.make_sample(ann, note, 8).await.uid;
    embed(&world, ann, "note", other_size, MODEL, &[1.0, 0.0, 0.0]).await;
    let task = world.make_sample(ann, definition("task").unwrap(), 9).await.uid;
    embed(&world, ann, "task", task, MODEL, &[0.8, 0.6]).await;

    let query = near(&[1.0, 0.0]);
    assert_eq!(found(&world, ann, &query).await, [notes[2], task, notes[1], notes[0]]);
    let of_notes = Query { kinds: vec!["notes".to_owned()], limit: Some(2), ..query.clone() };
    assert_eq!(found(&world, ann, &of_notes).await, [notes[2], notes[1]]);
    let open = Query { status: Some("pending".to_owned()), ..query.clone() };
    assert_eq!(found(&world, ann, &open).await, [task]);

    let mut tx = world.begin(ann).await;
    items::archive(&mut tx, note, ItemRef::Uid(notes[2]).into()).await.unwrap();
    items::delete(&mut tx, note, ItemRef::Uid(notes[1]).into()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(found(&world, ann, &query).await, [task, notes[0]]);
    let archived = Query { include_archived: true, ..query.clone() };
    assert_eq!(found(&world, ann, &archived).await, [notes[2], task, notes[0]]);
    let left: i64 = sqlx::query_scalar("select count(*) from item_embeddings where uid = $1")
        .bind(notes[1])
        .fetch_one(&world.database.admin())
        .await
        .unwrap();
    assert_eq!(left, 0, "what was deleted is forgotten");

    let unknown = Query { meaning: None, ..query };
    let mut tx = world.begin(ann).await;
    assert_eq!(search::search(&mut tx, &unknown).await.unwrap_err().code, Code::Malformed);
}

#[tokio::test]
async fn words_and_meaning_count_together() {
    let world = World::new().await;
    let ann = &world.ann;
    let note = definition("note").unwrap();
    let make = async |title: &str, vector: &[f32]| {
        let uid = world.make(ann, note, json!({"title": title})).await.uid;
        embed(&world, ann, "note", uid, MODEL, vector).await;
        uid
    };
    let meant = make("Automobile", &[1.0, 0.0]).await;
    let both = make("Car", &[0.9, 0.436]).await;
    let said = make("Car of paper", &[0.0, 1.0]).await;
    let query = Query { text: "car".to_owned(), mode: Mode::Hybrid, ..near(&[1.0, 0.0]) };
    assert_eq!(found(&world, ann, &query).await, [both, said, meant]);
}

#[tokio::test]
async fn nothing_is_put_on_the_list_without_a_model() {
    use shared::workspace::embeddings;
    let world = World::new().await;
    let engine = &world.database.engine;
    let note = definition("note").unwrap();
    let first = world.make_sample(&world.ann, note, 1).await;
    assert_eq!(embeddings::due_in(engine).await.unwrap(), None);
    embeddings::announce(engine, Some(MODEL)).await.unwrap();
    assert!(!embeddings::backfill(engine).await.unwrap());
    let listed = async || -> i64 {
        sqlx::query_scalar("select count(*) from embedding_outbox").fetch_one(engine).await.unwrap()
    };
    assert_eq!(listed().await, 1, "what was there before the model");
    world.make_sample(&world.bob, note, 2).await;
    assert_eq!(listed().await, 2);
    let mut tx = world.begin(&world.ann).await;
    items::patch(&mut tx, note, ItemRef::Uid(first.uid).into(), object(json!({"x": 1}))).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(listed().await, 2, "once an item");
    embeddings::announce(engine, None).await.unwrap();
    world.make_sample(&world.ann, note, 3).await;
    assert_eq!(listed().await, 0);
}
