//! Who gets in, by which name, with how much.

use http::Method;
use serde_json::json;

use super::{Era, LEGACY, message, posted, result};
use crate::app::{MEMBER, TestApp};

#[tokio::test]
async fn a_stranger_is_told_where_to_sign_in() {
    let app = TestApp::start().await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    for key in [None, Some("a-key-that-nobody-has")] {
        let mut request = app.request(Method::POST, "/mcp").header("Content-Type", "application/json");
        if let Some(key) = key {
            request = request.header("X-API-Key", key);
        }
        let answered = app.send(request.body(list.clone())).await;
        answered.is_error(401, "APP-401-AUTH");
        let challenge = answered.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        assert_eq!(challenge.contains("invalid_token"), key.is_some(), "{challenge}");
        let (_, place) = challenge.split_once("resource_metadata=\"").unwrap();
        let place = place.split('"').next().unwrap();
        let described = app.send(app.client.get(place)).await.json();
        assert_eq!(described["resource"], app.url("/mcp"));
        assert_eq!(described["bearer_methods_supported"], json!(["header"]));
    }
    // A credential in the address would be in every log on the way.
    let request = app.request(Method::POST, &format!("/mcp?api_key={MEMBER}&access_token={MEMBER}"));
    app.send(request.header("Content-Type", "application/json").body(list))
        .await
        .is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_stays_out() {
    let app = TestApp::start_with(|config| {
        config.public_url = "https://alfred.example/".parse().unwrap();
        config.cors_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let ask = async |header: &'static str, value: &'static str| {
        let request = message(&app, MEMBER, Era::Modern, "tools/list", &json!({})).header(header, value);
        app.send(request).await
    };
    for (header, hostile) in [
        ("Host", "evil.example"),
        ("Host", "evil.example:8080"),
        ("Host", "alfred.example.evil.example"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://alfred.example.evil.example"),
    ] {
        ask(header, hostile).await.is_error(403, "APP-403-FORBIDDEN");
    }
    for (header, ours) in [
        ("Host", "alfred.example"),
        ("Host", "localhost:1234"),
        ("Origin", "https://alfred.example"),
        ("Origin", "https://app.example"),
        ("Origin", "http://localhost:6274"),
    ] {
        result(&ask(header, ours).await);
    }
    // Before the credential is looked at, and for the description as well.
    let stranger = app.request(Method::POST, "/mcp").header("Host", "evil.example");
    app.send(stranger).await.is_error(403, "APP-403-FORBIDDEN");
    let place = "/.well-known/oauth-protected-resource/mcp";
    let hostile = app.request(Method::GET, place).header("Host", "evil.example");
    app.send(hostile).await.is_error(403, "APP-403-FORBIDDEN");
    let public = app.request(Method::GET, place).header("Host", "alfred.example");
    assert_eq!(app.send(public).await.json()["resource"], "https://alfred.example/mcp");
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_messages() {
    let app = TestApp::start().await;
    let large = json!({"name": "create_note", "arguments": {"title": "x", "content": "x".repeat(1 << 20)}});
    for era in [Era::Modern, Era::Legacy(LEGACY)] {
        let answered = app.send(message(&app, MEMBER, era, "tools/call", &large)).await;
        answered.is_error(413, "APP-4XX-VALIDATION");
    }
    for (body, code) in [
        ("{\"jsonrpc\": \"2.0\", ", -32700),
        ("", -32700),
        ("\u{0}", -32700),
        ("[]", -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600),
        ("3", -32600),
        ("{}", -32600),
        ("{\"hello\":\"there\"}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}", -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", -32600),
    ] {
        let answered = app.send(posted(&app, MEMBER).body(body)).await;
        assert_eq!(answered.status, 400, "{body}: {answered:?}");
        assert_eq!(answered.json()["error"]["code"], code, "{body}: {answered:?}");
        assert_eq!(answered.json()["jsonrpc"], "2.0");
    }
    let typeless = app.request(Method::POST, "/mcp").header("X-API-Key", MEMBER).body("{}");
    app.send(typeless).await.is_error(415, "APP-4XX-VALIDATION");
    let deaf = app
        .request(Method::POST, "/mcp")
        .header("X-API-Key", MEMBER)
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .body("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}");
    let answered = app.send(deaf).await;
    assert_eq!((answered.status.as_u16(), &answered.json()["error"]["code"]), (406, &json!(-32600)));
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn calls_carry_the_requests_id_and_are_counted() {
    let app = TestApp::start().await;
    let request =
        message(&app, MEMBER, Era::Modern, "tools/call", &json!({"name": "list_notes", "arguments": {}}));
    let answered = app.send(request.header("X-Request-ID", "mine-7")).await;
    assert_eq!(answered.headers["x-request-id"], "mine-7");
    result(&answered);
    let metrics = app.get(MEMBER, "/metrics").await.text;
    for name in ["mcp_requests_total{", "mcp_tool_calls_total{", "mcp_tool_call_duration_seconds"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}
