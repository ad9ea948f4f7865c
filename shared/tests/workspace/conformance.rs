//! What holds for every entity.

use serde_json::{Value, json};
use shared::{
    Code,
    error::Invalid,
    ids::ItemUid,
    workspace::{
        EntityDef,
        items::{self, ItemRef, ListQuery, Target},
    },
};

use crate::world::{World, object, suite};

async fn an_item_is_made_and_found(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut payload = world.sample(&world.ann, def, 1).await;
        payload["mood"] = json!({"deep": [1, {"er": null}]});
        let first = world.make(&world.ann, def, payload.clone()).await;
        let second = world.make_sample(&world.ann, def, 2).await;
        assert_eq!(first.version, 1);
        assert!(second.id > first.id && second.uid > first.uid, "{}", def.kind);
        assert_eq!(first.created_at, first.updated_at);
        for (name, value) in payload.as_object().unwrap() {
            assert_eq!(first.payload.get(name), Some(value), "{} loses {name}", def.kind);
        }

        let mut tx = world.begin(&world.ann).await;
        for name in [first.id.to_string(), first.uid.to_string()] {
            let found = items::get(&mut tx, def, ItemRef::parse(&name).unwrap()).await.unwrap();
            assert_eq!(found, first);
        }
        let shape = serde_json::to_value(&first).unwrap();
        let names: Vec<&String> = shape.as_object().unwrap().keys().collect();
        assert_eq!(names, ["createdAt", "deletedAt", "id", "payload", "uid", "updatedAt", "version"]);
        assert_eq!(shape["deletedAt"], Value::Null);
    }
}

async fn what_is_not_committed_never_was(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut tx = world.begin(&world.ann).await;
        items::create(&mut tx, def, object(world.sample(&world.ann, def, 1).await)).await.unwrap();
        tx.rollback().await.unwrap();
        assert!(world.all(&world.ann, def).await.is_empty());
    }
}

async fn update_replaces_and_patch_merges(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut payload = world.sample(&world.ann, def, 1).await;
        payload["more"] = json!({"a": 1, "b": 2});
        payload["other"] = json!("x");
        let made = world.make(&world.ann, def, payload).await;
        let target = Target::from(ItemRef::Id(made.id));
        let mut tx = world.begin(&world.ann).await;

        let changes = object(json!({"more": {"a": null, "c": 3}, "other": null, "tags": ["t"]}));
        let patched = items::patch(&mut tx, def, target, changes).await.unwrap();
        let mut expected = made.payload.clone();
        expected.insert("more".into(), json!({"b": 2, "c": 3}));
        expected.insert("tags".into(), json!(["t"]));
        expected.remove("other");
        assert_eq!((patched.version, &patched.payload), (2, &expected), "{}", def.kind);
        assert_eq!((patched.uid, patched.id, patched.created_at), (made.uid, made.id, made.created_at));
        assert!(patched.updated_at > made.updated_at);

        let updated = items::update(&mut tx, def, target, object(world.sample(&world.ann, def, 2).await))
            .await
            .unwrap();
        assert_eq!(updated.version, 3);
        assert!(!updated.payload.contains_key("more"), "{} keeps what was replaced", def.kind);
        tx.commit().await.unwrap();

        let mut tx = world.begin(&world.ann).await;
        assert_eq!(items::get(&mut tx, def, target.item).await.unwrap(), updated);
    }
}

/// Every way to change an item, by name.
const WRITES: [&str; 5] = ["update", "patch", "delete", "archive", "process"];

async fn write(world: &World, def: &EntityDef, target: Target, write: &str) -> shared::Result<items::Item> {
    let mut tx = world.begin(&world.ann).await;
    let outcome = match write {
        "update" => items::update(&mut tx, def, target, object(world.sample(&world.ann, def, 3).await)).await,
        "patch" => items::patch(&mut tx, def, target, object(world.sample(&world.ann, def, 3).await)).await,
        "delete" => items::delete(&mut tx, def, target).await,
        "archive" => items::archive(&mut tx, def, target).await,
        _ => items::process(&mut tx, def, target, def.actions[0]).await,
    };
    tx.commit().await.unwrap();
    outcome
}

async fn every_write_heeds_if_match(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        for name in WRITES {
            let made = world.make_sample(&world.ann, def, 1).await;
            for item in [ItemRef::Id(made.id), ItemRef::Uid(made.uid)] {
                for version in [0, 2] {
                    let error =
                        write(&world, def, Target { item, if_match: Some(version) }, name).await.unwrap_err();
                    assert_eq!(error.code, Code::Precondition, "{name} {}: {error}", def.kind);
                    assert_eq!(error.details.unwrap()["version"], 1);
                }
            }
            let target = Target { item: ItemRef::Uid(made.uid), if_match: Some(1) };
            assert_eq!(write(&world, def, target, name).await.unwrap().version, 2, "{name} {}", def.kind);
        }
    }
}

async fn the_unknown_is_404_and_the_deleted_410(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        for item in [ItemRef::Id(i64::MAX), ItemRef::Id(-1), ItemRef::Uid(ItemUid::generate())] {
            let mut tx = world.begin(&world.ann).await;
            assert_eq!(items::get(&mut tx, def, item).await.unwrap_err().code, Code::NotFound);
            assert_eq!(items::get_even_deleted(&mut tx, def, item).await.unwrap_err().code, Code::NotFound);
            for name in WRITES {
                let error = write(&world, def, item.into(), name).await.unwrap_err();
                assert_eq!(error.code, Code::NotFound, "{name} {}", def.kind);
            }
        }

        let made = world.make_sample(&world.ann, def, 1).await;
        let item = ItemRef::Id(made.id);
        let deleted = write(&world, def, item.into(), "delete").await.unwrap();
        assert!(deleted.deleted_at.is_some());
        assert_eq!((deleted.version, &deleted.payload), (2, &made.payload));
        for name in WRITES {
            for if_match in [None, Some(1), Some(2)] {
                let error = write(&world, def, Target { item, if_match }, name).await.unwrap_err();
                assert_eq!(error.code, Code::Gone, "{name} {}", def.kind);
            }
        }
        let mut tx = world.begin(&world.ann).await;
        assert_eq!(items::get(&mut tx, def, item).await.unwrap_err().code, Code::Gone);
        assert_eq!(items::get_even_deleted(&mut tx, def, item).await.unwrap(), deleted);
        assert!(items::list(&mut tx, def, &ListQuery::default()).await.unwrap().items.is_empty());
        let query = ListQuery { include_deleted: true, ..ListQuery::default() };
        assert_eq!(items::list(&mut tx, def, &query).await.unwrap().items, [deleted]);
    }
}

async fn the_archived_is_found_but_not_listed(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        let item = ItemRef::Uid(made.uid);
        let archived = write(&world, def, item.into(), "archive").await.unwrap();
        assert_eq!(archived.version, 2);
        let again = write(&world, def, item.into(), "archive").await.unwrap();
        assert_eq!(again, archived, "archiving {} twice is archiving once", def.kind);

        let mut tx = world.begin(&world.ann).await;
        assert_eq!(items::get(&mut tx, def, item).await.unwrap(), archived);
        assert!(items::list(&mut tx, def, &ListQuery::default()).await.unwrap().items.is_empty());
        let query = ListQuery { include_archived: true, ..ListQuery::default() };
        assert_eq!(items::list(&mut tx, def, &query).await.unwrap().items, [archived]);
    }
}

async fn an_action_happens_or_is_refused(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        let target = Target::from(ItemRef::Id(made.id));
        let mut tx = world.begin(&world.ann).await;
        let mut before = made;
        let (mut done, mut refused) = (0, 0);
        for action in def.actions.iter().chain(def.actions).chain(def.actions.iter().rev()) {
            match items::process(&mut tx, def, target, action).await {
                Ok(after) => {
                    assert_eq!(after.version, before.version + 1);
                    assert_ne!(after.payload, before.payload, "{action}");
                    before = after;
                    done += 1;
                }
                Err(error) => {
                    assert_eq!(error.code, Code::Conflict, "{action}: {error}");
                    assert_eq!(items::get(&mut tx, def, target.item).await.unwrap(), before);
                    refused += 1;
                }
            }
        }
        assert!(done >= def.actions.len() && refused > 0, "{}: {done} done, {refused} refused", def.kind);
        let error = items::process(&mut tx, def, target, "explode").await.unwrap_err();
        assert_eq!(error.message, format!("action must be one of {}", def.actions.join(", ")));
        assert_eq!(error.details.unwrap()["field"], "action");
    }
}

async fn pages_skip_nothing_and_repeat_nothing(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut made = Vec::new();
        for number in 0..13 {
            made.push(world.make_sample(&world.ann, def, number).await.uid);
            world.make_sample(&world.bob, def, number).await;
        }
        made.reverse();
        for limit in [1, 2, 5, 12, 13, 14, 1000] {
            let mut tx = world.begin(&world.ann).await;
            let mut seen = Vec::new();
            let mut cursor = None;
            loop {
                let query = ListQuery { limit: Some(limit), cursor, ..ListQuery::default() };
                let page = items::list(&mut tx, def, &query).await.unwrap();
                assert!(!page.items.is_empty() && page.items.len() <= limit as usize);
                seen.extend(page.items.iter().map(|item| item.uid));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, made, "{} by {limit}", def.kind);
        }

        // What is made or deleted while somebody pages moves none of the others.
        let query = ListQuery { limit: Some(5), ..ListQuery::default() };
        let mut tx = world.begin(&world.ann).await;
        let first = items::list(&mut tx, def, &query).await.unwrap();
        items::create(&mut tx, def, object(world.sample(&world.ann, def, 99).await)).await.unwrap();
        items::delete(&mut tx, def, ItemRef::Uid(first.items[4].uid).into()).await.unwrap();
        let query = ListQuery { cursor: first.next_cursor, ..ListQuery::default() };
        let rest = items::list(&mut tx, def, &query).await.unwrap();
        let rest: Vec<ItemUid> = rest.items.iter().map(|item| item.uid).collect();
        assert_eq!(rest, made[5..]);
    }
}

async fn lists_refuse_what_they_do_not_understand(world: World, entities: &'static [EntityDef]) {
    let mut tx = world.begin(&world.ann).await;
    for def in entities {
        for limit in [i64::MIN, -1, 0, 1001, i64::MAX] {
            let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
            let error = items::list(&mut tx, def, &query).await.unwrap_err();
            assert_eq!(error.message, "limit must be between 1 and 1000");
        }
        let query = ListQuery { cursor: Some("7".into()), ..ListQuery::default() };
        let error = items::list(&mut tx, def, &query).await.unwrap_err();
        assert_eq!((error.code, error.invalid), (Code::Malformed, Invalid::Unreadable));
        for status in ["", "nonsense", "a\0"] {
            let query = ListQuery { status: Some(status.into()), ..ListQuery::default() };
            let error = items::list(&mut tx, def, &query).await.unwrap_err();
            assert_eq!((error.code, error.invalid), (Code::Malformed, Invalid::Unacceptable));
        }
        let query = ListQuery { status: Some("all".into()), ..ListQuery::default() };
        items::list(&mut tx, def, &query).await.unwrap();
    }
}

#[tokio::test]
async fn status_filters_follow_the_contract() {
    let world = World::new().await;
    let task = shared::workspace::definition("task").unwrap();
    for status in ["todo", "in_progress", "done", "archived"] {
        world.make(&world.ann, task, json!({"title": status, "status": status})).await;
    }
    let mut tx = world.begin(&world.ann).await;
    for (word, listed) in [
        (None, vec!["done", "in_progress", "todo"]),
        (Some("all"), vec!["done", "in_progress", "todo"]),
        (Some("pending"), vec!["in_progress", "todo"]),
        (Some("completed"), vec!["done"]),
        (Some("done"), vec!["done"]),
        (Some("todo"), vec!["todo"]),
        (Some("in_progress"), vec!["in_progress"]),
        (Some("archived"), vec!["archived"]),
    ] {
        let query = ListQuery { status: word.map(str::to_owned), ..ListQuery::default() };
        let page = items::list(&mut tx, task, &query).await.unwrap();
        let titles: Vec<&str> =
            page.items.iter().map(|item| item.payload["title"].as_str().unwrap()).collect();
        assert_eq!(titles, listed, "{word:?}");
    }
    // Leaving the archive brings a task back into the lists.
    let archived =
        &items::list(&mut tx, task, &ListQuery { status: Some("archived".into()), ..ListQuery::default() })
            .await
            .unwrap()
            .items[0];
    items::process(&mut tx, task, ItemRef::Id(archived.id).into(), "reopen").await.unwrap();
    assert_eq!(items::list(&mut tx, task, &ListQuery::default()).await.unwrap().items.len(), 4);
}

async fn a_payload_that_does_not_fit_names_the_field(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        let target = Target::from(ItemRef::Id(made.id));
        let mut wrong = Vec::new();
        for field in &def.required {
            let mut payload = world.sample(&world.ann, def, 2).await;
            payload.as_object_mut().unwrap().remove(field);
            wrong.push((field.clone(), payload.clone()));
            payload[field] = Value::Null;
            wrong.push((field.clone(), payload));
        }
        for (field, _) in def.fields() {
            let mut payload = world.sample(&world.ann, def, 2).await;
            payload[field] = json!({"not": "this"});
            wrong.push((field.to_owned(), payload));
        }
        let mut tx = world.begin(&world.ann).await;
        for (field, payload) in wrong {
            let error = items::create(&mut tx, def, object(payload.clone())).await.unwrap_err();
            assert_eq!((error.code, error.invalid), (Code::Malformed, Invalid::Unacceptable));
            assert!(error.message.starts_with(&format!("{field} ")), "{field}: {}", error.message);
            assert_eq!(error.details.unwrap()["field"], field.as_str());
            let error = items::update(&mut tx, def, target, object(payload.clone())).await.unwrap_err();
            assert_eq!(error.details.unwrap()["field"], field.as_str());
            if let Some(value) = payload.get(&field) {
                let changes = object(json!({ field.as_str(): value }));
                let error = items::patch(&mut tx, def, target, changes).await.unwrap_err();
                assert_eq!(error.details.unwrap()["field"], field.as_str());
            }
        }
        let mut large = world.sample(&world.ann, def, 2).await;
        large["more"] = "x".repeat(256 * 1024).into();
        for error in [
            items::create(&mut tx, def, object(large.clone())).await.unwrap_err(),
            items::update(&mut tx, def, target, object(large.clone())).await.unwrap_err(),
            items::patch(&mut tx, def, target, object(json!({"more": large["more"]}))).await.unwrap_err(),
        ] {
            assert_eq!((error.code, error.invalid), (Code::Malformed, Invalid::TooLarge));
        }
        tx.commit().await.unwrap();
        assert_eq!(world.all(&world.ann, def).await, [made], "refused, and written nevertheless");
    }
}

async fn nul_is_stored_as_the_replacement_character(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut payload = world.sample(&world.ann, def, 1).await;
        payload["tags"] = json!(["a\0b"]);
        payload["ke\0y"] = json!({"in\0ner": ["\0"]});
        let made = world.make(&world.ann, def, payload).await;
        assert_eq!(made.payload["tags"], json!(["a\u{fffd}b"]));
        assert_eq!(made.payload["ke\u{fffd}y"], json!({"in\u{fffd}ner": ["\u{fffd}"]}));
        let mut tx = world.begin(&world.ann).await;
        let changes = object(json!({"x": "\0"}));
        let patched = items::patch(&mut tx, def, ItemRef::Id(made.id).into(), changes).await.unwrap();
        assert_eq!(patched.payload["x"], "\u{fffd}");
    }
}

async fn of_many_writers_that_saw_one_version_one_wins(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let made = world.make_sample(&world.ann, def, 1).await;
        for (round, name) in ["patch", "update"].into_iter().enumerate() {
            let target = Target { item: ItemRef::Id(made.id), if_match: Some(1 + round as i64) };
            let writes = (0..12).map(|_| write(&world, def, target, name));
            let outcomes = futures::future::join_all(writes).await;
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{name} {}", def.kind);
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert_eq!(error.code, Code::Precondition);
            }
        }
        // Without a version every patch counts, and none undoes another.
        let patches = (0..12).map(|number| {
            let world = &world;
            async move {
                let mut tx = world.begin(&world.ann).await;
                let changes = object(json!({ format!("field {number}"): number }));
                items::patch(&mut tx, def, ItemRef::Id(made.id).into(), changes).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
        futures::future::join_all(patches).await;
        let last = &world.all(&world.ann, def).await[0];
        assert_eq!(last.version, 15);
        assert_eq!(last.payload.keys().filter(|name| name.starts_with("field ")).count(), 12);
    }
}

suite!(
    an_item_is_made_and_found
    what_is_not_committed_never_was
    update_replaces_and_patch_merges
    every_write_heeds_if_match
    the_unknown_is_404_and_the_deleted_410
    the_archived_is_found_but_not_listed
    an_action_happens_or_is_refused
    pages_skip_nothing_and_repeat_nothing
    lists_refuse_what_they_do_not_understand
    a_payload_that_does_not_fit_names_the_field
    nul_is_stored_as_the_replacement_character
    of_many_writers_that_saw_one_version_one_wins
);
