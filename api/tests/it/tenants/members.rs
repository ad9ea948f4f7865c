//! A tenant's people: asked in, given roles, removed, by their own tenant's admins only.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{OPERATOR, provision, start};
use crate::app::{FOREIGNER, MEMBER, TestApp};

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
    let acme = provision(&app, "acme").await;
    // An operator may name an admin who needs no asking.
    let globex = app
        .post(OPERATOR, "/admin/tenants", &json!({"name": "globex", "adminEmail": "admin@acme.example"}))
        .await;
    let globex = super::made(&globex.json());
    assert_eq!(globex.admin_user, acme.admin_user);
    for key in [&acme.admin_key, &globex.admin_key] {
        assert_eq!(app.get(key, "/sessions").await.status, StatusCode::OK);
    }
    sqlx::query("update memberships set role = 'admin', accepted_at = now()")
        .execute(&app.db.admin())
        .await
        .unwrap();
    let second = app
        .post(&acme.admin_key, "/admin/members", &json!({"email": "second@x.example", "role": "admin"}))
        .await;
    assert_eq!(second.status, StatusCode::CREATED);
    sqlx::query("update memberships set accepted_at = now()").execute(&app.db.admin()).await.unwrap();
    let own = format!("/admin/members/{}", acme.admin_user);
    let left = app.send_json(&acme.admin_key, Method::DELETE, &own, &json!({})).await;
    assert_eq!(left.status, StatusCode::NO_CONTENT, "{left:?}");
    // Also while this process still believes the key.
    app.get(&acme.admin_key, "/sessions").await.is_error(401, "APP-401-AUTH");
    assert_eq!(app.get(&globex.admin_key, "/sessions").await.status, StatusCode::OK);
}
