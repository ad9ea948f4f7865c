//! Who sees what: members their own, admins their tenant's, nobody another tenant's.

use serde_json::json;
use shared::{
    Code,
    idempotency::{self, IdempotencyKey},
    identity::Actor,
    testing::disguise,
    workspace::{
        EntityDef,
        items::{self, ItemRef, ListQuery},
    },
};

use crate::world::{World, object, suite};

async fn others_find_nothing_and_change_nothing(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        for other in [&world.bob, &world.stranger] {
            // Of their own: what hangs on nothing that they see is refused before anything is looked for.
            let theirs = object(world.sample(other, def, 2).await);
            for item in [ItemRef::Uid(made.uid), ItemRef::Id(made.id)] {
                let mut tx = world.begin(other).await;
                let target = item.into();
                for error in [
                    items::get(&mut tx, def, item).await.unwrap_err(),
                    items::get_even_deleted(&mut tx, def, item).await.unwrap_err(),
                    items::update(&mut tx, def, target, theirs.clone()).await.unwrap_err(),
                    items::patch(&mut tx, def, target, object(json!({"x": 1}))).await.unwrap_err(),
                    items::delete(&mut tx, def, target).await.unwrap_err(),
                    items::archive(&mut tx, def, target).await.unwrap_err(),
                    items::process(&mut tx, def, target, def.actions[0]).await.unwrap_err(),
                ] {
                    assert_eq!(error.code, Code::NotFound, "{}: {error}", def.kind);
                }
                tx.commit().await.unwrap();
            }
            assert!(!world.all(other, def).await.contains(&made));
        }
        assert!(world.all(&world.ann, def).await.contains(&made));
    }
}

async fn row_level_security_holds_alone(world: World, entities: &'static [EntityDef]) {
    let key = IdempotencyKey { route: "/v1/x".to_owned(), key: "k".to_owned(), body_hash: [1; 32] };
    let mut tx = world.begin(&world.ann).await;
    idempotency::claim(&mut tx, &key).await.unwrap();
    idempotency::keep(&mut tx, &key, "ann's answer").await.unwrap();
    tx.commit().await.unwrap();
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        let payload = object(world.sample(&world.ann, def, 2).await);
        for other in [&world.bob, &world.stranger] {
            // Every filter of ours names Ann; only Postgres knows better.
            let begin = async || disguise(world.begin(other).await, &world.ann);
            for item in [ItemRef::Uid(made.uid), ItemRef::Id(made.id)] {
                let mut tx = begin().await;
                let target = item.into();
                for error in [
                    items::get(&mut tx, def, item).await.unwrap_err(),
                    items::get_even_deleted(&mut tx, def, item).await.unwrap_err(),
                    items::update(&mut tx, def, target, payload.clone()).await.unwrap_err(),
                    items::patch(&mut tx, def, target, object(json!({"x": 1}))).await.unwrap_err(),
                    items::delete(&mut tx, def, target).await.unwrap_err(),
                    items::archive(&mut tx, def, target).await.unwrap_err(),
                    items::process(&mut tx, def, target, def.actions[0]).await.unwrap_err(),
                ] {
                    assert_eq!(error.code, Code::NotFound, "{}: {error}", def.kind);
                }
                tx.commit().await.unwrap();
            }
            let query = ListQuery { include_archived: true, include_deleted: true, ..ListQuery::default() };
            let mut tx = begin().await;
            assert!(items::list(&mut tx, def, &query).await.unwrap().items.is_empty(), "{}", def.kind);
            let parent = made.payload.get("chatUid").or(made.payload.get("parentUid"));
            if let Some(parent) = parent.and_then(|uid| uid.as_str()?.parse().ok()) {
                let query = ListQuery { parent: Some(parent), ..query };
                assert!(items::list(&mut tx, def, &query).await.unwrap().items.is_empty(), "{}", def.kind);
            }
            let error = items::create(&mut tx, def, payload.clone()).await.unwrap_err();
            // A parent is not seen; anything else is not written.
            let wanted = if def.parent.is_some() { Code::Malformed } else { Code::Internal };
            assert_eq!(error.code, wanted, "{}: {error:?}", def.kind);
            tx.rollback().await.unwrap();
            let mut tx = begin().await;
            let claimed = idempotency::claim(&mut tx, &key).await;
            assert!(!matches!(claimed, Ok(Some(_))), "somebody else's answer was read");
        }
        assert!(world.all(&world.ann, def).await.contains(&made));
    }
}

async fn an_admin_sees_and_changes_the_tenants_items(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let ann = world.make_sample(&world.ann, def, 1).await;
        let bob = world.make_sample(&world.bob, def, 2).await;
        let own = world.make_sample(&world.admin, def, 3).await;
        world.make_sample(&world.stranger, def, 4).await;
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

async fn short_ids_belong_to_a_tenant(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let here = world.make_sample(&world.ann, def, 1).await;
        let there = world.make_sample(&world.stranger, def, 2).await;
        assert_eq!(here.id, there.id, "both count from one");
        let mut tx = world.begin(&world.stranger).await;
        assert_eq!(items::get(&mut tx, def, ItemRef::Id(here.id)).await.unwrap(), there);
    }
}

async fn a_cursor_opens_nothing(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        for number in 0..3 {
            world.make_sample(&world.ann, def, number).await;
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

async fn many_at_once_get_ids_of_their_own(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let makes = (0..40).map(|number| world.make_sample(&world.ann, def, number));
        let mut ids: Vec<i64> =
            futures::future::join_all(makes).await.into_iter().map(|item| item.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 40);
    }
}

suite!(
    others_find_nothing_and_change_nothing
    row_level_security_holds_alone
    an_admin_sees_and_changes_the_tenants_items
    short_ids_belong_to_a_tenant
    a_cursor_opens_nothing
    many_at_once_get_ids_of_their_own
);
