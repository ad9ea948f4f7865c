//! Being asked into a tenant: what it changes, what accepts it, and for whom.

use http::{Method, StatusCode, header};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    get_with, now_ms, provision, signed,
    signed_in::{PASSWORD, sign_in},
    start,
};
use crate::app::TestApp;

/// As an outside issuer does that vouches for the address.
async fn verify(app: &TestApp, email: &str) {
    let update = "update users set email_verified = true where email = $1";
    let done = sqlx::query(update).bind(email).execute(&app.db.admin()).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// A browser's cookies, and the CSRF token among them.
async fn browser(app: &TestApp, email: &str) -> (String, String) {
    let body = json!({"email": email, "password": PASSWORD, "cookie": true});
    let answered = app.send(app.request(Method::POST, "/api/v1/auth/login").json(&body)).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let lines = answered.headers.get_all(header::SET_COOKIE).iter();
    let pairs: Vec<&str> = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap()).collect();
    let csrf = pairs.iter().find_map(|pair| pair.strip_prefix("alfred_csrf=")).unwrap();
    (pairs.join("; "), csrf.to_owned())
}

async fn tenant_of(app: &TestApp, token: &str) -> Value {
    app.send(app.request(Method::GET, "/v1/auth/tenant").bearer_auth(token)).await.json()
}

#[tokio::test]
async fn being_asked_in_keeps_nobody_out_of_the_shared_tenant() {
    const DEPLOYMENT: &str = "the-deployments-header-secret";
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let ann = sign_in(&app, "ann@example.com").await;
    verify(&app, "ann@example.com").await;
    let made =
        app.request(Method::POST, "/api/v1/auth/keys").bearer_auth(&ann).json(&json!({"name": "mine"}));
    let made = app.send(made).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let key = made.json()["key"].as_str().unwrap().to_owned();
    let invited = json!({"email": "ann@example.com", "role": "member"});
    let invited = app.post(&acme.admin_key, "/admin/members", &invited).await;
    assert_eq!(invited.status, StatusCode::CREATED, "{invited:?}");

    let default = shared::identity::development::TENANT;
    let name = default.to_string();
    for headers in [&[][..], &[("X-Tenant-ID", name.as_str())]] {
        let answered = get_with(&app, &key, "/sessions", headers).await;
        assert_eq!(answered.status, StatusCode::OK, "{headers:?}: {answered:?}");
        let mut request = app.request(Method::GET, "/sessions").bearer_auth(&ann);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = app.send(request).await;
        assert_eq!(answered.status, StatusCode::OK, "{headers:?}: {answered:?}");
    }
    let signing = app.beside(|config| config.tenants.header_secret = Some(DEPLOYMENT.into())).await;
    let request = signing.request(Method::GET, "/sessions").header("X-API-Key", &key);
    let answered = signing.send(signed(request, &SecretString::from(DEPLOYMENT), default, now_ms())).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(tenant_of(&app, &ann).await["invitations"][0]["name"], "acme");
}

#[tokio::test]
async fn a_link_accepts_nothing() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let ann = sign_in(&app, "ann@example.com").await;
    verify(&app, "ann@example.com").await;
    let (cookies, csrf) = browser(&app, "ann@example.com").await;
    let invited = json!({"email": "ann@example.com", "role": "member"});
    app.post(&acme.admin_key, "/admin/members", &invited).await;

    // What a page of somebody else's can have a browser do.
    let id = acme.id.to_string();
    for path in [format!("/connect?tenant={id}"), format!("/connect/notion?tenant={id}")] {
        let link = app.request(Method::GET, &path).header(header::COOKIE, &cookies);
        let followed = app.send(link.header("Sec-Fetch-Site", "cross-site")).await;
        followed.is_error(404, "APP-404-NOT-FOUND");
    }
    let named = app.request(Method::GET, "/sessions").header(header::COOKIE, &cookies);
    app.send(named.header("X-Tenant-ID", &id)).await.is_error(404, "APP-404-NOT-FOUND");
    assert_ne!(tenant_of(&app, &ann).await["tenant_id"], id);

    // What a page of ours asks for.
    let meant = app.request(Method::POST, "/chat").header(header::COOKIE, &cookies);
    let meant = meant.header("X-CSRF-Token", csrf).header("X-Tenant-ID", &id);
    let posted = app.send(meant.json(&crate::app::say("hello"))).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED, "{posted:?}");
    assert_eq!(tenant_of(&app, &ann).await["tenant_id"], id);
}
