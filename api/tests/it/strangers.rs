//! Every route refuses who may not, and unknown looks like forbidden.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp, say};

/// Every described operation: method, path, whether it wants a credential.
fn operations() -> Vec<(Method, String, bool)> {
    let document: Value = serde_json::from_str(&api::openapi_document()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_ascii_uppercase().parse().unwrap();
            operations.push((method, path.clone(), operation.get("security").is_some()));
        }
    }
    operations
}

#[tokio::test]
async fn nobody_comes_in_without_a_credential() {
    let app = TestApp::start().await;
    let mut open = Vec::new();
    for (method, path, is_guarded) in operations() {
        let place = path
            .replace("{id}", "0198c0de-0000-7000-8000-000000000000")
            .replace("{callId}", "c")
            .replace("{tool}", "t")
            .replace("{name}", "n")
            .replace("{queue}", "chat-turns")
            .replace("{userId}", "0198c0de-0000-7000-8000-000000000000")
            .replace("{secretId}", "0198c0de-0000-7000-8000-000000000000");
        if !is_guarded {
            open.push(path);
            continue;
        }
        // Before the body and the parameters are looked at.
        for key in [None, Some("a-key-that-nobody-has"), Some("\u{fc}")] {
            let mut request = app.request(method.clone(), &place);
            if let Some(key) = key {
                request = request.header("X-API-Key", key.as_bytes());
            }
            let answered = app.send(request).await;
            answered.is_error(401, "APP-401-AUTH");
            assert!(answered.headers.contains_key("www-authenticate"), "{method} {path}");
        }
    }
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    assert_eq!(
        open,
        [
            "/.well-known/jwks.json",
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-client/{server}",
            "/.well-known/oauth-protected-resource/mcp",
            "/api/v1/agents/token",
            "/api/v1/auth/login",
            "/api/v1/auth/logout",
            "/api/v1/auth/refresh",
            "/api/v1/auth/register",
            "/healthz",
            "/metrics",
            "/oauth/authorize",
            "/oauth/authorize",
            "/oauth/register",
            "/oauth/revoke",
            "/oauth/sign-in",
            "/oauth/token",
            "/oauth/{server}/callback",
            "/readyz"
        ]
    );
    assert_eq!(app.rows().await, [0; 7]);
}

#[tokio::test]
async fn what_is_somebody_elses_is_unknown() {
    let app = TestApp::start().await;
    let mine = app.chat(MEMBER).await;
    let (job, session) = (mine["jobId"].as_str().unwrap(), mine["sessionId"].as_str().unwrap());
    let token = mine["session"].as_str().unwrap();
    let before = app.rows().await;
    for (method, path, _) in operations() {
        // Items have a test of their own, and so have agents' routes, where no person's credential is good. Operators' routes
        // tell who is none that they are none; the walk in `tenants` goes there.
        let elsewhere = ["/v1/", "/api/v1/agents/", "/admin/tenants"];
        if !path.contains("{id}") || elsewhere.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        let is_job = path.starts_with("/jobs/") || path.starts_with("/admin/queues/");
        let path = path.replace("{queue}", "chat-turns");
        let id = if is_job { job } else { session };
        let place = path.replace("{id}", id).replace("{callId}", "c");
        let body = match path.as_str() {
            "/jobs/{id}/approvals/{callId}" => json!({"decision": "approve"}),
            _ => json!({}),
        };
        let foreign = app.send_json(FOREIGNER, method.clone(), &place, &body).await;
        let foreign = foreign.is_error(404, "APP-404-NOT-FOUND");
        let unknown_place =
            path.replace("{id}", "0198c0de-0000-7000-8000-000000000000").replace("{callId}", "c");
        let unknown = app.send_json(FOREIGNER, method.clone(), &unknown_place, &body).await;
        let unknown = unknown.is_error(404, "APP-404-NOT-FOUND");
        assert_eq!(foreign["message"], unknown["message"], "{method} {path} tells foreign from unknown");
    }
    for key in [FOREIGNER, ADMIN] {
        // A token is good for its own user only, even for an admin who may see the session's rows.
        app.get(key, &format!("/chat/stream?session={token}")).await.is_error(404, "APP-404-NOT-FOUND");
        let mut body = say("let me in");
        body["session"] = token.into();
        app.post(key, "/chat", &body).await.is_error(404, "APP-404-NOT-FOUND");
    }
    assert_eq!(app.rows().await, before);
    assert_eq!(app.get(MEMBER, &format!("/jobs/{job}")).await.json()["status"], "queued");
}

#[tokio::test]
async fn administration_is_for_admins_of_their_own_tenant() {
    let app = TestApp::start().await;
    for (method, path, _) in operations() {
        if path.starts_with("/admin/") {
            let body = if path.contains("{tool}") {
                json!({"policy": "deny"})
            } else {
                json!({"systemPrompt": "x"})
            };
            let place = path.replace("{tool}", "add_task").replace(['{', '}'], "");
            app.send_json(MEMBER, method, &place, &body).await.is_error(403, "APP-403-FORBIDDEN");
        }
    }
    let deny = json!({"policy": "deny"});
    let place = "/admin/tool-policies/add_task";
    assert_eq!(app.send_json(ADMIN, Method::PUT, place, &deny).await.json(), deny);
    let prompt = json!({"systemPrompt": "You are\u{0} a pirate"});
    let stored = app.send_json(ADMIN, Method::PUT, "/admin/settings", &prompt).await;
    assert_eq!(stored.json(), json!({"systemPrompt": "You are\u{fffd} a pirate"}));

    assert_eq!(
        app.get(ADMIN, "/admin/tool-policies").await.json(),
        json!({"policies": {"add_task": "deny"}})
    );
    assert_eq!(app.get(ADMIN, place).await.json(), deny);
    assert_eq!(app.get(FOREIGNER, "/admin/tool-policies").await.json(), json!({"policies": {}}));
    assert_eq!(app.get(FOREIGNER, "/admin/settings").await.json(), json!({"systemPrompt": null}));
    let policy_of = |tools: Value| {
        let tools = tools["tools"].as_array().unwrap().clone();
        let tool = tools.iter().find(|tool| tool["name"] == "add_task").unwrap().clone();
        assert_eq!((&tool["server"], &tool["input"]["type"]), (&json!("workspace"), &json!("object")));
        tool["policy"].clone()
    };
    assert_eq!(policy_of(app.get(MEMBER, "/tools").await.json()), "deny");
    assert_eq!(policy_of(app.get(FOREIGNER, "/tools").await.json()), "allow");

    let delete = app.request(Method::DELETE, place).header("X-API-Key", FOREIGNER);
    app.send(delete).await.is_error(404, "APP-404-NOT-FOUND");

    let delete = app.request(Method::DELETE, place).header("X-API-Key", ADMIN);
    assert_eq!(app.send(delete).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get(ADMIN, place).await.json(), json!({"policy": "allow"}));
}
