//! Search and figures over HTTP.

use serde_json::{Value, json};

use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp, say};

async fn found(app: &TestApp, key: &str, query: &str) -> Vec<Value> {
    let answered = app.get(key, &format!("/v1/search?{query}")).await;
    answered.json()["results"].as_array().unwrap_or_else(|| panic!("{answered:?}")).clone()
}

#[tokio::test]
async fn what_was_said_is_found_by_who_said_it() {
    let app = TestApp::start().await;
    app.post(MEMBER, "/chat", &say("Where is the <b>lighthouse</b> of Alexandria?")).await;
    let results = found(&app, MEMBER, "q=lighthouse").await;
    let message = results.iter().find(|result| result["kind"] == "chat_message").unwrap();
    assert!(message["snippet"].as_str().unwrap().contains("<mark>lighthouse</mark>"), "{message}");
    assert!(!message["snippet"].as_str().unwrap().contains("<b>"), "{message}");
    assert!(found(&app, MEMBER, "q=lighthouse%20-alexandria").await.is_empty());
    assert!(!found(&app, MEMBER, "q=%22lighthouse%20of%20alexandria%22").await.is_empty());
    assert!(found(&app, MEMBER, "q=lighthouse&kinds=notes,tasks").await.is_empty());
    assert!(found(&app, FOREIGNER, "q=lighthouse").await.is_empty());
    assert!(!found(&app, ADMIN, "q=lighthouse").await.is_empty());
    let page = app.get(MEMBER, "/v1/search?q=lighthouse").await.json();
    assert_eq!(page["nextCursor"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused() {
    let app = TestApp::start().await;
    for (query, status) in [
        ("", 400),
        ("q=x&limit=many", 400),
        ("q=x&includeArchived=perhaps", 400),
        ("q=x&cursor=y", 400),
        ("q=", 422),
        ("q=x&limit=0", 422),
        ("q=x&kinds=dogs", 422),
        ("q=x&status=asleep", 422),
        ("q=x&mode=telepathic", 422),
        // Without a model of embeddings.
        ("q=x&mode=semantic", 422),
        ("q=x&mode=hybrid", 422),
    ] {
        app.get(MEMBER, &format!("/v1/search?{query}")).await.is_error(status, "APP-4XX-VALIDATION");
    }
}

#[tokio::test]
async fn figures_are_the_callers() {
    let app = TestApp::start().await;
    app.chat(MEMBER).await;
    let stats = app.get(MEMBER, "/v1/stats").await.json();
    assert_eq!(stats["kinds"]["chat_message"]["total"], 1);
    assert_eq!(stats["tasks"], json!({"pending": 0, "overdue": 0, "dueSoon": 0}));
    assert_eq!(app.get(FOREIGNER, "/v1/stats").await.json()["kinds"], json!({}));
    assert_eq!(app.get(ADMIN, "/v1/stats").await.json()["kinds"]["chat"]["total"], 1);
}
