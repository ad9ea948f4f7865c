//! Alfred as the authorization server of MCP clients: from a 401 to a tool call, and everything that must not work.

mod clients;
mod codes;
mod refusals;

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
