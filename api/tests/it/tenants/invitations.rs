//! Being asked into a tenant: what it changes, what accepts it, and for whom.

use http::{Method, StatusCode, header};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{OPERATOR, get_with, made, now_ms, provision, signed, signed_in::sign_in, start};
use crate::{
    app::{Answered, TestApp},
    auth::PASSWORD,
};

const ACCEPT: &str = "/api/v1/auth/invitations/accept";

/// As an outside issuer does that vouches for the address.
pub(super) async fn verify(app: &TestApp, email: &str) {
    let update = "update users set email_verified = true where email = $1";
    let done = sqlx::query(update).bind(email).execute(&app.db.admin()).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Shows a code, signed in.
pub(super) async fn accept(app: &TestApp, token: &str, code: &str) -> Answered {
    let request = app.request(Method::POST, ACCEPT).bearer_auth(token);
    app.send(request.json(&json!({"code": code}))).await
}

/// Registers with a code.
async fn register(app: &TestApp, email: &str, code: &str) -> Answered {
    let body = json!({"email": email, "password": PASSWORD, "invitation": code});
    app.send(app.request(Method::POST, "/api/v1/auth/register").json(&body)).await
}

async fn log_in(app: &TestApp, email: &str) -> String {
    let answered = app.log_in(email, PASSWORD).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    answered.json()["access_token"].as_str().unwrap().to_owned()
}

/// Asks somebody in; the whole answer.
async fn invite(app: &TestApp, key: &str, email: &str, role: &str) -> Value {
    let answered = app.post(key, "/admin/members", &json!({"email": email, "role": role})).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    answered.json()
}

fn code_of(invited: &Value) -> &str {
    invited["invitation"]["code"].as_str().unwrap()
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

#[tokio::test]
async fn an_address_that_nobody_checked_grants_nothing() {
    let app = start(|_| ()).await;
    // Anybody can register with it.
    let thief = sign_in(&app, "cto@customer.example").await;
    let body = json!({"name": "customer", "adminEmail": "CTO@customer.example"});
    let customer = made(&app.post(OPERATOR, "/admin/tenants", &body).await.json());
    let acme = provision(&app, "acme").await;
    invite(&app, &acme.admin_key, "cto@customer.example", "admin").await;
    for tenant in [&customer, &acme] {
        let id = tenant.id.to_string();
        let named = app.request(Method::GET, "/admin/members").bearer_auth(&thief).header("X-Tenant-ID", &id);
        app.send(named).await.is_error(404, "APP-404-NOT-FOUND");
        accept(&app, &thief, &format!("inv_{id}")).await.is_error(422, "APP-4XX-VALIDATION");
    }
    let stands = tenant_of(&app, &thief).await;
    assert_eq!((&stands["organization_name"], &stands["invitations"]), (&json!("default"), &Value::Null));
    // Whoever was handed the key and the code has the tenant, with an address of their own.
    assert_eq!(app.get(&customer.admin_key, "/admin/members").await.status, StatusCode::OK);
    let taken = register(&app, "cto@customer.example", &customer.invitation).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    assert_eq!(tenant_of(&app, &thief).await["organization_name"], "default");
    let free = register(&app, "real-cto@customer.example", &customer.invitation).await;
    assert_eq!((free.status, &free.text), (taken.status, &taken.text));
    let cto = log_in(&app, "real-cto@customer.example").await;
    let members = app.send(app.request(Method::GET, "/admin/members").bearer_auth(&cto)).await.json();
    let [only] = members["items"].as_array().unwrap().as_slice() else { panic!("{members}") };
    // The key is theirs, too.
    assert_eq!((&only["userId"], &only["role"]), (&json!(customer.admin_user), &json!("admin")));
    assert_eq!(only["email"], "real-cto@customer.example");
    assert_eq!(app.get(&customer.admin_key, "/admin/members").await.status, StatusCode::OK);
    // Its address is not checked by that: any tenant's admin could have made the invitation.
    let me = app.send(app.request(Method::GET, "/api/v1/auth/me").bearer_auth(&cto)).await.json();
    assert_eq!(me["email_verified"], false);
}

#[tokio::test]
async fn the_code_makes_an_account_where_nobody_else_makes_one() {
    let app = start(|config| config.sign_ins.registration = false).await;
    let acme = provision(&app, "acme").await;
    let dan = invite(&app, &acme.admin_key, "dan@example.com", "member").await;
    let answered = register(&app, "dan@example.com", "inv_of_nobody").await;
    let unknown = answered.is_error(422, "APP-4XX-VALIDATION");
    assert_eq!(register(&app, "dan@example.com", code_of(&dan)).await.status, StatusCode::ACCEPTED);
    let again = register(&app, "eve@example.com", code_of(&dan)).await;
    assert_eq!(again.is_error(422, "APP-4XX-VALIDATION")["message"], unknown["message"]);
    let token = log_in(&app, "dan@example.com").await;
    assert_eq!(tenant_of(&app, &token).await["organization_name"], "acme");
    let members = app.get(&acme.admin_key, "/admin/members").await.json();
    let member = members["items"].as_array().unwrap().iter().find(|member| member["userId"] == dan["userId"]);
    let member = member.unwrap();
    assert!(member["acceptedAt"].is_string() && member["email"] == "dan@example.com", "{member}");
    let log = app.get(&acme.admin_key, "/admin/audit?limit=1").await.json();
    assert_eq!(log["items"][0]["action"], "invitation.accepted");
}

#[tokio::test]
async fn being_asked_in_takes_nobodys_address() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let fay = invite(&app, &acme.admin_key, "fay@example.com", "admin").await;
    // Fay did not hear of it, and makes an account as anybody does; the invitation waits for her.
    let token = sign_in(&app, "fay@example.com").await;
    assert_eq!(tenant_of(&app, &token).await["organization_name"], "default");
    let joined = accept(&app, &token, code_of(&fay)).await;
    assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
    let joined = joined.json();
    assert_eq!((&joined["organization_name"], &joined["role"]), (&json!("acme"), &json!("admin")));
    assert_eq!(tenant_of(&app, &token).await["tenant_id"], joined["tenant_id"]);
    // The first admin and Fay; nobody waits any more.
    let members = app.send(app.request(Method::GET, "/admin/members").bearer_auth(&token)).await.json();
    let members = members["items"].as_array().unwrap().clone();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|member| member["acceptedAt"].is_string()), "{members:?}");
    accept(&app, &token, code_of(&fay)).await.is_error(422, "APP-4XX-VALIDATION");
    accept(&app, &token, &acme.invitation).await.is_error(409, "APP-409-CONFLICT");
}

#[tokio::test]
async fn a_code_ends_and_is_shown_on_purpose() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let ann = sign_in(&app, "ann@example.com").await;
    let (cookies, csrf) = browser(&app, "ann@example.com").await;
    let invited = invite(&app, &acme.admin_key, "somebody@example.com", "member").await;
    let body = json!({"code": code_of(&invited)});
    // Not by another site, and not by a program that was let in for some things.
    let post = || app.request(Method::POST, ACCEPT).header(header::COOKIE, &cookies).json(&body);
    app.send(post()).await.is_error(403, "APP-403-FORBIDDEN");
    let made = app.request(Method::POST, "/api/v1/auth/keys").bearer_auth(&ann).json(&json!({"name": "few"}));
    let key = app.send(made).await.json()["key"].as_str().unwrap().to_owned();
    app.post(&key, ACCEPT, &body).await.is_error(403, "APP-403-FORBIDDEN");
    // What was taken back and what is over are as good as unknown.
    let over = invite(&app, &acme.admin_key, "late@example.com", "member").await;
    let update =
        "update memberships set invitation_expires_at = now() where invited_email = 'late@example.com'";
    app.execute(update).await;
    let back = invite(&app, &acme.admin_key, "back@example.com", "member").await;
    let place = format!("/admin/members/{}", back["userId"].as_str().unwrap());
    app.send_json(&acme.admin_key, Method::DELETE, &place, &json!({})).await;
    for code in [code_of(&over), code_of(&back)] {
        accept(&app, &ann, code).await.is_error(422, "APP-4XX-VALIDATION");
    }
    let accepted = app.send(post().header("X-CSRF-Token", csrf)).await;
    assert_eq!(accepted.status, StatusCode::OK, "{accepted:?}");
    // Stored as a hash, and gone once it was used.
    let open = "select count(*) from memberships where invitation_hash is not null and invited_email = 'somebody@example.com'";
    let open: i64 = sqlx::query_scalar(open).fetch_one(&app.db.admin()).await.unwrap();
    assert_eq!(open, 0);
    // Nobody tries for long.
    let mut last = 0;
    for _ in 0..20 {
        last = accept(&app, &ann, "inv_guess").await.status.as_u16();
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}
