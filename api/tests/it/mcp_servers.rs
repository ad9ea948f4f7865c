//! Remote MCP servers are their tenant's: who else asks for one is told that there is none, and the deployment's are changed
//! by operators alone.

use http::Method;
use serde_json::{Value, json};

use crate::{
    app::{ADMIN, FOREIGNER, MEMBER, TestApp},
    tenants::{OPERATOR, start},
};

const TOKEN: &str = "a-token-that-nobody-reads";

fn server(name: &str, more: &Value) -> Value {
    let mut body = json!({
        "name": name, "url": "https://docs.example/mcp", "auth": {"type": "bearer", "token": TOKEN},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Everything that can be asked about a server.
async fn ask(app: &TestApp, key: &str, name: &str) -> Vec<(String, u16, Value)> {
    let place = format!("/admin/mcp-servers/{name}");
    let tools = format!("{place}/tools");
    let change = json!({"concurrency": 2});
    let acceptance = json!({"tool": "search", "fingerprint": "0"});
    let mut told = Vec::new();
    for (method, place, body) in [
        (Method::GET, &place, &Value::Null),
        (Method::GET, &tools, &Value::Null),
        (Method::POST, &tools, &acceptance),
        (Method::PATCH, &place, &change),
        (Method::DELETE, &place, &Value::Null),
    ] {
        let answered = if body.is_null() {
            app.send(app.request(method.clone(), place).header("X-API-Key", key)).await
        } else {
            app.send_json(key, method.clone(), place, body).await
        };
        assert!(!answered.text.contains(TOKEN), "{method} {place} tells the token");
        let body = if answered.text.is_empty() { Value::Null } else { answered.json() };
        told.push((format!("{method} {place}"), answered.status.as_u16(), body));
    }
    told
}

#[tokio::test]
async fn a_tenants_server_is_unknown_to_everybody_else() {
    let app = TestApp::start().await;
    let made = app.post(ADMIN, "/admin/mcp-servers", &server("docs", &json!({}))).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.text.contains(TOKEN));
    assert_eq!(made.json()["auth"], json!({"type": "bearer", "hasToken": true}));

    let about_docs = ask(&app, FOREIGNER, "docs").await;
    let about_nothing = ask(&app, FOREIGNER, "nothing").await;
    for ((asked, status, foreign), (_, _, unknown)) in about_docs.iter().zip(&about_nothing) {
        assert_eq!((*status, &foreign["error"]), (404, &json!("APP-404-NOT-FOUND")), "{asked}: {foreign}");
        assert_eq!(foreign["message"], unknown["message"], "{asked} tells foreign from unknown");
    }
    assert_eq!(app.get(FOREIGNER, "/admin/mcp-servers").await.json(), json!({"items": []}));
    for (asked, status, _) in ask(&app, MEMBER, "docs").await {
        assert_eq!(status, 403, "{asked} by a member");
    }
    // Another tenant may have one of that name, and has nothing to do with this one.
    let theirs = app.post(FOREIGNER, "/admin/mcp-servers", &server("docs", &json!({"concurrency": 7}))).await;
    assert_eq!(theirs.status, 201, "{theirs:?}");
    let mine = app.get(ADMIN, "/admin/mcp-servers/docs").await.json();
    assert_eq!(mine["concurrency"], 16, "{mine}");
    for (asked, status, body) in ask(&app, ADMIN, "docs").await {
        // The tool that was accepted is not held back.
        let expected = if asked.starts_with("POST") { 404 } else { 200 };
        assert!(status == expected || (asked.starts_with("DELETE") && status == 204), "{asked}: {body}");
    }
    assert_eq!(app.get(FOREIGNER, "/admin/mcp-servers/docs").await.json()["concurrency"], 7);
}

#[tokio::test]
async fn the_deployments_servers_are_its_operators() {
    let app = start(|_| ()).await;
    let for_all = server("all", &json!({"scope": "deployment"}));
    app.post(FOREIGNER, "/admin/mcp-servers", &for_all).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(app.post(OPERATOR, "/admin/mcp-servers", &for_all).await.status, 201);
    // A tenant's admin may look, and decides about its tools for their tenant.
    for key in [ADMIN, FOREIGNER] {
        let told = ask(&app, key, "all").await;
        let statuses: Vec<u16> = told.iter().map(|(_, status, _)| *status).collect();
        assert_eq!(statuses, [200, 200, 404, 403, 403], "{told:?}");
    }
    assert_eq!(app.get(OPERATOR, "/admin/mcp-servers/all").await.json()["concurrency"], 16);
    let gone = app.request(Method::DELETE, "/admin/mcp-servers/all").header("X-API-Key", OPERATOR);
    assert_eq!(app.send(gone).await.status, 204);
    app.get(FOREIGNER, "/admin/mcp-servers/all").await.is_error(404, "APP-404-NOT-FOUND");
}
