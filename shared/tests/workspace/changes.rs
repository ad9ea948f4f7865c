//! The change feed: everything is told, once, in one order, to whom it concerns, however late it was committed.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use serde_json::json;
use shared::{
    Code,
    identity::Actor,
    ids::ItemUid,
    workspace::{
        EntityDef,
        changes::{self, Cursor, Page, PageQuery},
        definition,
        items::{self, ItemRef, Target},
    },
};

use crate::world::{World, object};

const ALL: PageQuery = PageQuery { limit: changes::LARGEST_PAGE, items: false };

fn note() -> &'static EntityDef {
    definition("note").unwrap()
}

async fn now(world: &World, actor: &Actor) -> Cursor {
    let mut tx = world.begin(actor).await;
    changes::now(&mut tx).await.unwrap()
}

async fn page(world: &World, actor: &Actor, cursor: &Cursor, query: PageQuery) -> shared::Result<Page> {
    let mut tx = world.begin(actor).await;
    let page = changes::page(&mut tx, cursor, query).await?;
    tx.commit().await?;
    Ok(page)
}

/// Reads until so many changes are there. Another test's open transaction in the same cluster holds up all feeds, so a
/// change may take a moment.
async fn read(world: &World, actor: &Actor, from: &Cursor, wanted: usize) -> Vec<changes::Change> {
    let (mut cursor, mut told) = (*from, Vec::new());
    let reading = async {
        while told.len() < wanted {
            let page = page(world, actor, &cursor, ALL).await.unwrap();
            cursor = Cursor::read(&page.next_cursor).unwrap();
            told.extend(page.changes);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), reading).await.is_ok();
    assert!(in_time, "{wanted} changes did not come; there are {told:#?}");
    assert_eq!(told.len(), wanted, "{told:#?}");
    told
}

fn brief(changes: &[changes::Change]) -> Vec<(ItemUid, i64, &str)> {
    changes.iter().map(|change| (change.uid, change.version, change.change.as_str())).collect()
}

#[tokio::test]
async fn every_version_is_told_once_and_in_order() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    let first = world.make(&world.ann, note(), json!({"title": "one"})).await.uid;
    let second = world.make(&world.ann, note(), json!({"title": "two"})).await.uid;
    for step in ["patch", "update", "archive", "archive", "process", "delete"] {
        let mut tx = world.begin(&world.ann).await;
        let target = Target::from(ItemRef::Uid(first));
        match step {
            "patch" => items::patch(&mut tx, note(), target, object(json!({"x": 1}))).await.unwrap(),
            "update" => items::update(&mut tx, note(), target, object(json!({"title": "1"}))).await.unwrap(),
            "archive" => items::archive(&mut tx, note(), target).await.unwrap(),
            "process" => items::process(&mut tx, note(), target, "pin").await.unwrap(),
            _ => items::delete(&mut tx, note(), target).await.unwrap(),
        };
        tx.commit().await.unwrap();
    }
    // The second archiving changes nothing, and so is told to nobody.
    let expected = [
        (first, 1, "created"),
        (second, 1, "created"),
        (first, 2, "updated"),
        (first, 3, "updated"),
        (first, 4, "updated"),
        (first, 5, "updated"),
        (first, 6, "deleted"),
    ];
    let told = read(&world, &world.ann, &start, expected.len()).await;
    assert_eq!(brief(&told), expected);
    assert!(told.iter().all(|change| change.user_id == world.ann.user && change.kind == "note"));
    // From each change on, the rest.
    for (index, change) in told.iter().enumerate() {
        let from = Cursor::read(&change.cursor).unwrap();
        let rest = page(&world, &world.ann, &from, ALL).await.unwrap();
        assert_eq!(rest.changes, told[index + 1..]);
        assert!(!rest.more);
    }
    // Page by page.
    let (mut cursor, mut paged) = (start, Vec::new());
    loop {
        let page = page(&world, &world.ann, &cursor, PageQuery { limit: 3, items: false }).await.unwrap();
        cursor = Cursor::read(&page.next_cursor).unwrap();
        assert!(page.changes.len() <= 3);
        paged.extend(page.changes);
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, told);
}

#[tokio::test]
async fn what_was_rolled_back_is_told_to_nobody() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    let mut tx = world.begin(&world.ann).await;
    items::create(&mut tx, note(), object(json!({"title": "never"}))).await.unwrap();
    tx.rollback().await.unwrap();
    let kept = world.make(&world.ann, note(), json!({"title": "kept"})).await;
    assert_eq!(brief(&read(&world, &world.ann, &start, 1).await), [(kept.uid, 1, "created")]);
}

#[tokio::test]
async fn a_member_sees_their_own_and_an_admin_the_tenants() {
    let world = World::new().await;
    let start = now(&world, &world.admin).await;
    let ann = world.make(&world.ann, note(), json!({"title": "ann's"})).await.uid;
    let bob = world.make(&world.bob, note(), json!({"title": "bob's"})).await.uid;
    let foreign = world.make(&world.stranger, note(), json!({"title": "elsewhere"})).await.uid;
    // An admin's change of another's item is that person's to see.
    let mut tx = world.begin(&world.admin).await;
    items::patch(&mut tx, note(), ItemRef::Uid(ann).into(), object(json!({"x": 1}))).await.unwrap();
    tx.commit().await.unwrap();
    let admins = read(&world, &world.admin, &start, 3).await;
    assert_eq!(brief(&admins), [(ann, 1, "created"), (bob, 1, "created"), (ann, 2, "updated")]);
    let anns = read(&world, &world.ann, &start, 2).await;
    assert_eq!(brief(&anns), [(ann, 1, "created"), (ann, 2, "updated")]);
    assert_eq!(brief(&read(&world, &world.bob, &start, 1).await), [(bob, 1, "created")]);
    // The cursor says where, not whose: in another tenant's hands it shows that tenant's own changes.
    assert_eq!(brief(&read(&world, &world.stranger, &start, 1).await), [(foreign, 1, "created")]);
    // A turn acts for its user, whoever that is.
    let turn = Actor::of_turn(world.admin.tenant, world.admin.user);
    assert!(page(&world, &turn, &start, ALL).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_late_commit_is_waited_for_and_never_passed_by() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    // The first to write is the last to commit.
    let mut late = world.begin(&world.ann).await;
    let slow = items::create(&mut late, note(), object(json!({"title": "slow"}))).await.unwrap().uid;
    let quick = world.make(&world.ann, note(), json!({"title": "quick"})).await.uid;
    let held = page(&world, &world.ann, &start, ALL).await.unwrap();
    assert!(
        held.changes.is_empty(),
        "what is told first must not depend on a transaction that is still running"
    );
    let cursor = Cursor::read(&held.next_cursor).unwrap();
    late.commit().await.unwrap();
    let told = read(&world, &world.ann, &cursor, 2).await;
    assert_eq!(brief(&told), [(slow, 1, "created"), (quick, 1, "created")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_beside_many_writers_misses_nothing() {
    const WRITERS: usize = 6;
    const EACH: usize = 30;
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    let write = async |writer: usize| {
        let mut made = Vec::new();
        for number in 0..EACH {
            let mut tx = world.begin(&world.ann).await;
            let payload = object(json!({"title": format!("{writer}.{number}")}));
            made.push(items::create(&mut tx, note(), payload).await.unwrap().uid);
            // Some commit at once and some late, so that they overtake each other.
            for _ in 0..(writer * 7 + number) % 9 {
                tokio::task::yield_now().await;
            }
            tx.commit().await.unwrap();
        }
        made
    };
    let writers = futures::future::join_all((0..WRITERS).map(write));
    let (made, told) = tokio::join!(writers, read(&world, &world.ann, &start, WRITERS * EACH));
    let made: HashSet<ItemUid> = made.into_iter().flatten().collect();
    let told: Vec<ItemUid> = told.iter().map(|change| change.uid).collect();
    assert_eq!(told.iter().copied().collect::<HashSet<_>>(), made);
    assert_eq!(told.len(), made.len(), "nothing comes twice");
    // And a late reader is told the same in the same order.
    let again = read(&world, &world.ann, &start, WRITERS * EACH).await;
    assert_eq!(again.iter().map(|change| change.uid).collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn items_come_with_their_last_change_of_the_page() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    let made = world.make(&world.ann, note(), json!({"title": "one"})).await;
    let mut tx = world.begin(&world.ann).await;
    let patched =
        items::patch(&mut tx, note(), ItemRef::Uid(made.uid).into(), object(json!({"x": 1}))).await.unwrap();
    tx.commit().await.unwrap();
    read(&world, &world.ann, &start, 2).await;
    let query = PageQuery { items: true, ..ALL };
    let page = page(&world, &world.ann, &start, query).await.unwrap();
    let items: Vec<_> = page.changes.into_iter().map(|change| change.item).collect();
    assert_eq!(items, [None, Some(patched)]);
}

#[tokio::test]
async fn a_cursor_before_what_was_deleted_is_gone() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    for title in ["one", "two", "three"] {
        world.make(&world.ann, note(), json!({ "title": title })).await;
    }
    world.make(&world.stranger, note(), json!({"title": "elsewhere"})).await;
    let told = read(&world, &world.ann, &start, 3).await;
    let engine = &world.database.engine;
    assert_eq!(changes::forget(engine, TimeDelta::days(1), 100).await.unwrap(), 0, "nothing is so old");
    assert_eq!(page(&world, &world.ann, &start, ALL).await.unwrap().changes, told);
    let last = Cursor::read(&told[2].cursor).unwrap();
    while changes::forget(engine, TimeDelta::seconds(-60), 2).await.unwrap() == 2 {}
    for actor in [&world.ann, &world.bob, &world.admin, &world.stranger] {
        let gone = page(&world, actor, &start, ALL).await.unwrap_err();
        assert_eq!(gone.code, Code::Gone);
    }
    // Who has read to the end has missed nothing.
    assert!(page(&world, &world.ann, &last, ALL).await.unwrap().changes.is_empty());
    let cursor = now(&world, &world.ann).await;
    let new = world.make(&world.ann, note(), json!({"title": "four"})).await;
    assert_eq!(brief(&read(&world, &world.ann, &cursor, 1).await), [(new.uid, 1, "created")]);
}

#[tokio::test]
async fn a_cursor_of_another_history_is_gone() {
    let world = World::new().await;
    let start = now(&world, &world.ann).await;
    world.make(&world.ann, note(), json!({"title": "one"})).await;
    read(&world, &world.ann, &start, 1).await;
    // What an operator does who has put back a part of a tenant's data.
    sqlx::query("insert into change_feeds (tenant_id, epoch) values ($1, gen_random_uuid())")
        .bind(world.ann.tenant)
        .execute(&world.database.admin())
        .await
        .unwrap();
    assert_eq!(page(&world, &world.ann, &start, ALL).await.unwrap_err().code, Code::Gone);
    let again = now(&world, &world.ann).await;
    assert!(page(&world, &world.ann, &again, ALL).await.unwrap().changes.is_empty());
    // Of another tenant, nothing was reset.
    page(&world, &world.stranger, &start, ALL).await.unwrap();
}

#[tokio::test]
async fn nobody_writes_another_tenants_feed() {
    let world = World::new().await;
    let mut tx = world.begin(&world.stranger).await;
    let written = sqlx::query(
        "insert into changes (tenant_id, user_id, kind, uid, version, change)
         values ($1, $2, 'note', gen_random_uuid(), 1, 'created')",
    )
    .bind(world.ann.tenant)
    .bind(world.ann.user)
    .execute(tx.connection())
    .await;
    assert!(written.is_err());
}
