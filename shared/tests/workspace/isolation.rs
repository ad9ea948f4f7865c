//! Who sees what: members their own, admins their tenant's, nobody another tenant's.

use serde_json::json;
use shared::{
    Code,
    identity::Actor,
    workspace::{
        ENTITIES,
        items::{self, ItemRef, ListQuery},
    },
};

use crate::world::{World, object, sample};

#[tokio::test]
async fn others_find_nothing_and_change_nothing() {
    let world = World::new().await;
    for def in ENTITIES.iter() {
        let made = world.make(&world.ann, def, sample(def, 1)).await;
        for other in [&world.bob, &world.stranger] {
            for item in [ItemRef::Uid(made.uid), ItemRef::Id(made.id)] {
                let mut tx = world.begin(other).await;
                let target = item.into();
                for error in [
                    items::get(&mut tx, def, item).await.unwrap_err(),
                    items::get_even_deleted(&mut tx, def, item).await.unwrap_err(),
                    items::update(&mut tx, def, target, object(sample(def, 2))).await.unwrap_err(),
                    items::patch(&mut tx, def, target, object(json!({"x": 1}))).await.unwrap_err(),
                    items::delete(&mut tx, def, target).await.unwrap_err(),
                    items::archive(&mut tx, def, target).await.unwrap_err(),
                    items::process(&mut tx, def, target, def.actions[0]).await.unwrap_err(),
                ] {
                    assert_eq!(error.code, Code::NotFound, "{}: {error}", def.kind);
                }
                tx.commit().await.unwrap();
            }
            assert!(world.all(other, def).await.is_empty());
        }
        assert_eq!(world.all(&world.ann, def).await, [made]);
    }
}

#[tokio::test]
async fn an_admin_sees_and_changes_the_tenants_items() {
    let world = World::new().await;
    for def in ENTITIES.iter() {
        let ann = world.make(&world.ann, def, sample(def, 1)).await;
        let bob = world.make(&world.bob, def, sample(def, 2)).await;
        let own = world.make(&world.admin, def, sample(def, 3)).await;
        world.make(&world.stranger, def, sample(def, 4)).await;
        assert_eq!(world.all(&world.admin, def).await, [own, bob, ann.clone()]);

        let mut tx = world.begin(&world.admin).await;
        items::patch(&mut tx, def, ItemRef::Id(ann.id).into(), object(json!({"x": 1}))).await.unwrap();
        tx.commit().await.unwrap();
        let after = world.all(&world.ann, def).await;
        assert_eq!(after.len(), 1, "the item stays its owner's");
        assert_eq!(after[0].payload["x"], 1);

        // A turn acts for its user, never for the tenant, whoever that user is.
        let turn = Actor::of_turn(world.admin.tenant, world.admin.user);
        assert_eq!(world.all(&turn, def).await.len(), 1);
    }
}

#[tokio::test]
async fn short_ids_belong_to_a_tenant() {
    let world = World::new().await;
    for def in ENTITIES.iter() {
        let here = world.make(&world.ann, def, sample(def, 1)).await;
        let there = world.make(&world.stranger, def, sample(def, 2)).await;
        assert_eq!(here.id, there.id, "both count from one");
        let mut tx = world.begin(&world.stranger).await;
        assert_eq!(items::get(&mut tx, def, ItemRef::Id(here.id)).await.unwrap(), there);
    }
}

#[tokio::test]
async fn a_cursor_opens_nothing() {
    let world = World::new().await;
    for def in ENTITIES.iter() {
        for number in 0..3 {
            world.make(&world.ann, def, sample(def, number)).await;
        }
        let mut tx = world.begin(&world.ann).await;
        let query = ListQuery { limit: Some(1), ..ListQuery::default() };
        let cursor = items::list(&mut tx, def, &query).await.unwrap().next_cursor;
        assert!(cursor.is_some());
        let query = ListQuery { cursor, ..ListQuery::default() };
        let mut tx = world.begin(&world.bob).await;
        assert!(items::list(&mut tx, def, &query).await.unwrap().items.is_empty());
    }
}

#[tokio::test]
async fn many_at_once_get_ids_of_their_own() {
    let world = World::new().await;
    for def in ENTITIES.iter() {
        let makes = (0..40).map(|number| world.make(&world.ann, def, sample(def, number)));
        let mut ids: Vec<i64> =
            futures::future::join_all(makes).await.into_iter().map(|item| item.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40);
    }
}
