//! API keys that people make.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::app::{ADMIN, FOREIGNER, MEMBER, TestApp, say};

const KEYS: &str = "/api/v1/auth/keys";

async fn make(app: &TestApp, by: &str, body: &Value) -> Value {
    let answered = app.post(by, KEYS, body).await;
    assert_eq!(answered.status, 201, "{answered:?}");
    let made = answered.json();
    assert_eq!(answered.headers["location"], format!("{KEYS}/{}", made["id"].as_str().unwrap()));
    made
}

async fn delete(app: &TestApp, by: &str, key: &Value) -> crate::app::Answered {
    let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
    app.send(app.request(Method::DELETE, &path).header("X-API-Key", by)).await
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let app = TestApp::start().await;
    let made = make(&app, MEMBER, &json!({"name": "laptop"})).await;
    assert_eq!(made["scopes"], json!(["read", "write", "chat"]));
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("ak_"));
    assert_eq!(app.get(key, "/sessions").await.status, 200);
    assert_eq!(app.post(key, "/chat", &say("hello")).await.status, 202);
    app.get(key, KEYS).await.is_error(403, "APP-403-FORBIDDEN");

    let reader = make(&app, MEMBER, &json!({"name": "reader", "scopes": ["read"]})).await;
    let reader = reader["key"].as_str().unwrap();
    assert_eq!(app.get(reader, "/sessions").await.status, 200);
    let refused = app.post(reader, "/chat", &say("hello")).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(refused["message"], "this needs a credential with the scope chat");
    app.post(reader, "/sessions", &json!({})).await.is_error(403, "APP-403-FORBIDDEN");

    // A scope is no role: a member's key with the scope admin administers nothing.
    let admin = make(&app, MEMBER, &json!({"scopes": ["admin"]})).await;
    let admin = admin["key"].as_str().unwrap();
    app.get(admin, "/admin/settings").await.is_error(403, "APP-403-FORBIDDEN");
    app.get(admin, "/sessions").await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(app.get(admin, KEYS).await.status, 200);
    // And no key makes one that may do more than itself.
    let more = app.post(admin, KEYS, &json!({"scopes": ["read"]})).await;
    more.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(make(&app, admin, &json!({"scopes": ["admin"]})).await["scopes"], json!(["admin"]));
}

#[tokio::test]
async fn keys_are_listed_without_themselves_and_revoked() {
    let app = TestApp::start().await;
    let made = make(&app, MEMBER, &json!({"name": "laptop\u{0}"})).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(app.get(key, "/sessions").await.status, 200);
    let listed = app.get(MEMBER, KEYS).await;
    assert!(!listed.text.contains(key));
    let listed = listed.json();
    let mine = listed["keys"].as_array().unwrap().iter().find(|one| one["id"] == made["id"]).unwrap().clone();
    assert_eq!((&mine["name"], &mine["expires_at"]), (&json!("laptop\u{fffd}"), &Value::Null));
    assert_eq!(mine["user_id"], made["user_id"]);

    // Its last use shows within seconds.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let keys = app.get(MEMBER, KEYS).await.json();
        let mine = keys["keys"].as_array().unwrap().iter().find(|one| one["id"] == made["id"]).unwrap();
        if mine["last_used_at"].is_string() {
            break;
        }
        assert!(Instant::now() < deadline, "{mine}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Others see nothing of it; the tenant's admin does, and may revoke it.
    let theirs = app.get(FOREIGNER, KEYS).await.json();
    assert!(theirs["keys"].as_array().unwrap().iter().all(|one| one["id"] != made["id"]));
    delete(&app, FOREIGNER, &made).await.is_error(404, "APP-404-NOT-FOUND");
    let admins = app.get(ADMIN, KEYS).await.json();
    assert!(admins["keys"].as_array().unwrap().iter().any(|one| one["id"] == made["id"]));
    let of_admin = make(&app, ADMIN, &json!({"name": "admin's"})).await;
    delete(&app, MEMBER, &of_admin).await.is_error(404, "APP-404-NOT-FOUND");
    let members = app.get(MEMBER, KEYS).await.json();
    assert!(members["keys"].as_array().unwrap().iter().all(|one| one["id"] != of_admin["id"]));

    assert_eq!(delete(&app, ADMIN, &made).await.status, 204);
    delete(&app, ADMIN, &made).await.is_error(404, "APP-404-NOT-FOUND");
    app.get(key, "/sessions").await.is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn a_key_ends_when_it_was_told_to() {
    let app = TestApp::start().await;
    for wrong in [
        json!({"expires_at": "2020-01-01T00:00:00Z"}),
        json!({"expires_at": "soon"}),
        json!({"scopes": []}),
        json!({"scopes": ["everything"]}),
        json!({"name": "x".repeat(201)}),
        json!({"operator": true}),
    ] {
        app.post(MEMBER, KEYS, &wrong).await.is_error(422, "APP-4XX-VALIDATION");
    }
    let soon = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let made = make(&app, MEMBER, &json!({"expires_at": soon})).await;
    let key = made["key"].as_str().unwrap();
    app.execute("update api_keys set expires_at = now() where expires_at is not null").await;
    app.get(key, "/sessions").await.is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn a_key_is_not_believed_past_its_end() {
    let app = TestApp::start().await;
    let end = chrono::Utc::now() + chrono::TimeDelta::seconds(6);
    let made = make(&app, MEMBER, &json!({"expires_at": end})).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(app.get(key, "/sessions").await.status, 200);
    loop {
        let before = chrono::Utc::now();
        let status = app.get(key, "/sessions").await.status;
        if status == 401 {
            break;
        }
        assert!(before < end, "answered {status} after its end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(chrono::Utc::now() >= end);
}

#[tokio::test]
async fn a_user_without_membership_has_keys_in_the_default_tenant() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("ann@example.com").await;
    let token = signed_in["access_token"].as_str().unwrap();
    let made =
        app.send(app.request(Method::POST, KEYS).bearer_auth(token).json(&json!({"name": "ann's"}))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(made["user_id"], signed_in["user"]["id"]);
    let key = made["key"].as_str().unwrap();
    assert_eq!(app.get(key, "/api/v1/auth/me").await.json()["email"], "ann@example.com");
    let mine = app.post(key, "/chat", &say("hello")).await.json();
    // She sees her own rows only, like every member.
    let job = format!("/jobs/{}", mine["jobId"].as_str().unwrap());
    assert_eq!(app.get(key, &job).await.status, 200);
    app.get(MEMBER, &job).await.is_error(404, "APP-404-NOT-FOUND");
}
