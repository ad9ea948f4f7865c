//! Figures, counted by hand.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use shared::workspace::{
    definition,
    items::{self, ItemRef},
    stats,
};

use crate::world::World;

#[tokio::test]
async fn the_figures_are_right() {
    let world = World::new().await;
    let (notes, tasks) = (definition("note").unwrap(), definition("task").unwrap());
    let at = |days: i64| (Utc::now() + TimeDelta::days(days)).to_rfc3339();
    for (status, due) in [
        ("todo", None),
        ("todo", Some(at(-2))),
        ("in_progress", Some(at(2))),
        ("in_progress", Some(at(20))),
        ("done", Some(at(-2))),
        ("archived", Some(at(2))),
    ] {
        let mut payload = json!({"title": "t", "status": status});
        if let Some(due) = due {
            payload["dueDate"] = due.into();
        }
        world.make(&world.ann, tasks, payload).await;
    }
    let gone = world.make(&world.ann, tasks, json!({"title": "gone", "dueDate": at(-2)})).await;
    let mut tx = world.begin(&world.ann).await;
    items::delete(&mut tx, tasks, ItemRef::Uid(gone.uid).into()).await.unwrap();
    tx.commit().await.unwrap();
    world.make(&world.ann, notes, json!({"title": "n", "archived": true})).await;
    world.make(&world.bob, notes, json!({"title": "bob's"})).await;
    world.make(&world.stranger, notes, json!({"title": "elsewhere"})).await;

    let of = async |actor| {
        let mut tx = world.begin(actor).await;
        serde_json::to_value(stats::stats(&mut tx).await.unwrap()).unwrap()
    };
    let today = Utc::now().date_naive().to_string();
    let tasks = json!({
        "total": 6, "archived": 1, "deleted": 1,
        "byStatus": {"todo": 2, "in_progress": 2, "done": 1, "archived": 1},
    });
    let due = json!({"pending": 4, "overdue": 1, "dueSoon": 1});
    assert_eq!(
        of(&world.ann).await,
        json!({
            "kinds": {"note": {"total": 1, "archived": 1, "deleted": 0}, "task": tasks},
            "tasks": due,
            "created": {&today: {"note": 1, "task": 6}},
        })
    );
    assert_eq!(
        of(&world.admin).await,
        json!({
            "kinds": {"note": {"total": 2, "archived": 1, "deleted": 0}, "task": tasks},
            "tasks": due,
            "created": {&today: {"note": 2, "task": 6}},
        })
    );
    assert_eq!(of(&world.stranger).await["kinds"]["note"]["total"], 1);
}
