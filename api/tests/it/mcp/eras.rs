//! One endpoint for every revision of the protocol.

use http::Method;
use serde_json::{Value, json};

use super::{ERAS, Era, LEGACY, MODERN, message, posted, result, send};
use crate::app::{MEMBER, TestApp};

#[tokio::test]
async fn every_era_is_offered_the_same_tools() {
    let app = TestApp::start().await;
    let mut lists = Vec::new();
    for era in ERAS {
        let mut list = result(&send(&app, MEMBER, era, "tools/list", &json!({})).await);
        if let Era::Modern = era {
            assert_eq!(list["resultType"], "complete");
            assert_eq!(list["cacheScope"], "private");
            assert!(list["ttlMs"].as_i64().unwrap() > 0);
        }
        lists.push(list["tools"].take());
    }
    assert!(lists.iter().all(|list| *list == lists[0]));

    let offered = lists[0].as_array().unwrap();
    let names: Vec<&str> = offered.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let own: Value = app.get(MEMBER, "/tools").await.json();
    let own = own["tools"].as_array().unwrap();
    // A turn is offered some of them.
    assert_eq!(offered.len(), shared::workspace::tools().len());
    for own in own {
        let tool = offered.iter().find(|tool| tool["name"] == own["name"]).unwrap();
        assert_eq!(tool["inputSchema"], own["input"]);
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
        assert!(tool["title"].as_str().unwrap().starts_with(|first: char| first.is_uppercase()), "{tool}");
        let hints = match own["effect"].as_str().unwrap() {
            "read" => (true, false, true),
            "idempotent_write" => (false, false, true),
            "write" => (false, false, false),
            "destructive" => (false, true, false),
            other => panic!("{other}"),
        };
        let annotations = json!({
            "readOnlyHint": hints.0, "destructiveHint": hints.1, "idempotentHint": hints.2, "openWorldHint": false,
        });
        assert_eq!(tool["annotations"], annotations, "{tool}");
    }
    for (name, effect) in [("list_notes", "read"), ("create_note", "write"), ("delete_note", "destructive")] {
        assert!(own.iter().any(|tool| tool["name"] == name && tool["effect"] == effect), "{name}");
    }
}

#[tokio::test]
async fn a_modern_client_discovers() {
    let app = TestApp::start().await;
    let answered = send(&app, MEMBER, Era::Modern, "server/discover", &json!({})).await;
    assert!(!answered.headers.contains_key("mcp-session-id"));
    let found = result(&answered);
    assert!(
        found["supportedVersions"].as_array().unwrap().iter().any(|version| version == MODERN),
        "{found}"
    );
    assert!(found["capabilities"]["tools"].is_object());
    assert!(found["instructions"].as_str().unwrap().contains("workspace"));
}

#[tokio::test]
async fn a_legacy_client_initializes_and_gets_no_session() {
    let app = TestApp::start().await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY] {
        let params = json!({"protocolVersion": version, "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        let answered = app
            .send(posted(&app, MEMBER).body(
                json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string(),
            ))
            .await;
        assert!(!answered.headers.contains_key("mcp-session-id"));
        let found = result(&answered);
        assert_eq!(found["protocolVersion"], version);
        assert_eq!(found["serverInfo"]["name"], "alfred");
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        assert_eq!(app.send(posted(&app, MEMBER).body(initialized)).await.status, 202);
    }
    // A session id that somebody made up means nothing.
    let list =
        message(&app, MEMBER, Era::Legacy(LEGACY), "tools/list", &json!({})).header("Mcp-Session-Id", "x");
    assert!(result(&app.send(list).await)["tools"].is_array());
    result(&send(&app, MEMBER, Era::Legacy(LEGACY), "ping", &json!({})).await);
}

#[tokio::test]
async fn there_is_no_stream_to_open_and_no_session_to_end() {
    let app = TestApp::start().await;
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let request = app.request(method, "/mcp").header("X-API-Key", MEMBER).header("Mcp-Session-Id", "x");
        let answered = app.send(request.header("Accept", "text/event-stream")).await;
        answered.is_error(405, "APP-4XX-VALIDATION");
        assert_eq!(answered.headers["allow"], "POST");
    }
}

#[tokio::test]
async fn what_does_not_fit_the_protocol_is_said_in_its_words() {
    let app = TestApp::start().await;
    let code = |answered: &crate::app::Answered| answered.json()["error"]["code"].as_i64();
    let modern = |method: &str, params: Value| message(&app, MEMBER, Era::Modern, method, &params);

    let unknown = app.send(modern("tools/bake", json!({}))).await;
    assert_eq!((unknown.status.as_u16(), code(&unknown)), (404, Some(-32601)), "{unknown:?}");

    let body = |version: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {}}}})
        .to_string()
    };
    let without_method = posted(&app, MEMBER).header("MCP-Protocol-Version", MODERN).body(body(MODERN));
    let answered = app.send(without_method).await;
    assert_eq!((answered.status.as_u16(), code(&answered)), (400, Some(-32020)), "{answered:?}");

    let two_versions = posted(&app, MEMBER)
        .header("MCP-Protocol-Version", LEGACY)
        .header("Mcp-Method", "tools/list")
        .body(body(MODERN));
    let answered = app.send(two_versions).await;
    assert_eq!((answered.status.as_u16(), code(&answered)), (400, Some(-32020)), "{answered:?}");

    let future = posted(&app, MEMBER)
        .header("MCP-Protocol-Version", "2199-01-01")
        .header("Mcp-Method", "tools/list")
        .body(body("2199-01-01"));
    let answered = app.send(future).await;
    assert_eq!((answered.status.as_u16(), code(&answered)), (400, Some(-32022)), "{answered:?}");
    assert!(answered.json()["error"]["data"]["supported"].is_array());

    for era in ERAS {
        let tool = json!({"name": "bake_cake", "arguments": {}});
        let answered = send(&app, MEMBER, era, "tools/call", &tool).await;
        assert_eq!((answered.status.as_u16(), code(&answered)), (200, Some(-32602)), "{answered:?}");
        assert_eq!(answered.json()["error"]["message"], "Unknown tool: bake_cake");
        let page = send(&app, MEMBER, era, "tools/list", &json!({"cursor": "x"})).await;
        assert_eq!(code(&page), Some(-32602));
    }
}
