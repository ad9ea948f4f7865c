//! Batches and pushes over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ADMIN, Answered, FOREIGNER, MEMBER, TestApp};

fn note(title: &str) -> Value {
    json!({"op": "create", "entity": "note", "payload": {"title": title}})
}

async fn batch(app: &TestApp, key: Option<&str>, body: &Value) -> Answered {
    let mut request = app.request(Method::POST, "/v1/batch").header("X-API-Key", MEMBER).json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    app.send(request).await
}

async fn notes(app: &TestApp) -> i64 {
    let counted = sqlx::query_scalar("select count(*) from items where kind = 'note'");
    counted.fetch_one(&app.db.admin()).await.unwrap()
}

#[tokio::test]
async fn a_batch_happens_whole_or_not_at_all() {
    let app = TestApp::start().await;
    let body = json!({"operations": [
        note("one"),
        {"op": "create", "entity": "tasks", "payload": {"title": "t"}},
        {"op": "process", "entity": "task", "uid": "$1", "action": "complete"},
    ]});
    let answered = batch(&app, None, &body).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let results = answered.json()["results"].clone();
    assert_eq!((&results[0]["index"], &results[0]["kind"]), (&json!(0), &json!("note")));
    assert_eq!(results[2]["item"]["payload"]["status"], "done");
    assert_eq!(results[2]["item"]["version"], 2);
    let task = results[1]["item"]["uid"].clone();

    let body =
        json!({"operations": [note("never"), {"op": "delete", "entity": "task", "uid": task, "ifMatch": 1}]});
    let refused = batch(&app, None, &body).await.is_error(412, "APP-412-PRECONDITION");
    assert_eq!(refused["index"], 1);
    let body = json!({"operations": [{"op": "delete", "entity": "task", "uid": task}]});
    for stranger in [FOREIGNER] {
        let refused = app.post(stranger, "/v1/batch", &body).await.is_error(404, "APP-404-NOT-FOUND");
        assert_eq!(refused["index"], 0);
    }
    assert_eq!(notes(&app).await, 1);
    assert_eq!(app.post(ADMIN, "/v1/batch", &body).await.status, StatusCode::OK);
    batch(&app, None, &body).await.is_error(410, "APP-410-GONE");
    for body in [
        json!({}),
        json!({"operations": []}),
        json!({"operations": [{"op": "fly", "entity": "note"}]}),
        json!({"operations": [{"op": "create", "entity": "note", "payload": {}, "wings": 2}]}),
    ] {
        batch(&app, None, &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
}

#[tokio::test]
async fn the_same_key_carries_a_batch_out_once() {
    let app = TestApp::start().await;
    let body = json!({"operations": [note("one"), note("two")]});
    let posts = futures::future::join_all((0..10).map(|_| batch(&app, Some("k1"), &body))).await;
    for answered in &posts {
        assert_eq!((answered.status, &answered.text), (StatusCode::OK, &posts[0].text));
    }
    assert_eq!(notes(&app).await, 2);
    let other = json!({"operations": [note("one")]});
    batch(&app, Some("k1"), &other).await.is_error(409, "APP-409-CONFLICT");
    // A batch that was refused leaves its key free.
    let bad = json!({"operations": [note("one"), {"op": "delete", "entity": "note", "id": 77}]});
    batch(&app, Some("k2"), &bad).await.is_error(404, "APP-404-NOT-FOUND");
    assert_eq!(batch(&app, Some("k2"), &other).await.status, StatusCode::OK);
    assert_eq!(notes(&app).await, 3);
}

#[tokio::test]
async fn a_push_is_judged_item_by_item() {
    let app = TestApp::start().await;
    let uid = uuid::Uuid::now_v7();
    let pushed = |at: &str, title: &str| json!({"entity": "note", "uid": uid, "updatedTs": at, "payload": {"title": title}});
    let body = json!({"items": [
        pushed("2026-01-02T00:00:00Z", "second"),
        pushed("2026-01-01T00:00:00Z", "first"),
        {"entity": "dog", "uid": uid, "updatedTs": "2026-01-01T00:00:00Z"},
    ]});
    let outcomes = |answered: &Answered| -> Vec<String> {
        let results = answered.json()["results"].as_array().unwrap().clone();
        results.iter().map(|result| result["outcome"].as_str().unwrap().to_owned()).collect()
    };
    let answered = app.post(MEMBER, "/v1/sync/push", &body).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(outcomes(&answered), ["created", "superseded", "refused"]);
    let result = &answered.json()["results"][2];
    assert_eq!(result["error"]["error"], "APP-4XX-VALIDATION");
    let again = app.post(MEMBER, "/v1/sync/push", &body).await;
    assert_eq!(outcomes(&again), ["unchanged", "superseded", "refused"]);
    assert_eq!(again.json()["results"][0]["item"]["payload"]["title"], "second");
    // The uid is taken, which is all that anybody else is told.
    let foreign = app
        .post(ADMIN, "/v1/sync/push", &json!({"items": [pushed("2026-01-03T00:00:00Z", "admin's")]}))
        .await;
    assert_eq!(outcomes(&foreign), ["updated"], "an admin may write the tenant's items");
    for body in [json!({}), json!({"items": []}), json!({"items": [{"entity": "note"}]})] {
        app.post(MEMBER, "/v1/sync/push", &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
}
