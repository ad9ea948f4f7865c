//! Every route of the description, as somebody of another tenant: nothing of the other's comes back or changes.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{OPERATOR, provision, start};

/// What a path's placeholders stand for, when they are ours to name in our own tenant.
const OWN: &[(&str, &str)] = &[("{tool}", "add_task"), ("{queue}", "chat-turns")];

#[tokio::test]
async fn no_route_gives_anything_of_another_tenant() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    let chat = app.chat(&acme.admin_key).await;
    let words =
        json!({"messages": [{"role": "user", "content": "the zanzibar affair"}], "session": chat["session"]});
    app.post(&acme.admin_key, "/chat", &words).await;
    app.send_json(&acme.admin_key, Method::PUT, "/admin/settings", &json!({"systemPrompt": "zanzibar"}))
        .await;
    let known = json!({"preferences": {"sectors_of_interest": ["zanzibar"]}});
    app.send_json(&acme.admin_key, Method::PATCH, "/api/v1/me/context", &known).await;
    let item: (uuid::Uuid, i64) = sqlx::query_as("select uid, id from items where tenant_id = $1 limit 1")
        .bind(acme.id)
        .fetch_one(&app.db.admin())
        .await
        .unwrap();
    let text = |name: &str| chat[name].as_str().unwrap().to_owned();
    let ids = [
        text("jobId"),
        text("sessionId"),
        item.0.to_string(),
        item.1.to_string(),
        acme.id.to_string(),
        acme.admin_user.clone(),
    ];
    let marks =
        ["zanzibar", "acme", &*acme.id.to_string(), &*acme.admin_user, &*text("session")].map(str::to_owned);
    let before = app.rows().await;
    let document: Value = serde_json::from_str(&api::openapi_document()).unwrap();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("security").is_none() || path.contains("/stream") {
                continue;
            }
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            let path = OWN.iter().fold(path.clone(), |path, (place, own)| path.replace(place, own));
            let is_named = path.contains('{');
            for id in &ids {
                // The feed is a page with a cursor and an endless stream without.
                let place = match path.as_str() {
                    "/v1/changes" => "/v1/changes?since=now".to_owned(),
                    path => fill(path, id),
                };
                // Where there is no name, a body that no route takes: an item's unknown fields are kept, so that an
                // object would make one of our own.
                let body = if is_named { json!({"nothing": true}) } else { json!(["nothing"]) };
                let request = app.request(method.clone(), &place).header("X-API-Key", &globex.admin_key);
                let request = if method == Method::GET { request } else { request.json(&body) };
                let answered = app.send(request).await;
                let what = format!("{method} {place}");
                for mark in &marks {
                    // A path that is repeated in an error tells nothing that the caller did not say.
                    let told = answered.text.replace(id, "");
                    assert!(!told.contains(mark), "{what} tells {mark}: {answered:?}");
                }
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
                if is_named && answered.status.is_success() {
                    // A short id may be an item of our own; there is none.
                    panic!("{what} answered {answered:?}");
                }
                assert!(!answered.status.is_server_error(), "{what} answered {answered:?}");
                if answered.status == StatusCode::FORBIDDEN {
                    assert!(
                        path.starts_with("/admin/tenants")
                            || path.starts_with("/api/")
                            || path.starts_with("/admin/flags")
                            || path.ends_with("/pause")
                            || path.ends_with("/resume"),
                        "{what}: {answered:?}"
                    );
                }
                walked += usize::from(is_named && refused.contains(&answered.status));
            }
        }
    }
    assert!(walked > 60, "only {walked} refusals");
    assert_eq!(app.rows().await, before);
    // Nothing of acme changed, and it is still there for its own.
    let settings = app.get(&acme.admin_key, "/admin/settings").await.json();
    assert_eq!(settings, json!({"systemPrompt": "zanzibar"}));
    let job = format!("/jobs/{}", text("jobId"));
    assert_eq!(app.get(&acme.admin_key, &job).await.json()["status"], "queued");
    assert_eq!(app.get(OPERATOR, &format!("/admin/tenants/{}", acme.id)).await.json()["state"], "active");
}

/// The path with this id in each of its places.
fn fill(path: &str, id: &str) -> String {
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let (_, after) = after.split_once('}').unwrap();
        filled.push_str(before);
        filled.push_str(id);
        rest = after;
    }
    filled + rest
}
