//! What hangs on other items: comments, and messages of chats. And chats as the conversations of turns.

use serde_json::{Value, json};
use shared::{
    Code,
    identity::Actor,
    ids::ItemUid,
    workspace::{
        EntityDef, definition,
        items::{self, Item, ItemRef, ListQuery, Page},
    },
};

use crate::world::{World, object};

fn of(kind: &str) -> &'static EntityDef {
    definition(kind).unwrap()
}

impl World {
    async fn not_made(&self, actor: &Actor, kind: &str, payload: Value) -> String {
        let mut tx = self.begin(actor).await;
        let error = items::create(&mut tx, of(kind), object(payload)).await.unwrap_err();
        assert_eq!(error.code, Code::Malformed);
        error.message.into_owned()
    }

    async fn say(&self, chat: ItemUid, content: &str) -> Item {
        self.make(&self.ann, of("chat_message"), json!({"chatUid": chat, "content": content})).await
    }

    async fn in_parent(&self, actor: &Actor, kind: &str, parent: ItemUid, cursor: Option<String>) -> Page {
        let query = ListQuery { parent: Some(parent), limit: Some(2), cursor, ..ListQuery::default() };
        let mut tx = self.begin(actor).await;
        items::list(&mut tx, of(kind), &query).await.unwrap()
    }

    async fn read(&self, kind: &str, uid: ItemUid) -> shared::Result<Item> {
        let mut tx = self.begin(&self.ann).await;
        items::get(&mut tx, of(kind), ItemRef::Uid(uid)).await
    }
}

#[tokio::test]
async fn what_hangs_on_an_item_needs_one_that_is_there_and_seen() {
    let world = World::new().await;
    let note = world.make_sample(&world.ann, of("note"), 1).await;
    let chat = world.chat(&world.ann).await;
    let comment =
        |parent: &str, uid: ItemUid| json!({"content": "x", "parentType": parent, "parentUid": uid});
    world.make(&world.ann, of("comment"), comment("note", note.uid)).await;

    let sentence = "parentUid must name a note that is there";
    for (actor, uid) in [
        (&world.ann, ItemUid::generate()),
        (&world.ann, chat),
        (&world.bob, note.uid),
        (&world.stranger, note.uid),
    ] {
        assert_eq!(world.not_made(actor, "comment", comment("note", uid)).await, sentence);
    }
    for actor in [&world.bob, &world.stranger] {
        let payload = json!({"chatUid": chat, "content": "x"});
        let sentence = "chatUid must name a chat that is there";
        assert_eq!(world.not_made(actor, "chat_message", payload).await, sentence);
    }
    let mut tx = world.begin(&world.ann).await;
    items::delete(&mut tx, of("note"), ItemRef::Uid(note.uid).into()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.not_made(&world.ann, "comment", comment("note", note.uid)).await, sentence);
    // A comment outlives what it is about.
    assert_eq!(world.all(&world.ann, of("comment")).await[0].deleted_at, None);
}

#[tokio::test]
async fn what_hangs_on_an_item_is_its_owners_and_stays_there() {
    let world = World::new().await;
    let note = world.make_sample(&world.ann, of("note"), 1).await;
    let other = world.make_sample(&world.ann, of("note"), 2).await;
    let payload = json!({"content": "x", "parentType": "note", "parentUid": note.uid});
    let comment = world.make(&world.admin, of("comment"), payload.clone()).await;
    assert_eq!(comment.payload["author"], world.admin.user.to_string());
    assert_eq!(
        world.all(&world.ann, of("comment")).await,
        std::slice::from_ref(&comment),
        "its owner sees it"
    );
    assert!(world.all(&world.bob, of("comment")).await.is_empty());

    let mut moved = payload;
    moved["parentUid"] = json!(other.uid);
    let target = ItemRef::Uid(comment.uid).into();
    let mut tx = world.begin(&world.ann).await;
    let changes = object(json!({"parentUid": other.uid}));
    for error in [
        items::update(&mut tx, of("comment"), target, object(moved)).await.unwrap_err(),
        items::patch(&mut tx, of("comment"), target, changes).await.unwrap_err(),
    ] {
        assert_eq!(error.message, "parentUid cannot be changed: make a new comment instead");
    }
    let changes = object(json!({"parentUid": note.uid, "content": "y"}));
    let changed = items::patch(&mut tx, of("comment"), target, changes).await.unwrap();
    assert_eq!((changed.version, &changed.payload["content"]), (2, &json!("y")));
}

#[tokio::test]
async fn lists_by_parent_go_page_by_page() {
    let world = World::new().await;
    let (one, two) = (world.make_sample(&world.ann, of("chat"), 1).await, world.chat(&world.ann).await);
    let mut said = Vec::new();
    for number in 0..5 {
        said.push(world.say(one.uid, &format!("{number}")).await);
        world.say(two, "elsewhere").await;
    }
    said.reverse();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = world.in_parent(&world.ann, "chat_message", one.uid, cursor).await;
        seen.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, said);
    for other in [&world.bob, &world.stranger] {
        assert!(world.in_parent(other, "chat_message", one.uid, None).await.items.is_empty());
    }
    assert_eq!(world.in_parent(&world.admin, "chat_message", one.uid, None).await.items, said[..2]);
}

#[tokio::test]
async fn a_message_moves_its_chats_time_and_not_its_version() {
    let world = World::new().await;
    let chat = world.make_sample(&world.ann, of("chat"), 1).await;
    let message = world.say(chat.uid, "hello").await;
    let expected = json!({"chatUid": chat.uid, "content": "hello", "role": "user", "sender": world.ann.user,
        "messageType": "text", "archived": false, "tags": []});
    assert_eq!(Value::Object(message.payload), expected);
    let after = world.read("chat", chat.uid).await.unwrap();
    assert_eq!(after.version, 1);
    assert!(after.updated_at > chat.updated_at);

    let model = json!({"chatUid": chat.uid, "role": "assistant", "toolCalls": [{"id": "c", "tool": "t"}]});
    let said = world.make(&world.ann, of("chat_message"), model).await;
    assert_eq!((&said.payload["sender"], &said.payload["content"]), (&json!("assistant"), &json!("")));
    let empty = json!({"chatUid": chat.uid, "content": " "});
    assert_eq!(
        world.not_made(&world.ann, "chat_message", empty).await,
        "content must not be empty in a user's message"
    );
}

#[tokio::test]
async fn deleting_a_chat_hides_its_messages() {
    let world = World::new().await;
    let chat = world.make_sample(&world.ann, of("chat"), 1).await;
    let (hidden, kept) = (world.say(chat.uid, "a").await, world.say(world.chat(&world.ann).await, "b").await);
    let mut tx = world.begin(&world.ann).await;
    let deleted = items::delete(&mut tx, of("chat"), ItemRef::Uid(chat.uid).into()).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(world.read("chat_message", hidden.uid).await.unwrap_err().code, Code::Gone);
    let mut tx = world.begin(&world.ann).await;
    let def = of("chat_message");
    assert_eq!(items::list(&mut tx, def, &ListQuery::default()).await.unwrap().items, [kept]);
    assert!(world.in_parent(&world.ann, "chat_message", chat.uid, None).await.items.is_empty());
    let target = ItemRef::Uid(hidden.uid).into();
    let payload = object(json!({"chatUid": chat.uid, "content": "x"}));
    for error in [
        items::update(&mut tx, def, target, payload.clone()).await.unwrap_err(),
        items::patch(&mut tx, def, target, payload).await.unwrap_err(),
        items::archive(&mut tx, def, target).await.unwrap_err(),
        items::process(&mut tx, def, target, "mark_read").await.unwrap_err(),
        items::delete(&mut tx, def, target).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::Gone, "{error}");
    }
    let found = items::get_even_deleted(&mut tx, def, ItemRef::Uid(hidden.uid)).await.unwrap();
    assert_eq!((found.deleted_at, found.version), (deleted.deleted_at, 1));
}

#[tokio::test]
async fn a_turns_messages_are_a_record() {
    let world = World::new().await;
    let chat = world.make_sample(&world.ann, of("chat"), 1).await;
    let message = world.say(chat.uid, "by a turn").await;
    sqlx::query("update items set turn_id = gen_random_uuid() where uid = $1")
        .bind(message.uid)
        .execute(&world.database.admin())
        .await
        .unwrap();
    let (def, target) = (of("chat_message"), ItemRef::Id(message.id).into());
    let mut tx = world.begin(&world.ann).await;
    let payload = object(json!({"chatUid": chat.uid, "content": "x"}));
    for error in [
        items::update(&mut tx, def, target, payload.clone()).await.unwrap_err(),
        items::patch(&mut tx, def, target, payload).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::Conflict);
        let sentence = format!("chat message {} was written by a turn and cannot be changed", message.id);
        assert_eq!(error.message, sentence);
    }
    assert_eq!(items::process(&mut tx, def, target, "mark_read").await.unwrap().version, 2);
    assert_eq!(items::archive(&mut tx, def, target).await.unwrap().version, 3);
    assert!(items::delete(&mut tx, def, target).await.unwrap().deleted_at.is_some());
}

#[tokio::test]
async fn a_chat_is_a_conversation_and_messages_keep_their_order() {
    let world = World::new().await;
    let chat = world.make_sample(&world.ann, of("chat"), 1).await;
    let admin = world.database.admin();
    let found: (i64, uuid::Uuid, i64) =
        sqlx::query_as("select id, user_id, next_turn_no from conversations where chat_uid = $1")
            .bind(chat.uid)
            .fetch_one(&admin)
            .await
            .unwrap();
    assert_eq!(found, (chat.id, world.ann.user.0, 1));

    world.say(chat.uid, "one").await;
    // A turn that was posted since, with its question and its answer.
    for (ordinal, said) in [(1_i64 << 20, "two"), ((1 << 20) + (4000 << 8), "three")] {
        sqlx::query(
            "insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
             select tenant_id, 'chat_message', gen_random_uuid(), $3 + 1000000, user_id,
                    jsonb_build_object('content', $4::text), $1, $3, $2 from conversations where chat_uid = $1",
        )
        .bind(chat.uid)
        .bind(uuid::Uuid::now_v7())
        .bind(ordinal)
        .bind(said)
        .execute(&admin)
        .await
        .unwrap();
    }
    sqlx::query("update conversations set next_turn_no = 2").execute(&admin).await.unwrap();
    let says = ["four", "five", "six"].map(|said| world.say(chat.uid, said));
    futures::future::join_all(says).await;
    let order: Vec<(String, i64)> = sqlx::query_as(
        "select payload ->> 'content', ordinal from items where parent_uid = $1 order by ordinal",
    )
    .bind(chat.uid)
    .fetch_all(&admin)
    .await
    .unwrap();
    let said: Vec<&str> = order.iter().map(|(said, _)| said.as_str()).collect();
    assert_eq!(said[..3], ["one", "two", "three"]);
    let mut last = said[3..].to_vec();
    last.sort_unstable();
    assert_eq!(last, ["five", "four", "six"]);
    assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "two at one place: {order:?}");
    assert!(order[5].1 < 2 << 20, "the next turn's messages come after");
}
