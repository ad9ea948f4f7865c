//! Full-text search: what is found, in which order, how it is shown, and by whom.

use std::collections::HashSet;

use serde_json::{Value, json};
use shared::{
    Code,
    identity::Actor,
    ids::ItemUid,
    workspace::{
        definition,
        items::{self, ItemRef},
        search::{self, Found, Query},
    },
};
use uuid::Uuid;

use crate::world::{World, object};

async fn find(world: &World, actor: &Actor, query: Query) -> shared::Result<Found> {
    let mut tx = world.begin(actor).await;
    let found = search::search(&mut tx, &query).await?;
    tx.commit().await?;
    Ok(found)
}

fn words(text: &str) -> Query {
    Query { text: text.to_owned(), ..Query::default() }
}

/// The titles that are found, in order.
async fn titles(world: &World, actor: &Actor, query: Query) -> Vec<String> {
    let found = find(world, actor, query).await.unwrap();
    found.results.into_iter().map(|hit| hit.title.unwrap_or_default()).collect()
}

async fn note(world: &World, actor: &Actor, title: &str, content: &str) -> ItemUid {
    world.make(actor, definition("note").unwrap(), json!({"title": title, "content": content})).await.uid
}

#[tokio::test]
async fn words_phrases_alternatives_and_exclusions() {
    let world = World::new().await;
    let ann = &world.ann;
    note(&world, ann, "one", "The quick brown fox jumps over lazy dogs").await;
    note(&world, ann, "two", "A brown quick bear and a fox").await;
    note(&world, ann, "three", "Nothing but bears").await;
    for (query, expected) in [
        ("fox", vec!["one", "two"]),
        ("foxes", vec!["one", "two"]),
        ("quick fox", vec!["one", "two"]),
        ("\"quick brown\"", vec!["one"]),
        ("\"brown quick\" or nothing", vec!["three", "two"]),
        ("fox -bear", vec!["one"]),
        ("bear", vec!["three", "two"]),
        ("wolf", vec![]),
        ("the", vec![]),
        ("\"", vec![]),
        ("'); drop table items; --", vec![]),
    ] {
        let mut found = titles(&world, ann, words(query)).await;
        found.sort();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn a_title_outweighs_a_tag_and_a_tag_a_text() {
    let world = World::new().await;
    let def = definition("note").unwrap();
    for payload in [
        json!({"title": "zebra", "content": "of stripes"}),
        json!({"title": "tagged", "content": "of stripes", "tags": ["zebra"]}),
        json!({"title": "told", "content": "a zebra"}),
        json!({"title": "other", "content": "a horse", "colour": "zebra"}),
    ] {
        world.make(&world.ann, def, payload).await;
    }
    let found = find(&world, &world.ann, words("zebra")).await.unwrap().results;
    let titles: Vec<_> = found.iter().map(|hit| hit.title.as_deref().unwrap()).collect();
    assert_eq!((titles[0], titles[3]), ("zebra", "other"), "{found:#?}");
    assert!(found.is_sorted_by(|first, second| first.rank >= second.rank));
}

#[tokio::test]
async fn kinds_status_and_archive_narrow_it() {
    let world = World::new().await;
    let (notes, tasks) = (definition("note").unwrap(), definition("task").unwrap());
    world.make(&world.ann, notes, json!({"title": "tea note"})).await;
    world.make(&world.ann, notes, json!({"title": "tea archived", "archived": true})).await;
    for status in ["todo", "in_progress", "done", "archived"] {
        world.make(&world.ann, tasks, json!({"title": format!("tea {status}"), "status": status})).await;
    }
    let all = async |query: Query| {
        let mut found = titles(&world, &world.ann, query).await;
        found.sort();
        found.into_iter().map(|title| title.replace("tea ", "")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(all(words("tea")).await, "done in_progress note todo");
    let archived = Query { include_archived: true, ..words("tea") };
    assert_eq!(all(archived).await, "archived archived done in_progress note todo");
    let kinds =
        |kinds: &[&str]| Query { kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(), ..words("tea") };
    assert_eq!(all(kinds(&["notes"])).await, "note");
    assert_eq!(all(kinds(&["task", "note"])).await, "done in_progress note todo");
    for (status, expected) in [
        ("pending", "in_progress todo"),
        ("completed", "done"),
        ("archived", "archived"),
        ("all", "done in_progress note todo"),
    ] {
        let query = Query { status: Some(status.to_owned()), ..words("tea") };
        assert_eq!(all(query).await, expected, "{status}");
    }
    for (query, field) in [
        (kinds(&["dogs"]), "kinds"),
        (Query { status: Some("asleep".to_owned()), ..words("tea") }, "status"),
        (Query { status: Some("pending".to_owned()), ..kinds(&["note"]) }, "status"),
        (Query { limit: Some(0), ..words("tea") }, "limit"),
        (Query { limit: Some(101), ..words("tea") }, "limit"),
        (words(" "), "q"),
        (words(&"x".repeat(501)), "q"),
    ] {
        let error = find(&world, &world.ann, query).await.unwrap_err();
        assert_eq!((error.code, error.details.unwrap()["field"].as_str()), (Code::Malformed, Some(field)));
    }
}

#[tokio::test]
async fn what_is_changed_or_deleted_is_found_as_it_is() {
    let world = World::new().await;
    let def = definition("note").unwrap();
    let made = note(&world, &world.ann, "first", "apples").await;
    let mut tx = world.begin(&world.ann).await;
    let target = ItemRef::Uid(made).into();
    items::patch(&mut tx, def, target, object(json!({"content": "pears"}))).await.unwrap();
    // Also within the transaction that wrote it.
    assert_eq!(search::search(&mut tx, &words("pears")).await.unwrap().results.len(), 1);
    tx.commit().await.unwrap();
    assert!(titles(&world, &world.ann, words("apples")).await.is_empty());
    let mut tx = world.begin(&world.ann).await;
    items::archive(&mut tx, def, target).await.unwrap();
    tx.commit().await.unwrap();
    assert!(titles(&world, &world.ann, words("pears")).await.is_empty());
    let query = Query { include_archived: true, ..words("pears") };
    assert_eq!(titles(&world, &world.ann, query.clone()).await, ["first"]);
    let mut tx = world.begin(&world.ann).await;
    items::delete(&mut tx, def, target).await.unwrap();
    tx.commit().await.unwrap();
    assert!(titles(&world, &world.ann, query).await.is_empty());
}

#[tokio::test]
async fn nobody_finds_anothers() {
    let world = World::new().await;
    note(&world, &world.ann, "ann", "secret garden").await;
    note(&world, &world.bob, "bob", "secret cellar").await;
    note(&world, &world.stranger, "stranger", "secret tower").await;
    for (actor, expected) in [
        (&world.ann, vec!["ann"]),
        (&world.bob, vec!["bob"]),
        (&world.admin, vec!["ann", "bob"]),
        (&world.stranger, vec!["stranger"]),
        (&Actor::of_turn(world.admin.tenant, world.admin.user), vec![]),
    ] {
        let mut found = titles(&world, actor, words("secret")).await;
        found.sort();
        assert_eq!(found, expected);
    }
    // The function by itself, without an actor, finds nothing; the tables behind it cannot be read at all.
    let app = &world.database.app;
    let found: i64 =
        sqlx::query_scalar("select count(*) from search_items('secret', null, null, true, null, 100)")
            .fetch_one(app)
            .await
            .unwrap();
    assert_eq!(found, 0);
    assert!(sqlx::query("select * from search_documents").execute(app).await.is_err(), "words can be read");
}

#[tokio::test]
async fn snippets_are_safe_to_show() {
    let world = World::new().await;
    let text = "<script>alert(1)</script> \u{2}forged\u{3} a & b <b onclick='x'>needle</b> \"end\"";
    note(&world, &world.ann, "html", text).await;
    let found = find(&world, &world.ann, words("needle")).await.unwrap().results;
    let snippet = &found[0].snippet;
    assert!(snippet.contains("<mark>needle</mark>"), "{snippet}");
    let rest = snippet.replace("<mark>", "").replace("</mark>", "");
    assert!(!rest.contains(['<', '>', '"', '\'', '\u{2}', '\u{3}']), "{snippet}");
    assert!(!snippet.contains("<mark>forged"), "{snippet}");
    // A match in the title alone shows the beginning of the text; without a text, the title.
    let def = definition("task").unwrap();
    world.make(&world.ann, def, json!({"title": "a needle & thread"})).await;
    let query = Query { kinds: vec!["task".to_owned()], ..words("needle") };
    let found = find(&world, &world.ann, query).await.unwrap().results;
    assert_eq!(found[0].snippet, "a <mark>needle</mark> &amp; thread");
}

#[tokio::test]
async fn pages_reach_every_match_once() {
    let world = World::new().await;
    // More than one window; some weigh more than others.
    for number in 0..230 {
        let title = if number % 3 == 0 { format!("plum {number}") } else { format!("{number}") };
        note(&world, &world.ann, &title, "plum").await;
    }
    let (mut seen, mut cursor, mut pages) = (HashSet::new(), None, 0);
    loop {
        let query = Query { limit: Some(33), cursor, ..words("plum") };
        let found = find(&world, &world.ann, query).await.unwrap();
        assert!(found.results.is_sorted_by(|first, second| first.rank >= second.rank));
        for hit in found.results {
            assert!(seen.insert(hit.uid), "{hit:?} comes twice");
        }
        pages += 1;
        cursor = found.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (230, 8));
    for bad in ["", "x", "AgAA"] {
        let query = Query { cursor: Some(bad.to_owned()), ..words("plum") };
        assert_eq!(find(&world, &world.ann, query).await.unwrap_err().code, Code::Malformed);
    }
}

/// Short ids of messages.
static COUNTER: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1);

/// A message as a turn writes it.
async fn message(world: &World, actor: &Actor, chat: Uuid, payload: Value) {
    let mut tx = world.begin(actor).await;
    sqlx::query(
        "insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
         values ($1, 'chat_message', $2, $3, $4, $5, $6, 1, $2)",
    )
    .bind(actor.tenant)
    .bind(Uuid::now_v7())
    .bind(COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    .bind(actor.user)
    .bind(payload)
    .bind(chat)
    .execute(tx.connection())
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_turns_write_is_found_at_once_though_nobody_waited_for_it() {
    let world = World::new().await;
    let chat = Uuid::now_v7();
    message(&world, &world.ann, chat, json!({"role": "user", "content": "where is the anchor"})).await;
    message(&world, &world.ann, chat, json!({"role": "assistant", "content": "the anchor is aboard"})).await;
    message(&world, &world.ann, chat, json!({"role": "tool", "content": "anchor"})).await;
    message(&world, &world.stranger, chat, json!({"role": "user", "content": "an anchor"})).await;
    let pending = async || -> i64 {
        let all = sqlx::query_scalar("select count(*) from changes where to_index");
        all.fetch_one(&world.database.admin()).await.unwrap()
    };
    assert_eq!(pending().await, 4);
    assert_eq!(find(&world, &world.ann, words("anchor")).await.unwrap().results.len(), 2);
    assert_eq!(pending().await, 1, "a search indexes its own tenant's");
    assert_eq!(search::catch_up(&world.database.engine, 100).await.unwrap(), 1);
    assert_eq!(pending().await, 0);
    assert_eq!(find(&world, &world.stranger, words("anchor")).await.unwrap().results.len(), 1);
}
