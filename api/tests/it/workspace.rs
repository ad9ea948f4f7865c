//! The workspace over REST: the same for every entity.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::workspace::{ENTITIES, EntityDef};

use crate::app::{ADMIN, Answered, FOREIGNER, MEMBER, TestApp};

const VALIDATION: &str = "APP-4XX-VALIDATION";

impl TestApp {
    /// A payload of this kind; what it hangs on is a chat of the caller's.
    async fn sample(&self, key: &str, def: &EntityDef, number: usize) -> Value {
        let chat = async || {
            let made = self.post(key, "/v1/chats", &json!({"title": "what samples hang on"})).await;
            made.json()["uid"].clone()
        };
        match def.kind {
            "chat" => json!({"title": format!("chat {number}")}),
            "chat_message" => json!({"chatUid": chat().await, "content": format!("message {number}")}),
            "comment" => {
                json!({"content": format!("{number}"), "parentType": "chat", "parentUid": chat().await})
            }
            "note" => json!({"title": format!("note {number}"), "content": "Salt"}),
            _ => json!({"title": format!("task {number}")}),
        }
    }

    async fn made(&self, key: &str, def: &EntityDef, number: usize) -> Value {
        let payload = self.sample(key, def, number).await;
        let made = self.post(key, &all(def), &payload).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        made.json()
    }

    async fn with(&self, method: Method, path: &str, header: (&str, &str), body: Option<&Value>) -> Answered {
        let request = self.request(method, path).header("X-API-Key", MEMBER).header(header.0, header.1);
        self.send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    async fn uids(&self, path: &str) -> Vec<String> {
        let page = self.get(MEMBER, path).await.json();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{path}: {page}"));
        items.iter().map(|item| item["uid"].as_str().unwrap().to_owned()).collect()
    }
}

fn all(def: &EntityDef) -> String {
    format!("/v1/{}", def.plural)
}

fn place(def: &EntityDef, item: &Value) -> String {
    format!("/v1/{}/{}", def.plural, item["uid"].as_str().unwrap())
}

#[tokio::test]
async fn an_item_from_beginning_to_end() {
    let app = TestApp::start().await;
    for def in ENTITIES.iter() {
        let mut payload = app.sample(MEMBER, def, 1).await;
        payload["mood"] = json!({"deep": [1]});
        let answered = app.post(MEMBER, &all(def), &payload).await;
        assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
        let made = answered.json();
        let one = place(def, &made);
        assert_eq!(answered.headers["location"], one.as_str());
        assert_eq!(answered.headers["etag"], "\"1\"");
        assert_eq!((&made["version"], &made["deletedAt"]), (&json!(1), &Value::Null));
        for (name, value) in payload.as_object().unwrap() {
            assert_eq!(&made["payload"][name], value, "{} loses {name}", def.kind);
        }
        let by_id = format!("{}/{}", all(def), made["id"]);
        for path in [&one, &by_id] {
            let read = app.get(MEMBER, path).await;
            assert_eq!((read.json(), &read.headers["etag"]), (made.clone(), &"\"1\"".parse().unwrap()));
        }

        let patched =
            app.send_json(MEMBER, Method::PATCH, &by_id, &json!({"tags": ["t"], "mood": null})).await;
        assert_eq!(patched.headers["etag"], "\"2\"");
        let patched = patched.json();
        assert_eq!((&patched["payload"]["tags"], patched["payload"].get("mood")), (&json!(["t"]), None));
        payload["extra"] = json!("x");
        let updated = app.send_json(MEMBER, Method::PUT, &one, &payload).await.json();
        assert_eq!((&updated["version"], &updated["payload"]["extra"]), (&json!(3), &json!("x")));
        assert_eq!(updated["payload"]["tags"], json!([]), "replaced, not merged");

        let action = json!({"action": def.actions[0], "metadata": {"why": "a test"}});
        let processed = app.post(MEMBER, &format!("{one}/process"), &action).await.json();
        assert_eq!(processed["version"], 4, "{processed}");
        assert_eq!(processed["payload"]["metadata"][def.actions[0]]["why"], "a test");
        app.post(MEMBER, &format!("{one}/process"), &action).await.is_error(409, "APP-409-CONFLICT");
        let explode = json!({"action": "explode"});
        app.post(MEMBER, &format!("{one}/process"), &explode).await.is_error(422, VALIDATION);

        let archived =
            app.with(Method::POST, &format!("{by_id}/archive"), ("X-Nothing", "x"), None).await.json();
        assert_eq!(archived["version"], 5);
        assert!(!app.uids(&all(def)).await.contains(&made["uid"].as_str().unwrap().to_owned()));
        let with_archived = format!("{}?includeArchived=true&status=all", all(def));
        assert_eq!(app.uids(&with_archived).await[0], made["uid"].as_str().unwrap());

        let deleted = app.send(app.request(Method::DELETE, &one).header("X-API-Key", MEMBER)).await;
        assert_eq!((deleted.status, &deleted.headers["etag"]), (StatusCode::OK, &"\"6\"".parse().unwrap()));
        assert!(deleted.json()["deletedAt"].is_string());
        app.get(MEMBER, &one).await.is_error(410, "APP-410-GONE");
        assert_eq!(app.get(MEMBER, &format!("{one}?includeDeleted=true")).await.json(), deleted.json());
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            app.send_json(MEMBER, method, &one, &payload).await.is_error(410, "APP-410-GONE");
        }
        assert!(!app.uids(&with_archived).await.contains(&made["uid"].as_str().unwrap().to_owned()));
        assert!(
            app.uids(&format!("{with_archived}&includeDeleted=true"))
                .await
                .contains(&made["uid"].as_str().unwrap().to_owned())
        );
    }
}

#[tokio::test]
async fn every_write_heeds_if_match() {
    let app = TestApp::start().await;
    for def in ENTITIES.iter() {
        let made = app.made(MEMBER, def, 1).await;
        let one = place(def, &made);
        let (archive, process) = (format!("{one}/archive"), format!("{one}/process"));
        let action = json!({"action": def.actions[0]});
        let mut version = 1;
        for (method, path, body) in [
            (Method::PUT, &one, Some(&made["payload"])),
            (Method::PATCH, &one, Some(&json!({"x": 1}))),
            (Method::POST, &process, Some(&action)),
            (Method::POST, &archive, None),
            (Method::DELETE, &one, None),
        ] {
            let newer = format!("\"{}\"", version + 1);
            let refused = app.with(method.clone(), path, ("If-Match", &newer), body).await;
            assert_eq!(refused.is_error(412, "APP-412-PRECONDITION")["version"], version);
            app.with(method.clone(), path, ("If-Match", "newest"), body).await.is_error(400, VALIDATION);
            let done = app.with(method.clone(), path, ("If-Match", &format!("\"{version}\"")), body).await;
            assert_eq!(done.status, StatusCode::OK, "{method} {path}: {done:?}");
            version += 1;
            assert_eq!(done.headers["etag"], format!("\"{version}\"").as_str());
        }
    }
}

#[tokio::test]
async fn lists_go_page_by_page() {
    let app = TestApp::start().await;
    let task = shared::workspace::definition("task").unwrap();
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(app.made(MEMBER, task, number).await["uid"].as_str().unwrap().to_owned());
        app.made(ADMIN, task, number).await;
    }
    made.reverse();
    let (mut seen, mut path) = (Vec::new(), "/v1/tasks?limit=3".to_owned());
    loop {
        let page = app.get(MEMBER, &path).await.json();
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["uid"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/v1/tasks?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, made);
    assert_eq!(app.get(ADMIN, "/v1/tasks").await.json()["items"].as_array().unwrap().len(), 14);

    let done = format!("/v1/tasks/{}/process", made[0]);
    app.post(MEMBER, &done, &json!({"action": "complete"})).await;
    assert_eq!(app.uids("/v1/tasks?status=completed").await, made[..1]);
    assert_eq!(app.uids("/v1/tasks?status=pending").await, made[1..]);
    for (query, status) in [
        ("limit=0", 422),
        ("limit=1001", 422),
        ("limit=x", 400),
        ("cursor=7", 400),
        ("status=open", 422),
        ("includeDeleted=maybe", 400),
        ("order=asc", 400),
        ("chatUid=0198c0de-0000-7000-8000-000000000000", 400),
    ] {
        app.get(MEMBER, &format!("/v1/tasks?{query}")).await.is_error(status, VALIDATION);
    }
    app.get(MEMBER, "/v1/comments?parentUid=7").await.is_error(400, VALIDATION);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_one_shape() {
    let app = TestApp::start().await;
    let before = app.rows().await;
    for def in ENTITIES.iter() {
        for id in ["0198c0de-0000-7000-8000-000000000000", "4711", "-1", "no-uid", "%00", "%ff", "1e3"] {
            let one = format!("{}/{id}", all(def));
            app.get(MEMBER, &one).await.is_error(404, "APP-404-NOT-FOUND");
            let patched = app.send_json(MEMBER, Method::PATCH, &one, &json!({"x": 1})).await;
            patched.is_error(404, "APP-404-NOT-FOUND");
        }
        let huge = json!({"content": "x".repeat(1 << 20)});
        app.post(MEMBER, &all(def), &huge).await.is_error(413, VALIDATION);
        app.post(MEMBER, &all(def), &json!(["x"])).await.is_error(422, VALIDATION);
        app.post(MEMBER, &all(def), &json!({"tags": 5})).await.is_error(422, VALIDATION);
        let plain = app.request(Method::POST, &all(def)).header("X-API-Key", MEMBER);
        app.send(plain.try_clone().unwrap().body("x")).await.is_error(415, VALIDATION);
        app.send(plain.header("Content-Type", "application/json").body("{")).await.is_error(400, VALIDATION);
        app.send_json(MEMBER, Method::PUT, &all(def), &json!({})).await.is_error(405, VALIDATION);
    }
    let wrong = app.post(MEMBER, "/v1/tasks", &json!({"title": 7})).await.is_error(422, VALIDATION);
    assert_eq!(wrong["field"], "title");
    let large = json!({"title": "x", "description": "x".repeat(300 * 1024)});
    app.post(MEMBER, "/v1/tasks", &large).await.is_error(413, VALIDATION);
    app.get(MEMBER, "/v1/recipes").await.is_error(404, "APP-404-NOT-FOUND");
    assert_eq!(app.rows().await, before);
}

#[tokio::test]
async fn a_key_names_one_request() {
    let app = TestApp::start().await;
    for def in ENTITIES.iter() {
        let payload = app.sample(MEMBER, def, 1).await;
        let before = app.uids(&all(def)).await.len();
        let path = all(def);
        let posts =
            (0..100).map(|_| app.with(Method::POST, &path, ("Idempotency-Key", "k1"), Some(&payload)));
        let answers = futures::future::join_all(posts).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.text), (StatusCode::CREATED, &answers[0].text), "{answer:?}");
            assert_eq!(answer.headers["etag"], "\"1\"");
        }
        assert_eq!(app.uids(&all(def)).await.len(), before + 1);
        let mut other = payload.clone();
        other["x"] = json!(1);
        let reused = app.with(Method::POST, &path, ("Idempotency-Key", "k1"), Some(&other)).await;
        reused.is_error(409, "APP-409-CONFLICT");
        app.with(Method::POST, &path, ("Idempotency-Key", "two words"), Some(&payload))
            .await
            .is_error(400, VALIDATION);

        // The answer stays what it was, whatever became of the item.
        let made = answers[0].json();
        let process = format!("{}/process", place(def, &made));
        let action = json!({"action": def.actions[0]});
        for _ in 0..2 {
            let done = app.with(Method::POST, &process, ("Idempotency-Key", "k1"), Some(&action)).await;
            assert_eq!((done.status, &done.json()["version"]), (StatusCode::OK, &json!(2)), "{done:?}");
        }
        let again = app.with(Method::POST, &path, ("Idempotency-Key", "k1"), Some(&payload)).await;
        assert_eq!(again.text, answers[0].text);
        // A refusal leaves its key free.
        let refused =
            app.with(Method::POST, &path, ("Idempotency-Key", "k2"), Some(&json!({"tags": 5}))).await;
        refused.is_error(422, VALIDATION);
        let made = app.with(Method::POST, &path, ("Idempotency-Key", "k2"), Some(&payload)).await;
        assert_eq!(made.status, StatusCode::CREATED);
        // Another person's key of the same name is another key.
        let own = app.sample(ADMIN, def, 2).await;
        let request =
            app.request(Method::POST, &path).header("X-API-Key", ADMIN).header("Idempotency-Key", "k1");
        assert_eq!(app.send(request.json(&own)).await.status, StatusCode::CREATED);
    }
    app.execute("update idempotency_keys set created_at = now() - interval '25 hours'").await;
    let note = json!({"title": "a day later"});
    let later = app.with(Method::POST, "/v1/notes", ("Idempotency-Key", "k1"), Some(&note)).await;
    assert_eq!(later.status, StatusCode::CREATED, "a day later the key is free");
}

#[tokio::test]
async fn nobody_reaches_what_is_somebody_elses() {
    let app = TestApp::start().await;
    const SECRET: &str = "the combination is 7-3-9";
    for def in ENTITIES.iter() {
        let mut payload = app.sample(ADMIN, def, 1).await;
        payload["secret"] = json!(SECRET);
        let made = app.post(ADMIN, &all(def), &payload).await.json();
        let one = place(def, &made);
        let by_id = format!("{}/{}", all(def), made["id"]);
        let mut requests =
            vec![(Method::GET, all(def), None), (Method::POST, all(def), Some(payload.clone()))];
        for one in [&one, &by_id] {
            requests.extend([
                (Method::GET, one.clone(), None),
                (Method::GET, format!("{one}?includeDeleted=true"), None),
                (Method::PUT, one.clone(), Some(payload.clone())),
                (Method::PATCH, one.clone(), Some(json!({"x": 1}))),
                (Method::DELETE, one.clone(), None),
                (Method::POST, format!("{one}/archive"), None),
                (Method::POST, format!("{one}/process"), Some(json!({"action": def.actions[0]}))),
            ]);
        }
        for (method, path, body) in requests {
            let request = |key: Option<&str>| {
                let request = app.request(method.clone(), &path);
                let request = match &body {
                    Some(body) => request.json(body),
                    None => request,
                };
                match key {
                    Some(key) => request.header("X-API-Key", key),
                    None => request,
                }
            };
            app.send(request(None)).await.is_error(401, "APP-401-AUTH");
            app.send(request(Some("a-key-that-nobody-has"))).await.is_error(401, "APP-401-AUTH");
            let whole = path == all(def);
            for key in [MEMBER, FOREIGNER] {
                let answered = app.send(request(Some(key))).await;
                if whole && method == Method::GET {
                    assert!(!answered.text.contains(SECRET), "{key} reads {path}");
                } else if whole {
                    // What hangs on somebody else's chat is refused; the rest is a new item of the caller's own.
                    let wanted = if def.parent.is_some() { 422 } else { 201 };
                    assert_eq!(answered.status.as_u16(), wanted, "{answered:?}");
                } else if path.starts_with(&by_id) && key == FOREIGNER {
                    // Short ids belong to a tenant, so that this may name an item of the foreigner's own.
                    assert!(!answered.text.contains(made["uid"].as_str().unwrap()), "{method} {path}");
                } else {
                    answered.is_error(404, "APP-404-NOT-FOUND");
                }
            }
        }
        assert_eq!(app.get(ADMIN, &one).await.json(), made, "somebody changed it");
    }
}

#[tokio::test]
async fn chats_are_conversations_and_their_messages_what_turns_write() {
    let app = TestApp::start().await;
    let accepted = app.chat(MEMBER).await;
    let chat = app.get(MEMBER, &format!("/v1/chats/{}", accepted["conversationId"])).await.json();
    assert_eq!(chat["payload"]["title"], "hello");
    let messages = format!("/v1/chat_messages?chatUid={}", chat["uid"].as_str().unwrap());
    let page = app.get(MEMBER, &messages).await.json();
    let message = &page["items"][0];
    assert_eq!(
        (&message["payload"]["content"], &message["payload"]["role"]),
        (&json!("hello"), &json!("user"))
    );
    let one = format!("/v1/chat_messages/{}", message["id"]);
    app.send_json(MEMBER, Method::PATCH, &one, &json!({"content": "bye"}))
        .await
        .is_error(409, "APP-409-CONFLICT");
    let whole = json!({"chatUid": chat["uid"], "content": "bye"});
    app.send_json(MEMBER, Method::PUT, &one, &whole).await.is_error(409, "APP-409-CONFLICT");
    let read = app.post(MEMBER, &format!("{one}/process"), &json!({"action": "mark_read"})).await.json();
    assert!(read["payload"]["readAt"].is_string(), "{read}");

    let said =
        app.post(MEMBER, "/v1/chat_messages", &json!({"chatUid": chat["uid"], "content": "and more"})).await;
    assert_eq!(said.status, StatusCode::CREATED);
    let after = app.get(MEMBER, &format!("/v1/chats/{}", chat["uid"].as_str().unwrap())).await.json();
    assert_eq!(after["version"], chat["version"]);
    assert!(after["updatedAt"].as_str() > chat["updatedAt"].as_str());
    assert_eq!(app.uids(&messages).await.len(), 2);
    app.send(app.request(Method::DELETE, &format!("/v1/chats/{}", chat["id"])).header("X-API-Key", MEMBER))
        .await;
    assert!(app.uids(&messages).await.is_empty());
    app.get(MEMBER, &one).await.is_error(410, "APP-410-GONE");
}
