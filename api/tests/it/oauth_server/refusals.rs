//! What is refused, and to whom it is said.

use http::StatusCode;
use serde_json::json;

use super::{Browser, CALLBACK, PASSWORD, client, fields, parameter, query, refused, register, sent_to};
use crate::app::TestApp;

#[tokio::test]
async fn what_is_wrong_is_said_to_whom_it_may_be() {
    let app = TestApp::start().await;
    let client = client(&app).await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    for changes in [
        [("client_id", "mcp_nobody")],
        [("client_id", "")],
        [("redirect_uri", "https://evil.example/cb")],
        [("redirect_uri", "http://127.0.0.1:4711/other")],
        [("redirect_uri", "https://app.example/cb/../x")],
        [("redirect_uri", "")],
    ] {
        let page = browser.get(&format!("/oauth/authorize?{}", query(&client, &changes))).await;
        assert!(page.status == 400 && page.text.contains("This did not work"), "{changes:?}: {page:?}");
        assert!(!page.headers.contains_key("location"));
    }
    for (changes, error) in [
        ([("response_type", "token")], "unsupported_response_type"),
        ([("code_challenge_method", "plain")], "invalid_request"),
        ([("code_challenge_method", "")], "invalid_request"),
        ([("code_challenge", "short")], "invalid_request"),
        ([("resource", "https://evil.example/mcp")], "invalid_target"),
        ([("scope", "admin chat")], "invalid_scope"),
    ] {
        let back = sent_to(&browser.get(&format!("/oauth/authorize?{}", query(&client, &changes))).await);
        assert_eq!(parameter(&back, "error").unwrap(), error, "{back}");
        assert!(back.as_str().starts_with(CALLBACK) && parameter(&back, "iss").is_some(), "{back}");
    }
    for metadata in [
        json!({}),
        json!({"redirect_uris": []}),
        json!({"redirect_uris": ["http://evil.example/cb"]}),
        json!({"redirect_uris": ["javascript:alert(1)"]}),
        json!({"redirect_uris": ["https://app.example/cb#x"]}),
    ] {
        refused(&register(&app, &metadata).await, "invalid_redirect_uri");
    }
    let implicit = json!({"redirect_uris": ["https://app.example/cb"], "response_types": ["token"]});
    refused(&register(&app, &implicit).await, "invalid_client_metadata");
    refused(&register(&app, &json!({"redirect_uris": "x"})).await, "invalid_client_metadata");
}

#[tokio::test]
async fn nobody_decides_for_somebody_else() {
    let app = TestApp::start().await;
    let client = client(&app).await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let other = Browser::signed_in(&app, "bob@example.com").await;
    let page = browser.get(&format!("/oauth/authorize?{}", query(&client, &[]))).await;
    let fields = fields(&page.text);
    let form = |csrf: Option<&'static str>| {
        let mut form: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Some(csrf) = csrf {
            form.retain(|(name, _)| *name != "csrf");
            form.push(("csrf", csrf));
        }
        form.push(("decision", "allow"));
        form
    };
    let path = "/oauth/authorize";
    let forged = [
        // Without the token, with a wrong one, in another session, from another page, without a session.
        browser.send(browser.own(path, &form(Some("")))).await,
        browser.send(browser.own(path, &form(Some("AAAA")))).await,
        other.send(other.own(path, &form(None))).await,
        browser.send(browser.form(path, &form(None)).header("Origin", "https://evil.example")).await,
        browser.send(browser.form(path, &form(None)).header("Sec-Fetch-Site", "cross-site")).await,
        app.send(browser.own(path, &form(None))).await,
    ];
    for (number, answered) in forged.iter().enumerate() {
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{number}: {answered:?}");
    }
    let codes: i64 =
        sqlx::query_scalar("select count(*) from oauth_codes").fetch_one(&app.db.admin()).await.unwrap();
    assert_eq!(codes, 0);
    // Nobody is signed in to somebody else's account by a page of theirs.
    let planted = browser.form("/oauth/sign-in", &[("email", "bob@example.com"), ("password", PASSWORD)]);
    let answered = app.send(planted.header("Origin", "https://evil.example")).await;
    assert!(answered.status == 403 && !answered.headers.contains_key("set-cookie"), "{answered:?}");
}
