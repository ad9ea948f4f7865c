//! Posting, repeating, waiting for and cancelling turns.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use http::Method;
use serde_json::json;

use crate::app::{MEMBER, TestApp, say};

#[tokio::test]
async fn a_turn_is_accepted_with_all_that_a_client_needs() {
    let app = TestApp::start().await;
    let request = app.request(Method::POST, "/chat?forceRefresh=true").header("X-API-Key", MEMBER);
    let answered = app.send(request.header("X-Request-ID", "mine-1").json(&say("hello\u{0}"))).await;
    assert_eq!(answered.status.as_u16(), 202);
    let body = answered.json();
    let job = format!("/jobs/{}", body["jobId"].as_str().unwrap());
    assert_eq!(answered.headers["location"], job.as_str());
    assert_eq!(answered.headers["x-request-id"], "mine-1");
    let stream = format!("/chat/stream?session={}", body["session"].as_str().unwrap());
    let links = json!({"self": job, "events": format!("{job}/events"), "stream": stream, "cancel": format!("{job}/cancel")});
    assert_eq!(body["links"], links);
    assert_eq!(body["meta"], json!({"requestId": "mine-1"}));
    assert_eq!(body["status"], "queued");

    let read = app.get(MEMBER, &job).await.json();
    assert_eq!((&read["status"], &read["queue"]), (&json!("queued"), &json!("chat-turns")));
    assert_eq!(read["waitingFor"], json!({"type": "worker"}));
    assert_eq!(read["meta"]["requestId"], "mine-1");
    let stored: String =
        sqlx::query_scalar("select payload ->> 'content' from items where kind = 'chat_message'")
            .fetch_one(&app.db.admin())
            .await
            .unwrap();
    assert_eq!(stored, "hello\u{fffd}");
}

#[tokio::test]
async fn a_request_id_that_is_not_safe_is_replaced() {
    let app = TestApp::start().await;
    for unsafe_id in ["a b", "x\u{fc}", &"x".repeat(129)] {
        let request = app
            .request(Method::GET, "/sessions")
            .header("X-API-Key", MEMBER)
            .header("X-Request-ID", unsafe_id.as_bytes());
        let answered = app.send(request).await;
        assert_eq!(answered.headers["x-request-id"].len(), 32);
    }
}

#[tokio::test]
async fn a_repeated_key_gives_the_same_job() {
    let app = TestApp::start().await;
    let post = |body: serde_json::Value| {
        let request = app.request(Method::POST, "/chat").header("X-API-Key", MEMBER);
        app.send(request.header("Idempotency-Key", "k1").json(&body))
    };
    let answers = join_all((0..100).map(|_| post(say("once")))).await;
    let jobs: HashSet<String> = answers
        .iter()
        .map(|answered| {
            assert_eq!(answered.status.as_u16(), 202, "{answered:?}");
            answered.json()["jobId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(jobs.len(), 1);
    // The same request in other words.
    let mut same = say("once");
    same["onBusy"] = "enqueue".into();
    assert_eq!(post(same).await.json()["jobId"], *jobs.iter().next().unwrap());
    post(say("twice")).await.is_error(409, "APP-409-CONFLICT");
    assert_eq!(app.rows().await[0], 1);
}

#[tokio::test]
async fn waiting_ends_with_the_turn_or_the_time() {
    let app = TestApp::start().await;
    let wait = |seconds: &str, session: Option<&str>| {
        let mut body = say("hello");
        if let Some(session) = session {
            body["session"] = session.into();
        }
        let request = app.request(Method::POST, "/chat").header("X-API-Key", MEMBER);
        app.send(request.header("Prefer", format!("wait={seconds}")).json(&body))
    };
    let accepted = wait("1", None).await;
    assert_eq!(accepted.status.as_u16(), 202);
    assert!(!accepted.headers.contains_key("preference-applied"));

    let session = accepted.json()["session"].as_str().unwrap().to_owned();
    let cancelling = async {
        // The second turn is there once the session's list shows it; it waits behind the first.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let turns: Vec<uuid::Uuid> = sqlx::query_scalar("select id from turns order by turn_no")
                .fetch_all(&app.db.admin())
                .await
                .unwrap();
            if let [_, second] = turns[..] {
                let cancelled = app.post(MEMBER, &format!("/jobs/{second}/cancel"), &json!({})).await;
                assert_eq!(cancelled.json()["status"], "cancelled");
                return second.to_string();
            }
            assert!(tokio::time::Instant::now() < deadline, "the second turn was not posted");
            tokio::task::yield_now().await;
        }
    };
    let started = std::time::Instant::now();
    let (waited, second) = tokio::join!(wait("20", Some(&session)), cancelling);
    assert!(started.elapsed() < Duration::from_secs(10));
    let body = waited.is_error(409, "APP-409-CONFLICT");
    assert_eq!(body["jobId"], second.as_str());
    // Cancelling what has ended changes nothing.
    let again = app.post(MEMBER, &format!("/jobs/{second}/cancel"), &json!({})).await;
    assert_eq!((again.status.as_u16(), &again.json()["status"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_busy_conversation_refuses_when_asked_to() {
    let app = TestApp::start().await;
    let first = app.chat(MEMBER).await;
    let mut body = say("again");
    body["session"] = first["session"].clone();
    body["onBusy"] = "reject".into();
    let refused = app.post(MEMBER, "/chat", &body).await.is_error(409, "APP-409-CONFLICT");
    assert_eq!(refused["jobId"], first["jobId"]);
    body["onBusy"] = "enqueue".into();
    let queued = app.post(MEMBER, "/chat", &body).await.json();
    let read = app.get(MEMBER, queued["links"]["self"].as_str().unwrap()).await.json();
    assert_eq!(read["waitingFor"], json!({"type": "turn", "jobId": first["jobId"]}));
}
