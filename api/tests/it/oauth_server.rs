//! Alfred as the authorization server of MCP clients: from a 401 to a tool call, and everything that must not work.

use axum::{Router, http::header, routing::get};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    app::{Answered, TestApp},
    mcp,
};

const VERIFIER: &str = "a-verifier-that-nobody-can-guess-0123456789-abcdef";
const CALLBACK: &str = "http://127.0.0.1:4711/callback";
const PASSWORD: &str = "correct horse battery staple";

fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// A browser with a person in front of it.
struct Browser<'a> {
    app: &'a TestApp,
    client: reqwest::Client,
    cookies: String,
}

impl<'a> Browser<'a> {
    async fn new(app: &'a TestApp, email: &str) -> Self {
        let registered = json!({"email": email, "password": PASSWORD});
        let answered = app.send(app.request(Method::POST, "/api/v1/auth/register").json(&registered)).await;
        assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { app, client, cookies: String::new() }
    }

    async fn signed_in(app: &'a TestApp, email: &str) -> Self {
        let mut browser = Self::new(app, email).await;
        let answered = browser.sign_in(email, PASSWORD, "a=b").await;
        assert_eq!(answered.status, StatusCode::SEE_OTHER, "{answered:?}");
        browser.keep(&answered);
        browser
    }

    fn keep(&mut self, answered: &Answered) {
        let set = answered.headers.get_all("set-cookie").iter();
        let pairs: Vec<&str> =
            set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap()).collect();
        self.cookies = pairs.join("; ");
    }

    async fn get(&self, path: &str) -> Answered {
        self.send(self.client.get(self.app.url(path))).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answered {
        self.send(self.own(path, form)).await
    }

    /// As a page of ours sends a form.
    fn own(&self, path: &str, form: &[(&str, &str)]) -> reqwest::RequestBuilder {
        self.form(path, form).header("Sec-Fetch-Site", "same-origin").header("Origin", "null")
    }

    fn form(&self, path: &str, form: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(self.app.url(path)).body(body);
        request.header("Content-Type", "application/x-www-form-urlencoded")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answered {
        self.app.send(request.header("Cookie", &self.cookies)).await
    }

    async fn sign_in(&self, email: &str, password: &str, query: &str) -> Answered {
        self.post("/oauth/sign-in", &[("email", email), ("password", password), ("query", query)]).await
    }

    /// Opens the question and answers it as its form would.
    async fn decide(&self, query: &str, decision: &str) -> Url {
        let page = self.get(&format!("/oauth/authorize?{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let fields = fields(&page.text);
        let mut form: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        form.push(("decision", decision));
        sent_to(&self.post("/oauth/authorize", &form).await)
    }

    /// Lets the program in, and answers the code.
    async fn code(&self, query: &str) -> String {
        let back = self.decide(query, "allow").await;
        parameter(&back, "code").unwrap_or_else(|| panic!("no code in {back}"))
    }
}

/// The hidden fields of a page's form.
fn fields(page: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        text.replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&#39;", "'")
            .replace("&amp;", "&")
    };
    let hidden = page.split("<input type=\"hidden\" name=\"").skip(1);
    hidden
        .map(|rest| {
            let (name, rest) = rest.split_once("\" value=\"").unwrap();
            (plain(name), plain(rest.split('"').next().unwrap()))
        })
        .collect()
}

#[track_caller]
fn sent_to(answered: &Answered) -> Url {
    assert_eq!(answered.status, StatusCode::SEE_OTHER, "{answered:?}");
    answered.headers["location"].to_str().unwrap().parse().unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

async fn register(app: &TestApp, metadata: &Value) -> Answered {
    app.send(app.request(Method::POST, "/oauth/register").json(metadata)).await
}

/// A registered client's id.
async fn client(app: &TestApp) -> String {
    let asked = json!({"client_name": "Desk <b>", "redirect_uris": ["http://127.0.0.1/callback", "https://app.example/cb"]});
    let registered = register(app, &asked).await;
    assert_eq!(registered.status, StatusCode::CREATED, "{registered:?}");
    assert_eq!(registered.json()["token_endpoint_auth_method"], "none");
    registered.json()["client_id"].as_str().unwrap().to_owned()
}

/// An authorization request, with some parameters changed; an empty one is left out.
fn query(client: &str, changes: &[(&str, &str)]) -> String {
    let challenge = challenge();
    let mut all = vec![
        ("client_id", client),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", "xyz & \"co\""),
    ];
    for change in changes {
        all.retain(|(name, _)| name != &change.0);
        if !change.1.is_empty() {
            all.push(*change);
        }
    }
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish()
}

async fn token(app: &TestApp, form: &[(&str, &str)]) -> Answered {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = app.request(Method::POST, "/oauth/token").body(body);
    app.send(request.header("Content-Type", "application/x-www-form-urlencoded")).await
}

async fn exchange(app: &TestApp, client: &str, code: &str) -> Answered {
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("code_verifier", VERIFIER),
        ("redirect_uri", CALLBACK),
    ];
    token(app, &form).await
}

#[track_caller]
fn refused(answered: &Answered, error: &str) {
    assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{answered:?}");
    assert_eq!(answered.json()["error"], error);
    assert!(answered.json()["error_description"].is_string());
}

async fn call(app: &TestApp, token: &str, tool: &str, arguments: &Value) -> Answered {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let request = app
        .request(Method::POST, "/mcp")
        .header("Authorization", format!("Bearer {token}"))
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", mcp::LEGACY);
    app.send(request.json(&body)).await
}

#[tokio::test]
async fn from_a_refusal_to_a_tool_call() {
    let app = TestApp::start().await;
    // Where a client is led by the 401.
    let resource =
        app.send(app.request(Method::GET, "/.well-known/oauth-protected-resource/mcp")).await.json();
    let issuer = resource["authorization_servers"][0].as_str().unwrap().to_owned();
    let metadata = app.send(app.request(Method::GET, "/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata["issuer"], issuer);
    assert_eq!(metadata["token_endpoint"], format!("{issuer}/oauth/token"));
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    for member in ["authorization_response_iss_parameter_supported", "client_id_metadata_document_supported"]
    {
        assert_eq!(metadata[member], true);
    }

    let client = client(&app).await;
    let mut browser = Browser::new(&app, "ann@example.com").await;
    let asking = query(&client, &[("resource", &app.url("/mcp")), ("scope", "read write chat admin")]);
    let page = browser.get(&format!("/oauth/authorize?{asking}")).await;
    assert!(page.status == 200 && page.text.contains("Sign in to Alfred"), "{page:?}");
    let kept = fields(&page.text).into_iter().find(|(name, _)| name == "query").unwrap().1;
    let wrong = browser.sign_in("ann@example.com", "not her password", &kept).await;
    assert!(wrong.status == 401 && wrong.text.contains("is wrong"), "{wrong:?}");
    let signed_in = browser.sign_in("ann@example.com", PASSWORD, &kept).await;
    assert_eq!(signed_in.headers["location"].to_str().unwrap(), format!("/oauth/authorize?{asking}"));
    browser.keep(&signed_in);

    let page = browser.get(&format!("/oauth/authorize?{asking}")).await;
    assert!(
        page.text.contains("Let Desk &lt;b&gt; into your workspace?")
            && page.text.contains("ann@example.com")
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4711;"), "{policy}");

    let back = browser.decide(&asking, "allow").await;
    assert_eq!(back.as_str().split('?').next().unwrap(), CALLBACK);
    assert_eq!(parameter(&back, "state").unwrap(), "xyz & \"co\"");
    assert_eq!(parameter(&back, "iss").unwrap(), issuer);
    let code = parameter(&back, "code").unwrap();
    let answered = exchange(&app, &client, &code).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(answered.headers["cache-control"], "no-store");
    let tokens = answered.json();
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("read write")));

    let access = tokens["access_token"].as_str().unwrap();
    let made = call(&app, access, "add_task", &json!({"title": "from the desk"})).await.json();
    assert_eq!(made["result"]["structuredContent"]["payload"]["title"], "from the desk");
    // The token is good at /mcp alone.
    for path in ["/tools", "/api/v1/auth/me", "/sessions"] {
        let request = app.request(Method::GET, path).header("Authorization", format!("Bearer {access}"));
        app.send(request).await.is_error(401, "APP-401-AUTH");
    }

    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = |client: &str| {
        let (client, refresh) = (client.to_owned(), refresh.to_owned());
        [("grant_type", "refresh_token".to_owned()), ("client_id", client), ("refresh_token", refresh)]
    };
    let ask = async |client: &str| {
        let form = form(client);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        token(&app, &form).await
    };
    refused(&ask("mcp_somebody_else").await, "invalid_grant");
    let renewed = ask(&client).await.json();
    assert_ne!(renewed["refresh_token"], refresh);
    let renewed_access = renewed["access_token"].as_str().unwrap();
    assert_eq!(call(&app, renewed_access, "list_tasks", &json!({})).await.status, 200);

    let body = format!("token={}", renewed["refresh_token"].as_str().unwrap());
    let revoke = app.request(Method::POST, "/oauth/revoke").body(body);
    let revoked = app.send(revoke.header("Content-Type", "application/x-www-form-urlencoded")).await;
    assert_eq!(revoked.status, StatusCode::OK);
    call(&app, renewed_access, "list_tasks", &json!({})).await.is_error(401, "APP-401-AUTH");
}

#[tokio::test]
async fn a_code_is_for_one_client_and_one_use() {
    let app = TestApp::start().await;
    let (client_id, other) = (client(&app).await, client(&app).await);
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let asking = query(&client_id, &[]);
    let good = [
        ("grant_type", "authorization_code"),
        ("client_id", client_id.as_str()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", CALLBACK),
    ];
    for wrong in [
        ("client_id", other.as_str()),
        ("code_verifier", "another-verifier-that-is-long-enough-0123456789"),
        ("code_verifier", "short"),
        ("redirect_uri", "https://app.example/cb"),
    ] {
        let code = browser.code(&asking).await;
        let mut form: Vec<(&str, &str)> = good.into_iter().filter(|(name, _)| *name != wrong.0).collect();
        form.extend([wrong, ("code", code.as_str())]);
        refused(&token(&app, &form).await, "invalid_grant");
        // Nobody tries again with the same code.
        refused(&exchange(&app, &client_id, &code).await, "invalid_grant");
    }
    refused(&exchange(&app, &client_id, "no-code-of-ours").await, "invalid_grant");
    let code = browser.code(&asking).await;
    app.execute("update oauth_codes set expires_at = now() - interval '1 second'").await;
    refused(&exchange(&app, &client_id, &code).await, "invalid_grant");

    // Shown twice, a code takes back what it gave.
    let code = browser.code(&asking).await;
    let access = exchange(&app, &client_id, &code).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(call(&app, &access, "list_tasks", &json!({})).await.status, 200);
    refused(&exchange(&app, &client_id, &code).await, "invalid_grant");
    call(&app, &access, "list_tasks", &json!({})).await.is_error(401, "APP-401-AUTH");

    refused(
        &token(&app, &[("grant_type", "password"), ("client_id", &client_id)]).await,
        "unsupported_grant_type",
    );
    refused(&token(&app, &[("client_id", &client_id)]).await, "invalid_request");
    let twice =
        [("grant_type", "authorization_code"), ("client_id", &client_id), ("code", "a"), ("code", "b")];
    refused(&token(&app, &twice).await, "invalid_request");
}

#[tokio::test]
async fn only_what_was_granted_is_given() {
    let app = TestApp::start().await;
    let client = client(&app).await;
    let browser = Browser::signed_in(&app, "ann@example.com").await;
    let code = browser.code(&query(&client, &[("scope", "read")])).await;
    let tokens = exchange(&app, &client, &code).await.json();
    assert_eq!(tokens["scope"], "read");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(call(&app, access, "list_tasks", &json!({})).await.json()["result"]["isError"], false);
    let refused = call(&app, access, "add_task", &json!({"title": "x"})).await.json();
    assert_eq!(refused["result"]["isError"], true);
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().contains("scope write"), "{refused}");

    let denied = browser.decide(&query(&client, &[]), "deny").await;
    assert_eq!(parameter(&denied, "error").unwrap(), "access_denied");
    assert!(parameter(&denied, "code").is_none());
}

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
