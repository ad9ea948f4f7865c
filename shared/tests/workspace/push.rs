//! Pushes: the later write wins, in whichever order they come, and twice is the same as once.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::{
    Code,
    identity::Actor,
    ids::ItemUid,
    workspace::{
        definition,
        items::{self, ItemRef},
        push::{self, Answer, Outcome, Pushed},
    },
};

use crate::world::World;

async fn push(world: &World, actor: &Actor, pushed: Value) -> Vec<Answer> {
    let pushed: Vec<Pushed> = serde_json::from_value(pushed).unwrap();
    let mut tx = world.begin(actor).await;
    let answers = push::push(&mut tx, pushed).await.unwrap();
    tx.commit().await.unwrap();
    answers
}

fn note(uid: ItemUid, at: DateTime<Utc>, title: &str) -> Value {
    json!({"entity": "note", "uid": uid, "updatedTs": at, "payload": {"title": title}})
}

fn outcomes(answers: &[Answer]) -> Vec<Outcome> {
    answers.iter().map(|answer| answer.outcome).collect()
}

#[tokio::test]
async fn the_later_write_wins_in_every_order() {
    use Outcome::{Created, Superseded, Updated};
    let world = World::new().await;
    let start = Utc::now() - TimeDelta::hours(1);
    for (order, expected) in [
        ([1, 2, 3], [Created, Updated, Updated]),
        ([3, 1, 2], [Created, Superseded, Superseded]),
        ([2, 3, 1], [Created, Updated, Superseded]),
    ] {
        let uid = ItemUid::generate();
        let mut seen = Vec::new();
        for minute in order {
            let pushed = note(uid, start + TimeDelta::minutes(minute), &format!("at {minute}"));
            let answers = push(&world, &world.ann, json!([pushed.clone()])).await;
            seen.push(answers[0].outcome);
            // Again, nothing happens.
            let again = push(&world, &world.ann, json!([pushed])).await;
            let expected = if answers[0].outcome == Superseded { Superseded } else { Outcome::Unchanged };
            assert_eq!((again[0].outcome, &again[0].item), (expected, &answers[0].item));
        }
        assert_eq!(seen, expected);
        let mut tx = world.begin(&world.ann).await;
        let item = items::get(&mut tx, definition("note").unwrap(), ItemRef::Uid(uid)).await.unwrap();
        assert_eq!(item.payload["title"], "at 3");
        let written = start + TimeDelta::minutes(3);
        assert_eq!(item.updated_at.timestamp_micros(), written.timestamp_micros());
    }
}

#[tokio::test]
async fn deleting_is_a_write_and_the_end() {
    use Outcome::{Created, Deleted, Superseded, Unchanged};
    let world = World::new().await;
    let at = |minutes| Utc::now() - TimeDelta::hours(1) + TimeDelta::minutes(minutes);
    let uid = ItemUid::generate();
    let delete = |minutes| json!({"entity": "notes", "uid": uid, "updatedTs": at(minutes), "deleted": true});
    assert_eq!(
        outcomes(&push(&world, &world.ann, json!([delete(0)])).await),
        [Unchanged],
        "there is nothing to delete"
    );
    let pushed = json!([note(uid, at(5), "a"), delete(3), delete(9), delete(10), note(uid, at(20), "b")]);
    let answers = push(&world, &world.ann, pushed).await;
    assert_eq!(outcomes(&answers), [Created, Superseded, Deleted, Unchanged, Superseded]);
    assert!(answers[4].item.as_ref().unwrap().deleted_at.is_some());
}

#[tokio::test]
async fn what_a_person_wrote_on_the_server_counts_by_its_time() {
    let world = World::new().await;
    let def = definition("note").unwrap();
    let made = world.make(&world.ann, def, json!({"title": "server"})).await;
    let before = note(made.uid, made.updated_at - TimeDelta::seconds(1), "earlier");
    let after = note(made.uid, Utc::now() + TimeDelta::milliseconds(1), "later");
    let answers = push(&world, &world.ann, json!([before, after])).await;
    assert_eq!(outcomes(&answers), [Outcome::Superseded, Outcome::Updated]);
    assert_eq!(answers[0].item.as_ref().unwrap(), &made);
    assert_eq!(answers[1].item.as_ref().unwrap().version, 2);
}

#[tokio::test]
async fn one_that_is_refused_holds_up_nobody() {
    let world = World::new().await;
    let (def, now) = (definition("note").unwrap(), Utc::now());
    let bobs = world.make(&world.bob, def, json!({"title": "bob's"})).await;
    let (good, v4) = (ItemUid::generate(), uuid::Uuid::new_v4());
    let answers = push(
        &world,
        &world.ann,
        json!([
            note(bobs.uid, now, "mine now"),
            {"entity": "dog", "uid": ItemUid::generate(), "updatedTs": now, "payload": {}},
            {"entity": "task", "uid": ItemUid::generate(), "updatedTs": now, "payload": {}},
            {"entity": "note", "uid": ItemUid::generate(), "updatedTs": now},
            {"entity": "note", "uid": v4, "updatedTs": now, "payload": {"title": "v4"}},
            note(ItemUid::generate(), now + TimeDelta::hours(1), "from the future"),
            note(good, now, "good"),
        ]),
    )
    .await;
    let codes: Vec<_> =
        answers.iter().map(|answer| answer.error.as_ref().map(|error| error.error.as_str())).collect();
    let (conflict, malformed) = (Some(Code::Conflict.as_str()), Some(Code::Malformed.as_str()));
    assert_eq!(codes, [conflict, malformed, malformed, malformed, malformed, malformed, None]);
    assert_eq!(world.all(&world.ann, def).await.iter().map(|item| item.uid).collect::<Vec<_>>(), [good]);
    assert_eq!(world.all(&world.bob, def).await, [bobs]);
    let mut tx = world.begin(&world.ann).await;
    assert_eq!(push::push(&mut tx, Vec::new()).await.unwrap_err().code, Code::Malformed);
}
