//! Programs that describe themselves, and issuers besides us.

use axum::{Router, http::header, routing::get};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Browser, CALLBACK, exchange, query};
use crate::app::TestApp;

/// A host that publishes documents about programs.
async fn publisher() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let document = |path: &str, change: Value| {
        let mut document = json!({"client_id": format!("{base}{path}"), "client_name": "Published", "redirect_uris": [CALLBACK]});
        document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let text = document.to_string();
        get(move || async move { ([(header::CONTENT_TYPE, "application/json")], text) })
    };
    let elsewhere = format!("{base}/good.json");
    let router = Router::new()
        .route("/good.json", document("/good.json", json!({})))
        .route("/other.json", document("/good.json", json!({})))
        .route(
            "/secret.json",
            document("/secret.json", json!({"token_endpoint_auth_method": "client_secret_post"})),
        )
        .route("/large.json", document("/large.json", json!({"x": "x".repeat(20_000)})))
        .route("/text.json", get(|| async { "no document" }))
        .route("/moved.json", get(|| async move { (StatusCode::FOUND, [(header::LOCATION, elsewhere)]) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn a_published_document_is_a_client() {
    let app =
        TestApp::start_with(|config| config.outbound_allow = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let base = publisher().await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let client = format!("{base}/good.json");
    let page = browser.get(&format!("/oauth/authorize?{}", query(&client, &[]))).await;
    assert!(
        page.text.contains("Let Published into") && page.text.contains("a program of <b>127.0.0.1</b>"),
        "{page:?}"
    );
    let code = browser.code(&query(&client, &[])).await;
    assert_eq!(exchange(&app, &client, &code).await.status, StatusCode::OK);
    for path in ["other", "secret", "large", "text", "moved", "missing"] {
        let page =
            browser.get(&format!("/oauth/authorize?{}", query(&format!("{base}/{path}.json"), &[]))).await;
        assert!(page.status == 400 && page.text.contains("description is not good"), "{path}: {page:?}");
    }
}

#[tokio::test]
async fn nobody_has_us_ask_around_inside() {
    let app = TestApp::start().await;
    let base = publisher().await;
    let client = format!("{base}/good.json");
    // Somebody who has not signed in has nothing fetched at all.
    let stranger = app.request(Method::GET, &format!("/oauth/authorize?{}", query(&client, &[])));
    assert!(app.send(stranger).await.text.contains("Sign in to Alfred"));
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    for client in
        [client.as_str(), "https://127.0.0.1:1/x", "https://localhost:1/x", "https://169.254.169.254/latest"]
    {
        let page = browser.get(&format!("/oauth/authorize?{}", query(client, &[]))).await;
        assert!(page.status == 400 && page.text.contains("description is not good"), "{client}: {page:?}");
    }
}

#[tokio::test]
async fn programs_register_in_small_and_not_without_end() {
    let app = TestApp::start_with(|config| config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let register = |address: &'static str, metadata: &Value| {
        let request = app.request(Method::POST, "/oauth/register").header("x-forwarded-for", address);
        app.send(request.json(metadata))
    };
    let long = format!("https://app.example/{}", "x".repeat(1500));
    let large = json!({"redirect_uris": [format!("{long}1"), format!("{long}2"), format!("{long}3")]});
    super::refused(&register("192.0.2.1", &large).await, "invalid_redirect_uri");
    let small = json!({"redirect_uris": [format!("{long}1"), format!("{long}2")]});
    for _ in 0..60 {
        assert_eq!(register("192.0.2.1", &small).await.status, StatusCode::CREATED);
    }
    let refused = loop {
        // What drips out meanwhile makes room for one or two.
        let answered = register("192.0.2.1", &small).await;
        if answered.status != StatusCode::CREATED {
            break answered;
        }
    };
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");
    assert_eq!(refused.json()["error"], "temporarily_unavailable");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    assert_eq!(register("192.0.2.2", &small).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_outside_issuer_is_named_and_we_are_silent() {
    let app = TestApp::start_with(|config| {
        config.sign_ins.outside_issuer = Some(shared::config::OutsideIssuer {
            issuer: "https://issuer.example".to_owned(),
            audience: None,
            jwks_url: None,
            hs256_secret: Some("a-secret-of-thirty-two-characters-or-more".into()),
            jwks_pause: std::time::Duration::from_secs(1),
        });
    })
    .await;
    let resource =
        app.send(app.request(Method::GET, "/.well-known/oauth-protected-resource/mcp")).await.json();
    assert_eq!(resource["authorization_servers"], json!(["https://issuer.example"]));
    for path in ["/.well-known/oauth-authorization-server", "/oauth/authorize?client_id=x"] {
        app.send(app.request(Method::GET, path)).await.is_error(404, "APP-404-NOT-FOUND");
    }
    for path in ["/oauth/register", "/oauth/token", "/oauth/revoke", "/oauth/sign-in", "/oauth/authorize"] {
        app.send(app.request(Method::POST, path)).await.is_error(404, "APP-404-NOT-FOUND");
    }
}
