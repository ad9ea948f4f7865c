//! What bad input gets: the right status, the one error shape, and nothing stored.

use http::Method;
use serde_json::{Value, json};

use crate::app::{Answered, MEMBER, TestApp, say};

const VALIDATION: &str = "APP-4XX-VALIDATION";

async fn raw(app: &TestApp, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Answered {
    let mut request = app.request(Method::POST, "/chat").header("X-API-Key", MEMBER).body(body);
    if let Some(content_type) = content_type {
        request = request.header("Content-Type", content_type);
    }
    app.send(request).await
}

#[tokio::test]
async fn bodies_of_a_turn() {
    let app = TestApp::start().await;
    let json_type = Some("application/json");
    for broken in ["", "{", "nul", "{\"messages\":[}", "\u{feff}{}", "{\"messages\":\"\\ud800\"}"] {
        raw(&app, json_type, broken).await.is_error(400, VALIDATION);
    }
    raw(&app, json_type, vec![b'"', 0xff, b'"']).await.is_error(400, VALIDATION);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    raw(&app, json_type, deep).await.is_error(422, VALIDATION);
    for wrong in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")]
    {
        raw(&app, wrong, say("x").to_string()).await.is_error(415, VALIDATION);
    }
    let unacceptable: Vec<(Value, &str)> = vec![
        (json!([]), "invalid type"),
        (json!("x"), "invalid type"),
        (json!({}), "messages"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!([[{"role": "user", "content": "x"}], null, false, "enqueue"]), "invalid type"),
        (json!({"messages": [["user", "x"]]}), "messages[0]"),
        (json!({"messages": [{"role": "user"}]}), "messages[0]"),
        (json!({"messages": [{"role": "user", "content": ""}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": " \t\n"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": "x".repeat(65_537)}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]}),
            "messages[0].role",
        ),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "assistant", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}), "messages[0].name"),
        (json!({"messages": [{"role": "user", "content": "x"}], "model": "y"}), "model"),
        (json!({"messages": [{"role": "user", "content": "x"}], "forceRefresh": "yes"}), "forceRefresh"),
        (json!({"messages": [{"role": "user", "content": "x"}], "onBusy": "wait"}), "onBusy"),
        (json!({"messages": [{"role": "user", "content": "x"}], "session": 5}), "session"),
        (json!({"messages": [{"role": "user", "content": "x"}], "session": ""}), "session"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "x"}], "session": "as_x"}),
            "messages",
        ),
    ];
    for (body, named) in unacceptable {
        let refused = app.post(MEMBER, "/chat", &body).await.is_error(422, VALIDATION);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(named), "{body} is answered with {message:?}, which does not name {named}");
    }
    let huge = json!({"messages": [{"role": "user", "content": "x".repeat(1 << 20)}]});
    app.post(MEMBER, "/chat", &huge).await.is_error(413, VALIDATION);
    let mut unknown = say("x");
    unknown["session"] = "as_nobody-has-this-token".into();
    app.post(MEMBER, "/chat", &unknown).await.is_error(404, "APP-404-NOT-FOUND");
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn an_announced_body_that_does_not_come() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = TestApp::start().await;
    let mut stream = tokio::net::TcpStream::connect(app.running.addr).await.unwrap();
    let head = format!(
        "POST /chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {MEMBER}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // Whether it is answered or only closed, it is over and nothing was stored.
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn headers_and_parameters_of_a_turn() {
    let app = TestApp::start().await;
    let cases = [
        ("Prefer", "wait=soon", "/chat"),
        ("Prefer", "wait=-1", "/chat"),
        ("Prefer", "wait", "/chat"),
        ("Prefer", "=", "/chat"),
        ("Idempotency-Key", "", "/chat"),
        ("Idempotency-Key", "two words", "/chat"),
        ("Idempotency-Key", &"k".repeat(256), "/chat"),
        ("X-Nothing", "x", "/chat?forceRefresh=maybe"),
    ];
    for (name, value, path) in cases {
        let request =
            app.request(Method::POST, path).header("X-API-Key", MEMBER).header(name, value).json(&say("x"));
        let answered = app.send(request).await;
        answered.is_error(400, VALIDATION);
    }
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn routes_and_methods_that_are_not() {
    let app = TestApp::start().await;
    for path in ["/", "/chats", "/jobs", "/jobs/x/y", "/admin", "/openapi.yaml"] {
        app.get(MEMBER, path).await.is_error(404, "APP-404-NOT-FOUND");
    }
    for (method, path, allowed) in [
        (Method::GET, "/chat", "POST"),
        (Method::PUT, "/sessions", "GET,HEAD,POST"),
        (Method::DELETE, "/healthz", "GET,HEAD"),
        (Method::POST, "/jobs/0198c0de-0000-7000-8000-000000000000", "GET,HEAD"),
    ] {
        let answered = app.send_json(MEMBER, method, path, &json!({})).await;
        answered.is_error(405, VALIDATION);
        let mut methods: Vec<&str> = answered.headers["allow"].to_str().unwrap().split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn ids_and_bodies_of_other_routes() {
    let app = TestApp::start().await;
    let mine = app.chat(MEMBER).await;
    let (job, session) = (mine["jobId"].as_str().unwrap(), mine["sessionId"].as_str().unwrap());
    let before = app.rows().await;
    for id in ["7", "not-a-uuid", "%00", "0198c0de-0000-7000-8000-000000000000"] {
        app.get(MEMBER, &format!("/jobs/{id}")).await.is_error(404, "APP-404-NOT-FOUND");
        app.get(MEMBER, &format!("/jobs/{id}/events")).await.is_error(404, "APP-404-NOT-FOUND");
        app.get(MEMBER, &format!("/sessions/{id}")).await.is_error(404, "APP-404-NOT-FOUND");
        app.post(MEMBER, &format!("/jobs/{id}/cancel"), &json!({})).await.is_error(404, "APP-404-NOT-FOUND");
    }
    let approvals = format!("/jobs/{job}/approvals/c1");
    app.post(MEMBER, &approvals, &json!({"decision": "maybe"})).await.is_error(422, VALIDATION);
    app.post(MEMBER, &approvals, &json!({"decision": "approve", "why": 1})).await.is_error(422, VALIDATION);
    let long = json!({"decision": "approve", "reason": "x".repeat(2001)});
    app.post(MEMBER, &approvals, &long).await.is_error(422, VALIDATION);
    app.post(MEMBER, &approvals, &json!({"decision": "approve"})).await.is_error(404, "APP-404-NOT-FOUND");
    app.post(MEMBER, &format!("/jobs/{job}/retry"), &json!({})).await.is_error(409, "APP-409-CONFLICT");

    let place = format!("/sessions/{session}");
    for body in [
        json!({"tokensTotal": 0}),
        json!({"activeNotionWorkspace": 1}),
        json!({"activeNotionWorkspace": ""}),
        json!([]),
    ] {
        app.send_json(MEMBER, Method::PATCH, &place, &body).await.is_error(422, VALIDATION);
    }
    app.post(MEMBER, "/sessions", &json!({"title": "x"})).await.is_error(422, VALIDATION);
    for path in ["/sessions?limit=0", "/sessions?limit=x", "/sessions?before=x", "/v1/usage?from=yesterday"] {
        app.get(MEMBER, path).await.is_error(400, VALIDATION);
    }
    for path in ["/v1/usage?from=2026-02-01&to=2026-01-01", "/v1/usage?from=2020-01-01&to=2026-01-01"] {
        app.get(MEMBER, path).await.is_error(422, VALIDATION);
    }
    assert_eq!(app.rows().await, before);
}
