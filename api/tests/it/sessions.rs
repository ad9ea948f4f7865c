//! Sessions, from being made to having expired.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{MEMBER, TestApp, say};

#[tokio::test]
async fn a_session_lives() {
    let app = TestApp::start().await;
    let made = app.send(app.request(Method::POST, "/sessions").header("X-API-Key", MEMBER)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let session = made.json();
    let place = format!("/sessions/{}", session["id"].as_str().unwrap());
    assert_eq!(made.headers["location"], place.as_str());
    assert_eq!((&session["running"], &session["lastEventId"]), (&Value::Null, &Value::Null));

    let mut body = say("hello");
    body["session"] = session["session"].clone();
    let turn = app.post(MEMBER, "/chat", &body).await.json();
    assert_eq!(turn["sessionId"], session["id"]);
    assert_eq!(turn["conversationId"], session["conversationId"]);
    let read = app.get(MEMBER, &place).await.json();
    assert_eq!(read["running"], json!({"jobId": turn["jobId"], "status": "queued"}));
    assert_eq!(read["lastEventId"], "1.1");
    assert!(read.get("session").is_none(), "the token is answered once");

    let patch = json!({"activeNotionWorkspace": "w1"});
    let patched = app.send_json(MEMBER, Method::PATCH, &place, &patch).await.json();
    assert_eq!(patched["activeNotionWorkspace"], "w1");
    let kept = app.send_json(MEMBER, Method::PATCH, &place, &json!({})).await.json();
    assert_eq!(kept["activeNotionWorkspace"], "w1");
    let cleared =
        app.send_json(MEMBER, Method::PATCH, &place, &json!({"activeNotionWorkspace": null})).await.json();
    assert_eq!(cleared["activeNotionWorkspace"], Value::Null);

    let delete = || app.request(Method::DELETE, &place).header("X-API-Key", MEMBER);
    assert_eq!(app.send(delete()).await.status, StatusCode::NO_CONTENT);
    app.send(delete()).await.is_error(404, "APP-404-NOT-FOUND");
    app.get(MEMBER, &place).await.is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn sessions_are_listed_in_pages() {
    let app = TestApp::start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(app.post(MEMBER, "/sessions", &json!({})).await.json()["id"].clone());
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/sessions?limit=2".to_owned();
    loop {
        let page = app.get(MEMBER, &path).await.json();
        seen.extend(page["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/sessions?limit=2&before={next}");
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn an_expired_session_is_gone() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    app.execute("update user_sessions set expires_at = now() - interval '1 second'").await;
    let before = app.rows().await;
    let mut body = say("hello");
    body["session"] = turn["session"].clone();
    app.post(MEMBER, "/chat", &body).await.is_error(410, "APP-410-GONE");
    let place = format!("/sessions/{}", turn["sessionId"].as_str().unwrap());
    app.get(MEMBER, &place).await.is_error(410, "APP-410-GONE");
    app.get(MEMBER, turn["links"]["stream"].as_str().unwrap()).await.is_error(410, "APP-410-GONE");
    assert_eq!(app.rows().await, before);
    assert_eq!(app.get(MEMBER, "/sessions").await.json()["sessions"], json!([]));
    // The job is the user's, not the session's.
    assert_eq!(app.get(MEMBER, turn["links"]["self"].as_str().unwrap()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_last_use_is_written_at_the_latest_when_the_process_stops() {
    let app = TestApp::start().await;
    app.chat(MEMBER).await;
    app.execute("update user_sessions set last_accessed = now() - interval '1 day'").await;
    let session = app.get(MEMBER, "/sessions").await.json()["sessions"][0]["id"].as_str().unwrap().to_owned();
    app.get(MEMBER, &format!("/sessions/{session}")).await;
    let TestApp { running, db, .. } = app;
    running.stop().await;
    let is_fresh: bool =
        sqlx::query_scalar("select last_accessed > now() - interval '1 minute' from user_sessions")
            .fetch_one(&db.admin())
            .await
            .unwrap();
    assert!(is_fresh);
}

/// A session outlives its chat, but nobody would see what is said there.
#[tokio::test]
async fn nothing_is_posted_into_a_chat_that_was_deleted() {
    let app = TestApp::start().await;
    let posted = app.chat(MEMBER).await;
    app.post(MEMBER, &format!("/jobs/{}/cancel", posted["jobId"].as_str().unwrap()), &json!({})).await;
    let chat = format!("/v1/chats/{}", posted["conversationId"]);
    let deleted = app.send(app.request(Method::DELETE, &chat).header("X-API-Key", MEMBER)).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let before = app.rows().await;
    let mut body = say("anybody there?");
    body["session"] = posted["session"].clone();
    for on_busy in ["enqueue", "reject", "interrupt"] {
        body["onBusy"] = on_busy.into();
        app.post(MEMBER, "/chat", &body).await.is_error(410, "APP-410-GONE");
    }
    app.execute("update turns set state = 'dead', slot = null, error = '{}'").await;
    let retry = format!("/jobs/{}/retry", posted["jobId"].as_str().unwrap());
    app.post(MEMBER, &retry, &json!({})).await.is_error(410, "APP-410-GONE");
    assert_eq!(app.rows().await, before);
    let session = app.get(MEMBER, &format!("/sessions/{}", posted["sessionId"].as_str().unwrap())).await;
    assert_eq!(session.status, 200, "{session:?}");
}
