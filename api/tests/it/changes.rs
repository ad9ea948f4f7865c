//! The change feed over HTTP: pages, streams, and what a cursor is good for.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::{
    app::{ADMIN, FOREIGNER, MEMBER, TestApp},
    streams::Reader,
};

/// The page after this cursor, once it has so many changes: another test's transaction may hold the feed up.
async fn poll(app: &TestApp, key: &str, since: &str, wanted: usize) -> Value {
    let polling = async {
        loop {
            let page = app.get(key, &format!("/v1/changes?since={since}")).await.json();
            if page["changes"].as_array().unwrap().len() >= wanted {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polling).await.expect("the changes did not come")
}

async fn now(app: &TestApp, key: &str) -> String {
    let page = app.get(key, "/v1/changes?since=now").await.json();
    assert_eq!((&page["changes"], &page["more"]), (&json!([]), &json!(false)));
    page["nextCursor"].as_str().unwrap().to_owned()
}

fn kinds(page: &Value) -> Vec<&str> {
    page["changes"].as_array().unwrap().iter().map(|change| change["kind"].as_str().unwrap()).collect()
}

/// The changes that a stream has told, as (cursor, kind).
fn told(text: &str) -> Vec<(String, String)> {
    let data = text.lines().zip(text.lines().skip(1)).filter(|(event, _)| *event == "event: change");
    data.map(|(_, data)| {
        let change: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (change["cursor"].as_str().unwrap().to_owned(), change["kind"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[tokio::test]
async fn what_a_turn_writes_is_told_page_by_page() {
    let app = TestApp::start().await;
    let start = now(&app, MEMBER).await;
    app.chat(MEMBER).await;
    let page = poll(&app, MEMBER, &start, 2).await;
    assert_eq!(kinds(&page), ["chat", "chat_message"]);
    let change = &page["changes"][1];
    assert_eq!((&change["version"], &change["change"]), (&json!(1), &json!("created")));
    assert!(change.get("item").is_none());
    // One at a time.
    let first = app.get(MEMBER, &format!("/v1/changes?since={start}&limit=1")).await.json();
    assert_eq!((kinds(&first), &first["more"]), (vec!["chat"], &json!(true)));
    let rest = first["nextCursor"].as_str().unwrap();
    let rest = app.get(MEMBER, &format!("/v1/changes?since={rest}&limit=1")).await.json();
    assert_eq!((kinds(&rest), &rest["more"]), (vec!["chat_message"], &json!(false)));
    let items = app.get(MEMBER, &format!("/v1/changes?since={start}&include=items")).await.json();
    assert_eq!(items["changes"][1]["item"]["payload"]["content"], "hello");
    // The end is a cursor too.
    let end = page["nextCursor"].as_str().unwrap();
    assert_eq!(app.get(MEMBER, &format!("/v1/changes?since={end}")).await.json()["changes"], json!([]));

    assert_eq!(kinds(&poll(&app, ADMIN, &start, 2).await), ["chat", "chat_message"]);
    assert_eq!(app.get(FOREIGNER, &format!("/v1/changes?since={start}")).await.json()["changes"], json!([]));
}

#[tokio::test]
async fn what_is_no_cursor_is_refused() {
    let app = TestApp::start().await;
    let good = now(&app, MEMBER).await;
    for (query, status) in [
        ("since=", 400),
        ("since=yesterday", 400),
        (&*format!("since={}", &good[1..]), 400),
        (&*format!("since={good}&limit=0"), 422),
        (&*format!("since={good}&limit=1001"), 422),
        (&*format!("since={good}&limit=many"), 400),
        (&*format!("since={good}&include=all"), 400),
        ("include=all", 400),
        ("lastEventId=1.1", 400),
    ] {
        app.get(MEMBER, &format!("/v1/changes?{query}")).await.is_error(status, "APP-4XX-VALIDATION");
    }
    let last =
        app.request(Method::GET, "/v1/changes").header("X-API-Key", MEMBER).header("Last-Event-ID", "1.1");
    app.send(last).await.is_error(400, "APP-4XX-VALIDATION");
    app.execute("insert into change_feeds (tenant_id, epoch) select id, gen_random_uuid() from tenants")
        .await;
    app.get(MEMBER, &format!("/v1/changes?since={good}")).await.is_error(410, "APP-410-GONE");
    app.get(MEMBER, &format!("/v1/changes?lastEventId={good}")).await.is_error(410, "APP-410-GONE");
}

#[tokio::test]
async fn a_stream_tells_changes_as_they_come_and_resumes_after_each() {
    let app = TestApp::start_with(|config| config.stream_keepalive = Duration::from_millis(200)).await;
    let mut member = Reader::open(&app, "/v1/changes", None).await;
    let start = member.until(Some("event: ready")).await;
    assert!(start.starts_with("retry: "), "{start:?}");
    app.chat(MEMBER).await;
    member.until(Some("\"kind\":\"chat_message\"")).await;
    app.chat(ADMIN).await;
    app.chat(MEMBER).await;
    member.until_that(|text| told(text).len() == 4).await;
    let all = told(&member.text);
    let kinds: Vec<&str> = all.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["chat", "chat_message", "chat", "chat_message"],
        "the admin's are not a member's to see"
    );
    for (index, (cursor, _)) in all.iter().enumerate().take(3) {
        let mut resumed = Reader::open(&app, "/v1/changes", Some(cursor)).await;
        let last = format!("\"cursor\":\"{}\",\"kind\"", all[3].0);
        resumed.until(Some(&last)).await;
        assert_eq!(told(&resumed.text), all[index + 1..]);
    }
    // Silence moves the cursor on, so that a quiet client is not overtaken by retention.
    member.until(Some(":keepalive\nid: ")).await;
    app.execute("insert into change_feeds (tenant_id, epoch) select id, gen_random_uuid() from tenants")
        .await;
    app.chat(MEMBER).await;
    let text = member.until(None).await;
    assert!(text.contains("event: error\ndata: {") && text.contains("APP-410-GONE"), "{text}");
}

#[tokio::test]
async fn a_stop_sends_readers_of_changes_elsewhere() {
    let app = TestApp::start().await;
    let mut reader = Reader::open(&app, "/v1/changes", None).await;
    reader.until(Some("event: ready")).await;
    let TestApp { running, .. } = app;
    tokio::time::timeout(Duration::from_secs(10), running.stop()).await.unwrap();
    let text = reader.until(None).await;
    assert!(text.rsplit("\n\n").nth(1).is_some_and(|last| last.starts_with("retry: ")), "{text:?}");
}

#[tokio::test]
async fn a_feed_that_is_held_up_shows_in_the_figures() {
    let app = TestApp::start().await;
    let lag = async || {
        let text = app.get(MEMBER, "/metrics").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix("change_feed_lag_seconds "));
        line.unwrap_or_else(|| panic!("no lag in {text}")).parse::<f64>().unwrap()
    };
    let admin = app.db.admin();
    let mut held = admin.begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()").execute(&mut *held).await.unwrap();
    app.post(MEMBER, "/v1/notes", &json!({"title": "late"})).await;
    let first = lag().await;
    assert!(first > 0.0, "{first}");
    assert!(lag().await > first, "it grows until the transaction ends");
    held.rollback().await.unwrap();
    // Other databases of the cluster have transactions too, each over in a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while lag().await > 0.0 {
        assert!(std::time::Instant::now() < deadline, "nothing holds the feed up any more");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
