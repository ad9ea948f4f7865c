//! Accounts and passwords.

use http::Method;
use serde_json::json;
use shared::config::Config;

use super::PASSWORD;
use crate::app::{TestApp, say};

#[tokio::test]
async fn a_person_signs_up_in_and_out() {
    let app = TestApp::start().await;
    let signed_in = app.sign_up("Ann@Example.com").await;
    assert_eq!((&signed_in["token_type"], &signed_in["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!(signed_in["user"]["email"], "Ann@Example.com");
    assert_eq!(signed_in["user"]["email_verified"], false);
    assert!(signed_in["user"]["number"].is_i64());

    let access = &signed_in["access_token"];
    let me = app.as_bearer(access, Method::GET, "/api/v1/auth/me").await.json();
    assert_eq!((&me["id"], &me["email"]), (&signed_in["user"]["id"], &json!("Ann@Example.com")));
    assert_eq!((&me["scopes"], &me["operator"]), (&json!(["read", "write", "chat", "admin"]), &json!(false)));

    // Any spelling of the address is the same account, and it may use Alfred.
    let again = app.log_in("ann@EXAMPLE.com", PASSWORD).await.json();
    assert_eq!(again["user"]["id"], me["id"]);
    let chat = app.request(Method::POST, "/chat").bearer_auth(access.as_str().unwrap()).json(&say("hello"));
    assert_eq!(app.send(chat).await.status, 202);
    // Without a membership she is a member of the default tenant, not its admin.
    app.as_bearer(access, Method::GET, "/admin/settings").await.is_error(403, "APP-403-FORBIDDEN");

    let bye = app
        .send(app.request(Method::POST, "/api/v1/auth/logout").bearer_auth(access.as_str().unwrap()))
        .await;
    assert_eq!(bye.status, 204);
    assert!(!app.opens(access).await);
    app.refresh(&signed_in["refresh_token"]).await.is_error(401, "APP-401-AUTH");
    // The other sign-in goes on.
    assert!(app.opens(&again["access_token"]).await);

    let metrics = app.send(app.request(Method::GET, "/metrics")).await.text;
    for line in [
        "auth_events_total{event_type=\"register\",outcome=\"success\"}",
        "auth_events_total{event_type=\"login\",outcome=\"success\"}",
        "auth_events_total{event_type=\"logout\",outcome=\"success\"}",
        "auth_events_total{event_type=\"refresh\",outcome=\"refused\"}",
        "auth_duration_seconds_bucket{event_type=\"login\",le=\"0.005\"}",
        "active_user_sessions",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn answers_do_not_tell_who_has_an_account() {
    let app = TestApp::start().await;
    app.sign_up("ann@example.com").await;
    let mut before = app.hashes();
    let mut cost = || {
        let now = app.hashes();
        let made = now - before;
        before = now;
        made
    };

    let taken =
        app.auth("register", &json!({"email": "ANN@example.com", "password": "another password"})).await;
    let taken_cost = cost();
    let free =
        app.auth("register", &json!({"email": "bob@example.com", "password": "another password"})).await;
    assert_eq!((taken.status, &taken.text), (free.status, &free.text));
    assert_eq!((taken_cost, cost()), (1, 1));
    // The account that was there stays as it was.
    assert_eq!(app.log_in("ann@example.com", PASSWORD).await.status, 200);
    assert_eq!(cost(), 1);

    // A user of the development key has no password.
    for (email, password) in [
        ("ann@example.com", "wrong password"),
        ("nobody@example.com", "wrong password"),
        ("admin@example.com", "wrong password"),
        ("nobody@example.com", ""),
    ] {
        let body = app.log_in(email, password).await.is_error(401, "APP-401-AUTH");
        assert_eq!(body["message"], "the address or the password is wrong", "{email}");
        assert_eq!(cost(), 1, "{email}");
    }
}

#[tokio::test]
async fn bad_accounts_are_refused() {
    let app = TestApp::start().await;
    for (email, password) in [
        ("ann", PASSWORD),
        ("ann@", PASSWORD),
        ("a nn@example.com", PASSWORD),
        ("ann@example.com\u{0}", PASSWORD),
        ("ann@example.com", "short"),
        ("ann@example.com", "password123"),
        ("ann@example.com", "ANN@example.com"),
        ("ann@example.com", &"x".repeat(2000)),
    ] {
        let body = json!({"email": email, "password": password});
        app.auth("register", &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
    app.log_in("ann@example.com", &"x".repeat(2000)).await.is_error(422, "APP-4XX-VALIDATION");
    app.auth("login", &json!({"email": "ann@example.com"})).await.is_error(422, "APP-4XX-VALIDATION");
    assert_eq!(app.hashes(), 0);
    let closed = TestApp::start_with(|config: &mut Config| config.sign_ins.registration = false).await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    closed.auth("register", &body).await.is_error(403, "APP-403-FORBIDDEN");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_locks_nobody_out() {
    let app = TestApp::start_with(|config| config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let from = |address: &str, password: &str| {
        let body = json!({"email": "ann@example.com", "password": password});
        let request = app.request(Method::POST, "/api/v1/auth/login").header("x-forwarded-for", address);
        app.send(request.json(&body))
    };
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    assert_eq!(app.auth("register", &body).await.status, 202);
    assert_eq!(from("192.0.2.1", PASSWORD).await.status, 200);

    // One place guesses, many at once: the hashes it gets are bounded, and so are those of an account that is not there.
    let before = app.hashes();
    let guesses = futures::future::join_all((0..40).map(|_| from("198.51.100.7", "a guess"))).await;
    let (tried, refused): (Vec<_>, Vec<_>) = guesses.into_iter().partition(|guess| guess.status == 401);
    assert!((8..=10).contains(&tried.len()), "{}", tried.len());
    assert_eq!(app.hashes() - before, u64::try_from(tried.len()).unwrap());
    for refused in &refused {
        refused.is_error(429, "APP-429-RATE");
        let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
    }
    from("198.51.100.7", PASSWORD).await.is_error(429, "APP-429-RATE");

    // Many places guess, until the account's own bucket is full: a new place has to wait.
    for n in 0..30 {
        from(&format!("203.0.113.{n}"), "a guess").await;
    }
    from("203.0.113.99", PASSWORD).await.is_error(429, "APP-429-RATE");
    // The user comes in from where they have been, and another account is not touched.
    assert_eq!(from("192.0.2.1", PASSWORD).await.status, 200);
    let other = json!({"email": "bob@example.com", "password": PASSWORD});
    assert_eq!(app.auth("register", &other).await.status, 202);
    assert_eq!(app.log_in("bob@example.com", PASSWORD).await.status, 200);
    // Time makes room again.
    app.execute("update sign_in_buckets set at = at - interval '1 hour' where capacity > 0").await;
    assert_eq!(from("203.0.113.99", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn what_one_bucket_refuses_fills_no_other() {
    let app = TestApp::start_with(|config| config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let from = |address: String| {
        let body = json!({"email": "ann@example.com", "password": "a guess"});
        let request = app.request(Method::POST, "/api/v1/auth/login").header("x-forwarded-for", address);
        app.send(request.json(&body))
    };
    // One host goes on and on after its eight guesses, and some of its clients do not wait for the answer.
    for _ in 0..8 {
        from("198.51.100.7".to_owned()).await.is_error(401, "APP-401-AUTH");
    }
    for n in 0..40 {
        let guess = from("198.51.100.7".to_owned());
        if n % 4 == 0 {
            drop(tokio::time::timeout(std::time::Duration::from_millis(1), guess).await);
        } else {
            guess.await.is_error(429, "APP-429-RATE");
        }
    }
    // The account has room for twenty-two more, less the few that were not yet taken back or have dripped.
    for n in 0..20 {
        from(format!("203.0.113.{n}")).await.is_error(401, "APP-401-AUTH");
    }
}

#[tokio::test]
async fn fifty_people_sign_in_at_once() {
    let app = TestApp::start().await;
    for n in 0..10 {
        let body = json!({"email": format!("p{n}@example.com"), "password": PASSWORD});
        assert_eq!(app.auth("register", &body).await.status, 202);
    }
    let emails: Vec<String> = (0..50).map(|n| format!("p{}@example.com", n % 10)).collect();
    let all = futures::future::join_all(emails.iter().map(|email| app.log_in(email, PASSWORD))).await;
    let statuses: Vec<u16> = all.iter().map(|answered| answered.status.as_u16()).collect();
    assert_eq!(statuses, [200; 50]);
}

#[tokio::test]
async fn a_hash_of_former_cost_is_made_anew() {
    let app = TestApp::start().await;
    app.sign_up("ann@example.com").await;
    let dearer = app.beside(|config| config.sign_ins.password_cost.passes = 3).await;
    assert_eq!(dearer.log_in("ann@example.com", PASSWORD).await.status, 200);
    assert_eq!(dearer.hashes(), 2);
    let hash: String =
        sqlx::query_scalar("select hash from user_passwords").fetch_one(&app.db.admin()).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=8,t=3,p=1$"), "{hash}");
    assert_eq!(dearer.log_in("ann@example.com", PASSWORD).await.status, 200);
    assert_eq!(dearer.hashes(), 3);
}
