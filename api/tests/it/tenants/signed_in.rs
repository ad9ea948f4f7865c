//! People who signed in, whose credential names no tenant: they choose among their memberships.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{invitations, provision, start};
use crate::{
    app::{Answered, TestApp, say},
    auth::PASSWORD,
};

/// A bearer token of a new account with this address.
pub(super) async fn sign_in(app: &TestApp, email: &str) -> String {
    app.sign_up(email).await["access_token"].as_str().unwrap().to_owned()
}

async fn get(app: &TestApp, token: &str, path: &str, tenant: Option<&str>) -> Answered {
    let mut request = app.request(Method::GET, path).bearer_auth(token);
    if let Some(tenant) = tenant {
        request = request.header("X-Tenant-ID", tenant);
    }
    app.send(request).await
}

/// A tenant that a person who is there was asked into as its admin.
async fn provision_for(app: &TestApp, name: &str, token: &str) -> String {
    let made = provision(app, name).await;
    let joined = invitations::accept(app, token, &made.invitation).await;
    assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
    made.id.to_string()
}

#[tokio::test]
async fn the_three_answers_and_what_they_mean() {
    let app = start(|_| ()).await;
    let token = sign_in(&app, "ann@example.com").await;
    let default = shared::identity::development::TENANT.to_string();
    let none = get(&app, &token, "/v1/auth/tenant", None).await.json();
    assert_eq!(
        none,
        json!({"tenant_id": default, "organization_name": "default", "requires_selection": false})
    );
    assert_eq!(get(&app, &token, "/sessions", None).await.status, StatusCode::OK);

    let acme = provision_for(&app, "acme", &token).await;
    let one = get(&app, &token, "/v1/auth/tenant", None).await.json();
    assert_eq!(one, json!({"tenant_id": acme, "organization_name": "acme", "requires_selection": false}));
    // Who has a tenant is not in the shared one.
    get(&app, &token, "/sessions", Some(&default)).await.is_error(404, "APP-404-NOT-FOUND");

    let globex = provision_for(&app, "globex", &token).await;
    let several = get(&app, &token, "/v1/auth/tenant", None).await.json();
    let mut names: Vec<&Value> =
        several["organizations"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    names.sort_by_key(|name| name.to_string());
    assert_eq!(
        (&several["requires_selection"], names),
        (&json!(true), vec![&json!("acme"), &json!("globex")])
    );
    get(&app, &token, "/sessions", None).await.is_error(400, "APP-4XX-VALIDATION");
    let chosen = get(&app, &token, "/v1/auth/tenant", Some(&globex)).await.json();
    assert_eq!((&chosen["tenant_id"], &chosen["requires_selection"]), (&json!(globex), &json!(false)));
    let elsewhere = provision(&app, "initech").await.id.to_string();
    for path in ["/sessions", "/v1/auth/tenant"] {
        get(&app, &token, path, Some(&elsewhere)).await.is_error(404, "APP-404-NOT-FOUND");
    }
}

#[tokio::test]
async fn one_person_in_two_tenants_is_two_strangers() {
    let app = start(|_| ()).await;
    let token = sign_in(&app, "ann@example.com").await;
    let acme = provision_for(&app, "acme", &token).await;
    let globex = provision_for(&app, "globex", &token).await;
    let post = app.request(Method::POST, "/chat").bearer_auth(&token).header("X-Tenant-ID", &acme);
    let posted = app.send(post.json(&say("the zanzibar affair"))).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED, "{posted:?}");
    let job = format!("/jobs/{}", posted.json()["jobId"].as_str().unwrap());
    let session = posted.json()["session"].as_str().unwrap().to_owned();
    assert_eq!(get(&app, &token, &job, Some(&acme)).await.status, StatusCode::OK);
    for path in [job.clone(), format!("{job}/events"), format!("/chat/stream?session={session}")] {
        get(&app, &token, &path, Some(&globex)).await.is_error(404, "APP-404-NOT-FOUND");
    }
    for path in ["/sessions", "/admin/members", "/admin/audit", "/v1/usage"] {
        let there = get(&app, &token, path, Some(&globex)).await;
        assert!(!there.text.contains("zanzibar") && !there.text.contains(&acme), "{there:?}");
    }
    let sessions = get(&app, &token, "/sessions", Some(&globex)).await.json();
    assert_eq!(sessions["sessions"], json!([]));
}

#[tokio::test]
async fn an_invitation_counts_once_it_is_chosen() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let bea = sign_in(&app, "bea@example.com").await;
    invitations::verify(&app, "bea@example.com").await;
    let invited = json!({"email": "bea@example.com", "role": "member"});
    let invited = app.post(&acme.admin_key, "/admin/members", &invited).await.json();
    let acme_id = acme.id.to_string();
    let before = get(&app, &bea, "/v1/auth/tenant", None).await.json();
    assert_ne!(before["tenant_id"], acme_id);
    assert_eq!(before["invitations"], json!([{"id": acme_id, "name": "acme"}]));
    assert_eq!(get(&app, &bea, "/sessions", Some(&acme_id)).await.status, StatusCode::OK);
    let after = get(&app, &bea, "/v1/auth/tenant", None).await.json();
    assert_eq!(
        after,
        json!({"tenant_id": acme_id, "organization_name": "acme", "requires_selection": false})
    );
    // A member, no admin; and out again at once when removed.
    get(&app, &bea, "/admin/members", None).await.is_error(403, "APP-403-FORBIDDEN");
    let place = format!("/admin/members/{}", invited["userId"].as_str().unwrap());
    let removed = app.send_json(&acme.admin_key, Method::DELETE, &place, &json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    get(&app, &bea, "/sessions", Some(&acme_id)).await.is_error(404, "APP-404-NOT-FOUND");
    assert_ne!(get(&app, &bea, "/v1/auth/tenant", None).await.json()["tenant_id"], acme_id);
}

#[tokio::test]
async fn tokens_need_a_signature_and_cookies_do_not() {
    let app =
        start(|config| config.tenants.header_secret = Some("the-deployments-header-secret".into())).await;
    let token = sign_in(&app, "ann@example.com").await;
    get(&app, &token, "/sessions", None).await.is_error(401, "APP-401-AUTH");
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": true});
    let signed_in = app.send(app.request(Method::POST, "/api/v1/auth/login").json(&body)).await;
    let cookies: Vec<&str> = signed_in
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap())
        .collect();
    let with_cookies = app.request(Method::GET, "/sessions").header("Cookie", cookies.join("; "));
    let answered = app.send(with_cookies).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    // A cookie session may choose, but not pretend.
    let nowhere = shared::ids::TenantId::generate().to_string();
    let named = app.request(Method::GET, "/sessions").header("Cookie", cookies.join("; "));
    app.send(named.header("X-Tenant-ID", nowhere)).await.is_error(404, "APP-404-NOT-FOUND");
}
