//! What people see and end of their own sign-ins, and changing a password.

use http::Method;
use serde_json::{Value, json};

use super::PASSWORD;
use crate::app::{Answered, MEMBER, TestApp};

const SIGN_INS: &str = "/api/v1/auth/sign-ins";

impl TestApp {
    async fn sign_ins(&self, token: &Value) -> Vec<Value> {
        let answered = self.as_bearer(token, Method::GET, SIGN_INS).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        answered.json()["sign_ins"].as_array().unwrap().clone()
    }

    async fn revoke(&self, token: &Value, id: &Value) -> Answered {
        self.as_bearer(token, Method::DELETE, &format!("{SIGN_INS}/{}", id.as_str().unwrap())).await
    }

    async fn change_password(&self, token: &Value, present: &str, new: &str) -> Answered {
        let body = json!({"current_password": present, "new_password": new});
        let request = self.request(Method::POST, "/api/v1/auth/password");
        self.send(request.bearer_auth(token.as_str().unwrap()).json(&body)).await
    }
}

#[tokio::test]
async fn sign_ins_are_listed_and_ended_one_by_one() {
    let app = TestApp::start().await;
    let here = app.sign_up("ann@example.com").await["access_token"].clone();
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    let login = app.request(Method::POST, "/api/v1/auth/login").header("User-Agent", "laptop/1");
    let there = app.send(login.json(&body)).await.json();
    let bob = app.sign_up("bob@example.com").await["access_token"].clone();

    let listed = app.sign_ins(&here).await;
    assert_eq!(listed.len(), 2, "bob's is not among them");
    let brief =
        |found: &Value| (found["user_agent"].clone(), found["address"].clone(), found["current"].clone());
    assert_eq!(brief(&listed[0]), (json!("laptop/1"), json!("127.0.0.1"), json!(false)));
    assert_eq!((&listed[1]["current"], &listed[1]["kind"]), (&json!(true), &json!("token")));
    for member in ["created_at", "last_used_at", "expires_at"] {
        assert!(listed[0][member].is_string(), "{member} of {}", listed[0]);
    }
    let page = app.as_bearer(&here, Method::GET, &format!("{SIGN_INS}?limit=1")).await.json();
    assert_eq!(page["next"], listed[0]["id"]);
    let next = format!("{SIGN_INS}?limit=1&after={}", page["next"].as_str().unwrap());
    assert_eq!(app.as_bearer(&here, Method::GET, &next).await.json()["sign_ins"][0], listed[1]);

    // Nobody ends somebody else's.
    assert!(app.opens(&there["access_token"]).await);
    app.revoke(&bob, &listed[0]["id"]).await.is_error(404, "APP-404-NOT-FOUND");
    assert!(app.opens(&there["access_token"]).await);
    // Both kinds of tokens are good no more from now on.
    assert_eq!(app.revoke(&here, &listed[0]["id"]).await.status, 204);
    assert!(!app.opens(&there["access_token"]).await);
    app.refresh(&there["refresh_token"]).await.is_error(401, "APP-401-AUTH");
    app.revoke(&here, &listed[0]["id"]).await.is_error(404, "APP-404-NOT-FOUND");
    assert_eq!(app.sign_ins(&here).await.len(), 1);
    assert!(app.opens(&here).await);
    // One's own, too.
    assert_eq!(app.revoke(&here, &listed[1]["id"]).await.status, 204);
    assert!(!app.opens(&here).await);
}

#[tokio::test]
async fn a_browsers_sign_in_can_be_ended_from_elsewhere() {
    let app = TestApp::start().await;
    let here = app.sign_up("ann@example.com").await["access_token"].clone();
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": true});
    let answered = app.auth("login", &body).await;
    let set = answered.headers.get_all("set-cookie").iter();
    let cookies: Vec<&str> = set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap()).collect();
    let cookies = cookies.join("; ");
    let me = async || {
        app.send(app.request(Method::GET, "/api/v1/auth/me").header("Cookie", &cookies)).await.status
    };
    assert_eq!(me().await, 200);
    let browser = app.sign_ins(&here).await.into_iter().find(|found| found["kind"] == "cookie").unwrap();
    assert_eq!(app.revoke(&here, &browser["id"]).await.status, 204);
    assert_eq!(me().await, 401);
}

#[tokio::test]
async fn a_credential_for_some_things_sees_and_ends_no_sign_ins() {
    let app = TestApp::start().await;
    let here = app.sign_up("ann@example.com").await["access_token"].clone();
    let wanted = json!({"scopes": ["read", "write", "chat"]});
    let made =
        app.request(Method::POST, "/api/v1/auth/keys").bearer_auth(here.as_str().unwrap()).json(&wanted);
    let key = app.send(made).await.json()["key"].as_str().unwrap().to_owned();
    app.get(&key, SIGN_INS).await.is_error(403, "APP-403-FORBIDDEN");
    let id = app.sign_ins(&here).await[0]["id"].as_str().unwrap().to_owned();
    let delete = app.request(Method::DELETE, &format!("{SIGN_INS}/{id}")).header("X-API-Key", &key);
    app.send(delete).await.is_error(403, "APP-403-FORBIDDEN");
    let body = json!({"current_password": PASSWORD, "new_password": "another long password"});
    app.post(&key, "/api/v1/auth/password", &body).await.is_error(403, "APP-403-FORBIDDEN");
    let everywhere = json!({"everywhere": true});
    app.post(&key, "/api/v1/auth/logout", &everywhere).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(app.post(&key, "/api/v1/auth/logout", &json!({})).await.status, 204);
    assert!(app.opens(&here).await);
    assert_eq!(app.get(MEMBER, SIGN_INS).await.json()["sign_ins"], json!([]));
}

/// A login whose password was right when it was looked at, and is changed before the sign-in begins.
#[tokio::test]
async fn a_login_does_not_survive_the_change_of_its_password() {
    let app = TestApp::start().await;
    app.sign_up("ann@example.com").await;
    let admin = app.db.admin();
    for cookie in [false, true] {
        let mut changing = admin.begin().await.unwrap();
        sqlx::query("update user_passwords set hash = hash || '='").execute(&mut *changing).await.unwrap();
        let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": cookie});
        let change = async {
            app.until_somebody_waits_for_a_lock().await;
            changing.commit().await.unwrap();
        };
        let (login, ()) = tokio::join!(app.auth("login", &body), change);
        login.is_error(401, "APP-401-AUTH");
        sqlx::query("update user_passwords set hash = rtrim(hash, '=')").execute(&admin).await.unwrap();
    }
    assert_eq!(app.log_in("ann@example.com", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sign_ins() {
    const NEW: &str = "another horse, another staple";
    let app = TestApp::start().await;
    let here = app.sign_up("ann@example.com").await["access_token"].clone();
    let there = app.log_in("ann@example.com", PASSWORD).await.json();
    assert!(app.opens(&there["access_token"]).await);

    let wrong = app.change_password(&here, "not my password", NEW).await;
    assert_eq!(wrong.is_error(422, "APP-4XX-VALIDATION")["field"], "current_password");
    app.change_password(&here, PASSWORD, "short").await.is_error(422, "APP-4XX-VALIDATION");
    assert!(app.opens(&there["access_token"]).await, "nothing has changed yet");

    assert_eq!(app.change_password(&here, PASSWORD, NEW).await.status, 204);
    assert!(app.opens(&here).await);
    assert!(!app.opens(&there["access_token"]).await);
    app.refresh(&there["refresh_token"]).await.is_error(401, "APP-401-AUTH");
    app.log_in("ann@example.com", PASSWORD).await.is_error(401, "APP-401-AUTH");
    assert_eq!(app.log_in("ann@example.com", NEW).await.status, 200);

    // Whoever has borrowed the browser does not get to try for long, whatever they try.
    let mut last = 0;
    for _ in 0..20 {
        last = app.change_password(&here, "a guess", "a new password").await.status.as_u16();
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
}
