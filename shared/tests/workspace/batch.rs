//! Batches: all or nothing, in order, over several kinds.

use serde_json::{Value, json};
use shared::{
    Code,
    identity::Actor,
    workspace::{
        batch::{self, Done, Operation},
        definition,
    },
};

use crate::world::World;

fn operations(operations: Value) -> Vec<Operation> {
    serde_json::from_value(operations).unwrap()
}

async fn commit(world: &World, actor: &Actor, wanted: Value) -> shared::Result<Vec<Done>> {
    batch::commit(&world.db, actor, None, &operations(wanted)).await
}

#[tokio::test]
async fn every_operation_on_several_kinds_at_once() {
    let world = World::new().await;
    let done = commit(
        &world,
        &world.ann,
        json!([
            {"op": "create", "entity": "note", "payload": {"title": "n"}},
            {"op": "create", "entity": "tasks", "payload": {"title": "t"}},
            {"op": "patch", "entity": "note", "uid": "$0", "ifMatch": 1, "payload": {"content": "c"}},
            {"op": "update", "entity": "task", "uid": "$1", "payload": {"title": "u", "priority": "high"}},
            {"op": "process", "entity": "task", "uid": "$1", "action": "complete"},
            {"op": "archive", "entity": "note", "uid": "$0"},
            {"op": "delete", "entity": "task", "uid": "$1"},
        ]),
    )
    .await
    .unwrap();
    let brief: Vec<_> = done.iter().map(|done| (done.index, done.kind.as_str(), done.item.version)).collect();
    let expected = [
        (0, "note", 1),
        (1, "task", 1),
        (2, "note", 2),
        (3, "task", 2),
        (4, "task", 3),
        (5, "note", 3),
        (6, "task", 4),
    ];
    assert_eq!(brief, expected);
    assert_eq!(world.all(&world.ann, definition("note").unwrap()).await, [done[5].item.clone()]);
    let tasks = world.all(&world.ann, definition("task").unwrap()).await;
    assert_eq!(tasks, [done[6].item.clone()]);
    assert_eq!((&tasks[0].payload["title"], &tasks[0].payload["status"]), (&json!("u"), &json!("done")));
}

#[tokio::test]
async fn one_that_fails_undoes_all_and_is_named() {
    let world = World::new().await;
    let (notes, tasks) = (definition("note").unwrap(), definition("task").unwrap());
    let kept = world.make(&world.ann, tasks, json!({"title": "kept"})).await;
    let bobs = world.make(&world.bob, tasks, json!({"title": "bob's"})).await;
    let good = json!({"op": "create", "entity": "note", "payload": {"title": "never"}});
    let change = json!({"op": "patch", "entity": "task", "id": kept.id, "payload": {"title": "never"}});
    for (bad, code) in [
        (json!({"op": "create", "entity": "task", "payload": {}}), Code::Malformed),
        (json!({"op": "create", "entity": "task"}), Code::Malformed),
        (json!({"op": "create", "entity": "dog", "payload": {}}), Code::Malformed),
        (json!({"op": "create", "entity": "note", "uid": kept.uid, "payload": {}}), Code::Malformed),
        (json!({"op": "patch", "entity": "task", "payload": {}}), Code::Malformed),
        (
            json!({"op": "patch", "entity": "task", "uid": kept.uid, "id": kept.id, "payload": {}}),
            Code::Malformed,
        ),
        (json!({"op": "process", "entity": "task", "id": kept.id}), Code::Malformed),
        (json!({"op": "process", "entity": "task", "id": kept.id, "action": "fly"}), Code::Malformed),
        (json!({"op": "process", "entity": "task", "id": kept.id, "action": "reopen"}), Code::Conflict),
        (json!({"op": "delete", "entity": "task", "uid": "$1"}), Code::Malformed),
        (json!({"op": "delete", "entity": "task", "uid": "$7"}), Code::Malformed),
        (json!({"op": "delete", "entity": "task", "uid": "nonsense"}), Code::NotFound),
        (json!({"op": "delete", "entity": "task", "uid": bobs.uid}), Code::NotFound),
        (json!({"op": "delete", "entity": "task", "id": kept.id, "ifMatch": 1}), Code::Precondition),
    ] {
        let error = commit(&world, &world.ann, json!([good, change, bad, good])).await.unwrap_err();
        assert_eq!(error.code, code, "{bad}: {error}");
        assert_eq!(error.details.unwrap()["index"], 2, "{bad}");
        assert!(world.all(&world.ann, notes).await.is_empty(), "{bad}");
        assert_eq!(world.all(&world.ann, tasks).await, std::slice::from_ref(&kept), "{bad}");
    }
    for number in [0, batch::MOST + 1] {
        let error = commit(&world, &world.ann, vec![good.clone(); number].into()).await.unwrap_err();
        assert_eq!(error.code, Code::Malformed);
    }
    assert_eq!(commit(&world, &world.ann, vec![good; batch::MOST].into()).await.unwrap().len(), batch::MOST);
}

#[tokio::test]
async fn within_a_transaction_a_batch_that_fails_leaves_the_rest() {
    let world = World::new().await;
    let mut tx = world.begin(&world.ann).await;
    let first = json!([{"op": "create", "entity": "note", "payload": {"title": "first"}}]);
    batch::run(&mut tx, operations(first)).await.unwrap();
    let second = json!([
        {"op": "create", "entity": "note", "payload": {"title": "second"}},
        {"op": "delete", "entity": "note", "id": 77},
    ]);
    batch::run(&mut tx, operations(second)).await.unwrap_err();
    tx.commit().await.unwrap();
    let notes = world.all(&world.ann, definition("note").unwrap()).await;
    assert_eq!(notes.iter().map(|note| note.payload["title"].clone()).collect::<Vec<_>>(), ["first"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_batches_that_want_each_others_items_one_goes_first() {
    let world = World::new().await;
    let tasks = definition("task").unwrap();
    let (one, two) = (
        world.make(&world.ann, tasks, json!({"title": "1"})).await,
        world.make(&world.ann, tasks, json!({"title": "2"})).await,
    );
    let patch = |id: i64| json!({"op": "patch", "entity": "task", "id": id, "payload": {"x": 1}});
    let batches = (0..2).map(|number| {
        let (first, second) = if number % 2 == 0 { (one.id, two.id) } else { (two.id, one.id) };
        commit(&world, &world.ann, json!([patch(first), patch(second)]))
    });
    let outcomes = futures::future::join_all(batches).await;
    let through = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let left = world.all(&world.ann, tasks).await;
    assert!(left.iter().all(|task| task.version == 1 + i64::try_from(through).unwrap()), "{left:?}");
    assert_eq!(through, 2, "{outcomes:?}");
}

/// Batches that want the same items in every order, some by uid, some by short id, some as parents of what they add.
#[tokio::test]
async fn batches_that_conflict_wait_for_each_other() {
    const AT_ONCE: usize = 32;
    let world = World::new().await;
    let mut items = Vec::new();
    for number in 0..6 {
        let task = world.make_sample(&world.ann, definition("task").unwrap(), number).await;
        let chat = world.make_sample(&world.ann, definition("chat").unwrap(), number).await;
        items.push(json!({"op": "patch", "entity": "task", "uid": task.uid, "payload": {"x": number}}));
        items.push(json!({"op": "patch", "entity": "task", "id": task.id, "payload": {"y": number}}));
        items.push(json!({"op": "patch", "entity": "chat", "uid": chat.uid, "payload": {"x": number}}));
        items.push(json!({
            "op": "create", "entity": "chat_message", "payload": {"chatUid": chat.uid, "content": "x"},
        }));
    }
    let batches = (0..AT_ONCE).map(|number| {
        let mut wanted = items.clone();
        wanted.rotate_left(number * 7 % items.len());
        if number % 2 == 1 {
            wanted.reverse();
        }
        commit(&world, &world.ann, Value::Array(wanted))
    });
    for done in futures::future::join_all(batches).await {
        assert_eq!(done.unwrap().len(), items.len());
    }
    let tasks = world.all(&world.ann, definition("task").unwrap()).await;
    assert!(tasks.iter().all(|task| task.version == 1 + 2 * AT_ONCE as i64), "no change was lost");
}
