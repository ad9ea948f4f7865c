//! A tenant's people: asked in, given roles, removed, by their own tenant's admins only.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{OPERATOR, invitations, provision, signed_in, start};
use crate::app::{FOREIGNER, MEMBER, TestApp};

/// Where one stands, and leaves.
const LEAVE: &str = "/v1/auth/tenant";

async fn members(app: &TestApp, key: &str) -> Vec<Value> {
    app.get(key, "/admin/members").await.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_admin_manages_their_own_tenants_people() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let invited = json!({"email": "Bea@example.com", "role": "member"});
    let answered = app.post(&acme.admin_key, "/admin/members", &invited).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    let bea = answered.json();
    assert_eq!(
        (&bea["email"], &bea["role"], &bea["acceptedAt"]),
        (&json!("Bea@example.com"), &json!("member"), &Value::Null)
    );
    let code = bea["invitation"]["code"].as_str().unwrap();
    assert!(code.starts_with("inv_") && bea["invitation"]["expiresAt"].is_string(), "{bea}");
    assert!(!app.get(&acme.admin_key, "/admin/members").await.text.contains(code));
    let again = json!({"email": "bea@EXAMPLE.com", "role": "admin"});
    app.post(&acme.admin_key, "/admin/members", &again).await.is_error(409, "APP-409-CONFLICT");
    assert_eq!(members(&app, &acme.admin_key).await.len(), 2);

    let place = format!("/admin/members/{}", bea["userId"].as_str().unwrap());
    let admin = json!({"role": "admin"});
    assert_eq!(app.send_json(&acme.admin_key, Method::PATCH, &place, &admin).await.json()["role"], "admin");
    // Another tenant's admin and an unknown member look alike.
    for key in [FOREIGNER, OPERATOR] {
        for (method, body) in [(Method::PATCH, &admin), (Method::DELETE, &json!({}))] {
            app.send_json(key, method, &place, body).await.is_error(404, "APP-404-NOT-FOUND");
        }
    }
    app.send_json(MEMBER, Method::DELETE, &place, &json!({})).await.is_error(403, "APP-403-FORBIDDEN");
    app.send_json(&acme.admin_key, Method::DELETE, "/admin/members/x", &json!({}))
        .await
        .is_error(404, "APP-404-NOT-FOUND");

    // Whoever was only asked in does not count as the admin that a tenant keeps.
    let own = format!("/admin/members/{}", acme.admin_user);
    let demote = json!({"role": "member"});
    app.send_json(&acme.admin_key, Method::PATCH, &own, &demote).await.is_error(409, "APP-409-CONFLICT");
    app.send_json(&acme.admin_key, Method::DELETE, &own, &json!({})).await.is_error(409, "APP-409-CONFLICT");
    let removed = app.send_json(&acme.admin_key, Method::DELETE, &place, &json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(members(&app, &acme.admin_key).await.len(), 1);
    let log = app.get(&acme.admin_key, "/admin/audit?limit=3").await.json();
    let actions: Vec<&str> =
        log["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["member.removed", "member.role_set", "member.invited"]);
}

#[tokio::test]
async fn being_asked_into_a_tenant_moves_nobody() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    invitations::verify(&app, "member@example.com").await;
    let before = app.get(MEMBER, "/v1/auth/tenant").await.json();
    let chat = app.chat(MEMBER).await;
    let invited = json!({"email": "member@example.com", "role": "admin"});
    app.post(&acme.admin_key, "/admin/members", &invited).await;
    let after = app.get(MEMBER, "/v1/auth/tenant").await.json();
    assert_eq!((&after["tenant_id"], &after["requires_selection"]), (&before["tenant_id"], &json!(false)));
    assert_eq!(after["invitations"], json!([{"id": acme.id.to_string(), "name": "acme"}]));
    let job = format!("/jobs/{}", chat["jobId"].as_str().unwrap());
    assert_eq!(app.get(MEMBER, &job).await.status, StatusCode::OK);
    // Their key is of the tenant that they made it in.
    let named = super::get_with(&app, MEMBER, "/sessions", &[("X-Tenant-ID", &acme.id.to_string())]).await;
    named.is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn whoever_is_removed_is_out_with_their_keys() {
    let app = start(|_| ()).await;
    let ann = signed_in::sign_in(&app, "ann@example.com").await;
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        let made = provision(&app, name).await;
        assert_eq!(invitations::accept(&app, &ann, &made.invitation).await.status, StatusCode::OK);
        let id = made.id.to_string();
        let request =
            app.request(Method::POST, "/api/v1/auth/keys").bearer_auth(&ann).header("X-Tenant-ID", id);
        let key = app.send(request.json(&json!({"name": "mine", "scopes": ["read", "admin"]}))).await;
        assert_eq!(key.status, StatusCode::CREATED, "{key:?}");
        tenants.push((made, key.json()["key"].as_str().unwrap().to_owned(), key.json()["user_id"].clone()));
    }
    let [(acme, acme_key, user), (_, globex_key, _)] = tenants.as_slice() else { panic!() };
    for key in [acme_key, globex_key] {
        assert_eq!(app.get(key, "/sessions").await.status, StatusCode::OK);
    }
    let place = format!("/admin/members/{}", user.as_str().unwrap());
    let removed = app.send_json(&acme.admin_key, Method::DELETE, &place, &json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT, "{removed:?}");
    // Also while this process still believes the key.
    app.get(acme_key, "/sessions").await.is_error(401, "APP-401-AUTH");
    assert_eq!(app.get(globex_key, "/sessions").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_member_leaves_and_a_last_admin_stays() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let ann = signed_in::sign_in(&app, "ann@example.com").await;
    let as_ann = |method, path| app.request(method, path).bearer_auth(&ann);
    // In the tenant that everybody shares there is nothing to leave.
    app.send(as_ann(Method::DELETE, LEAVE)).await.is_error(404, "APP-404-NOT-FOUND");
    let invited = json!({"email": "ann@example.com", "role": "member"});
    let invited = app.post(&acme.admin_key, "/admin/members", &invited).await.json();
    let code = invited["invitation"]["code"].as_str().unwrap();
    assert_eq!(invitations::accept(&app, &ann, code).await.status, StatusCode::OK);
    let key = app.send(as_ann(Method::POST, "/api/v1/auth/keys").json(&json!({"name": "mine"}))).await;
    let key = key.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(app.get(&key, "/sessions").await.status, StatusCode::OK);

    let leave = async |key: &str| app.send_json(key, Method::DELETE, LEAVE, &json!({})).await;
    leave(&acme.admin_key).await.is_error(409, "APP-409-CONFLICT");
    leave(&key).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(app.send(as_ann(Method::DELETE, LEAVE)).await.status, StatusCode::NO_CONTENT);
    app.get(&key, "/sessions").await.is_error(401, "APP-401-AUTH");
    let stands = app.send(as_ann(Method::GET, LEAVE)).await.json();
    assert_eq!(stands["organization_name"], "default");
    let left = members(&app, &acme.admin_key).await;
    assert_eq!(left.len(), 1, "{left:?}");
    let log = app.get(&acme.admin_key, "/admin/audit?limit=1").await.json();
    assert_eq!(log["items"][0]["action"], "member.left");

    // The first admin goes once there is another.
    let invited = json!({"email": "ann@example.com", "role": "admin"});
    let invited = app.post(&acme.admin_key, "/admin/members", &invited).await.json();
    leave(&acme.admin_key).await.is_error(409, "APP-409-CONFLICT");
    let code = invited["invitation"]["code"].as_str().unwrap();
    assert_eq!(invitations::accept(&app, &ann, code).await.status, StatusCode::OK);
    assert_eq!(leave(&acme.admin_key).await.status, StatusCode::NO_CONTENT);
    app.send(as_ann(Method::DELETE, LEAVE)).await.is_error(409, "APP-409-CONFLICT");
}
