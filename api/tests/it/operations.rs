//! Health, metrics, common headers, and what happens when the database is away.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::app::{MEMBER, TestApp, say};

#[tokio::test]
async fn health_and_metrics() {
    let app = TestApp::start().await;
    let health = app.send(app.request(Method::GET, "/healthz")).await;
    assert_eq!(health.json(), json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
    let ready = app.send(app.request(Method::GET, "/readyz")).await;
    assert_eq!(
        (ready.status, ready.json()),
        (StatusCode::OK, json!({"status": "ready", "postgres": true, "queue": true}))
    );
    app.get(MEMBER, "/nowhere").await;
    app.chat(MEMBER).await;
    let metrics = app.send(app.request(Method::GET, "/metrics")).await.text;
    for line in [
        "errors_total{origin=\"app\",code=\"APP-404-NOT-FOUND\"}",
        "db_pool_connections{pool=\"app\",state=\"idle\"}",
        "queue_depth{queue=\"chat-turns\"} 1",
        "queue_oldest_seconds{queue=\"chat-turns\"}",
        "turns_total{status=\"succeeded\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn every_answer_has_the_common_headers() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/nowhere", "/sessions", "/docs/", "/openapi.json"] {
        let answered = app.get(MEMBER, path).await;
        assert_eq!(answered.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answered.headers["referrer-policy"], "no-referrer", "{path}");
        assert!(answered.headers.contains_key("x-request-id"), "{path}");
        assert!(!answered.headers.contains_key("strict-transport-security"), "{path}");
    }
}

#[tokio::test]
async fn browsers_of_listed_origins_may_call() {
    let app =
        TestApp::start_with(|config| config.cors_origins = vec!["https://app.example".to_owned()]).await;
    let preflight = |origin: &str| {
        let request = app.request(Method::OPTIONS, "/chat").header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        app.send(request.header("Access-Control-Request-Headers", "x-api-key,content-type"))
    };
    let listed = preflight("https://app.example").await;
    assert_eq!(listed.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(listed.headers["access-control-allow-headers"], "x-api-key,content-type");
    assert!(!preflight("https://evil.example").await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn without_a_database_the_process_lives_and_streams_do_not_answer() {
    // A port that was free a moment ago, so nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgresql://alfred_app@127.0.0.1:{port}/nothing");
    let app = TestApp::start_with(|config| {
        config.db_url = url.clone().into();
        config.db_engine_url = url.clone().into();
        config.db_listen_url = url.into();
        config.stream_hold = Duration::from_millis(600);
    })
    .await;
    assert_eq!(app.send(app.request(Method::GET, "/healthz")).await.status, StatusCode::OK);
    let ready = app.send(app.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json(), json!({"status": "unavailable", "postgres": false, "queue": false}));

    let job = "/jobs/0198c0de-0000-7000-8000-000000000000";
    let refused = app.get(MEMBER, job).await.is_error(500, "APP-5XX");
    assert_eq!(refused["origin"], "db");
    assert!(!refused["message"].as_str().unwrap().contains("refused"), "causes are for the log: {refused}");

    let started = std::time::Instant::now();
    let stream = app.request(Method::GET, &format!("{job}/events")).header("X-API-Key", MEMBER);
    let closed = stream.send().await.unwrap_err();
    assert!(closed.is_request() && !closed.is_timeout(), "{closed:?}");
    assert!(started.elapsed() >= Duration::from_millis(500), "it was not held");
}

#[tokio::test]
async fn clients_that_go_away_leave_no_transaction_open() {
    let app = TestApp::start().await;
    let job = app.chat(MEMBER).await["jobId"].as_str().unwrap().to_owned();
    let mut herd = tokio::task::JoinSet::new();
    for number in 0..400_u64 {
        let request = app.request(Method::GET, &format!("/jobs/{job}")).header("X-API-Key", MEMBER);
        // Each gives up at another moment of what the server does for it.
        herd.spawn(tokio::time::timeout(Duration::from_micros(number * 50), request.send()));
    }
    while herd.join_next().await.is_some() {}
    assert_eq!(app.get(MEMBER, &format!("/jobs/{job}")).await.status, StatusCode::OK);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        // Nothing is under way, so nothing may be in a transaction.
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and state like 'idle in transaction%'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&app.db.admin()).await.unwrap();
        if open == 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{open} transactions are open");
    }
}

#[tokio::test]
async fn a_stop_answers_who_waits() {
    let app = TestApp::start().await;
    let waiting = app.request(Method::POST, "/chat").header("X-API-Key", MEMBER).header("Prefer", "wait=30");
    let waiting = tokio::spawn(waiting.json(&say("hello")).send());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while app.rows().await[0] == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the turn was not posted");
    }
    let TestApp { running, db, .. } = app;
    tokio::time::timeout(Duration::from_secs(10), running.stop()).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
    drop(db);
}
