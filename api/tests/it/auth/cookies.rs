//! Browsers.

use http::{Method, StatusCode, header};
use serde_json::json;

use super::PASSWORD;
use crate::app::{Answered, MEMBER, TestApp, say};

/// A browser with its two cookies.
struct Browser {
    cookies: String,
    csrf: String,
}

impl Browser {
    async fn sign_in(app: &TestApp) -> Self {
        app.sign_up("ann@example.com").await;
        let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": true});
        let answered = app.auth("login", &body).await;
        let members = answered.json();
        assert_eq!(members.as_object().unwrap().keys().collect::<Vec<_>>(), ["user"]);
        Self::of(&answered)
    }

    fn of(answered: &Answered) -> Self {
        let lines: Vec<&str> =
            answered.headers.get_all(header::SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        let [session, csrf] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(
            session.starts_with("alfred_session=ac_") && session.ends_with("; SameSite=Lax; HttpOnly"),
            "{session}"
        );
        assert!(csrf.starts_with("alfred_csrf=") && csrf.ends_with("; SameSite=Lax"), "{csrf}");
        let pair = |line: &str| line.split(';').next().unwrap().to_owned();
        let csrf_value = pair(csrf).split_once('=').unwrap().1.to_owned();
        Self { cookies: format!("{}; {}", pair(session), pair(csrf)), csrf: csrf_value }
    }

    fn request(&self, app: &TestApp, method: Method, path: &str) -> reqwest::RequestBuilder {
        app.request(method, path).header(header::COOKIE, &self.cookies)
    }
}

#[tokio::test]
async fn a_browser_session_lives_and_ends() {
    let app = TestApp::start().await;
    let browser = Browser::sign_in(&app).await;
    let me = app.send(browser.request(&app, Method::GET, "/api/v1/auth/me")).await.json();
    assert_eq!(me["email"], "ann@example.com");
    let extended =
        browser.request(&app, Method::POST, "/api/v1/auth/refresh").header("x-csrf-token", &browser.csrf);
    let extended = app.send(extended).await;
    assert_eq!(extended.status, 200, "{extended:?}");
    assert_eq!(Browser::of(&extended).csrf, browser.csrf);

    let logout = browser.request(&app, Method::POST, "/api/v1/auth/logout");
    app.send(logout).await.is_error(403, "APP-403-FORBIDDEN");
    let logout =
        browser.request(&app, Method::POST, "/api/v1/auth/logout").header("x-csrf-token", &browser.csrf);
    let logout = app.send(logout).await;
    assert_eq!(logout.status, StatusCode::NO_CONTENT);
    assert!(
        logout
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .all(|line| line.to_str().unwrap().contains("Max-Age=0"))
    );
    app.send(browser.request(&app, Method::GET, "/api/v1/auth/me")).await.is_error(401, "APP-401-AUTH");
}

/// Sec-Fetch-Site, Origin, X-CSRF-Token, and whether the request goes through.
type Case<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, bool);

#[tokio::test]
async fn what_changes_something_must_be_meant() {
    let app = TestApp::start().await;
    let browser = Browser::sign_in(&app).await;
    let own = format!("http://{}", app.running.addr);
    let right = browser.csrf.as_str();
    let stranger = "wrong";
    // `null` is what our own pages' forms send, because of Referrer-Policy: no-referrer.
    let cases: [Case<'_>; 12] = [
        (Some("same-origin"), Some(&own), Some(right), true),
        (Some("same-origin"), Some("null"), Some(right), true),
        (None, Some("http://localhost:0"), Some(right), true),
        (None, None, Some(right), true),
        (None, None, None, false),
        (Some("same-origin"), Some(&own), None, false),
        (Some("same-origin"), Some(&own), Some(stranger), false),
        (Some("same-origin"), Some(&own), Some(""), false),
        (Some("cross-site"), Some("https://evil.example"), Some(right), false),
        (Some("cross-site"), Some("null"), Some(right), false),
        (Some("same-site"), None, Some(right), false),
        (None, Some("https://evil.example"), Some(right), false),
    ];
    for (site, origin, token, through) in cases {
        let mut request = browser.request(&app, Method::POST, "/chat").json(&say("hello"));
        for (name, value) in [("sec-fetch-site", site), ("origin", origin), ("x-csrf-token", token)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let answered = app.send(request).await;
        if through {
            assert_eq!(answered.status, 202, "{site:?} {origin:?} {token:?} {answered:?}");
        } else {
            answered.is_error(403, "APP-403-FORBIDDEN");
        }
    }
    // Reading needs no token; a header that a program sets wins over the cookie and needs none either.
    assert_eq!(app.send(browser.request(&app, Method::GET, "/sessions")).await.status, 200);
    let program =
        browser.request(&app, Method::POST, "/chat").header("X-API-Key", MEMBER).json(&say("hello"));
    assert_eq!(app.send(program).await.status, 202);
}

#[tokio::test]
async fn one_sessions_csrf_token_is_not_anothers() {
    let app = TestApp::start().await;
    let ann = Browser::sign_in(&app).await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": true});
    let again = Browser::of(&app.auth("login", &body).await);
    assert_ne!(ann.csrf, again.csrf);
    let mixed =
        ann.request(&app, Method::POST, "/chat").header("x-csrf-token", &again.csrf).json(&say("hello"));
    app.send(mixed).await.is_error(403, "APP-403-FORBIDDEN");
    for cookie in ["alfred_session=", "alfred_session=ac_AAAA", "alfred_session", "other=x"] {
        let request = app.request(Method::GET, "/api/v1/auth/me").header(header::COOKIE, cookie);
        app.send(request).await.is_error(401, "APP-401-AUTH");
    }
}

#[tokio::test]
async fn no_site_signs_a_browser_in_to_its_own_account() {
    let app = TestApp::start().await;
    app.sign_up("evil@example.com").await;
    let body = json!({"email": "evil@example.com", "password": PASSWORD, "cookie": true});
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let request = app.request(Method::POST, "/api/v1/auth/login").header(name, value).json(&body);
        let refused = app.send(request).await;
        refused.is_error(403, "APP-403-FORBIDDEN");
        assert!(!refused.headers.contains_key(header::SET_COOKIE));
    }
}

#[tokio::test]
async fn cookies_are_secure_behind_https() {
    let app =
        TestApp::start_with(|config| config.public_url = "https://alfred.example".parse().unwrap()).await;
    app.sign_up("ann@example.com").await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "cookie": true});
    let answered = app.auth("login", &body).await;
    for line in answered.headers.get_all(header::SET_COOKIE) {
        let line = line.to_str().unwrap();
        assert!(
            line.starts_with("__Host-alfred_") && line.ends_with("; Secure") && line.contains("; Path=/;"),
            "{line}"
        );
        assert!(!line.contains("Domain"), "{line}");
    }
}
