//! Connections to other services, from the button to the token that a call is made with.

mod arriving;
mod connecting;
mod refreshing;
mod rotation;
mod secrets;
mod using;

use std::{collections::BTreeMap, str::FromStr as _, sync::Arc};

use anyhow::{Context, Result, ensure};
use harness::{
    fakes::oauth::FakeAuthorization,
    stack::{Builder, Stack},
};
use serde_json::Value;
use shared::{
    bell::Bell,
    config::Config,
    connections::{Connections, Parts},
    counters::Counters,
    db::{self, DbRole, TenantDb},
    identity::Actor,
    outbound::Outbound,
    vault::Vault,
};

use crate::run::{here, processes};

/// What the stand-in's tokens and secrets contain.
const MARKER: &str = "MARKER";
const OLD_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A stack whose Notion is the stand-in, in both ways.
pub(crate) fn connected_to(builder: Builder, notion: &FakeAuthorization) -> Builder {
    builder
        .env("FERNET_KEY", OLD_KEY)
        .env("OUTBOUND_ALLOW", "127.0.0.0/8")
        .env("OAUTH_TIMEOUT_SECONDS", "1")
        .env("FEATURE_NOTION_HOSTED_MCP", "on")
        .env("NOTION_MCP_URL", &format!("{}/mcp", notion.url))
        .env("FEATURE_NOTION_SELF_HOST_FALLBACK", "true")
        .env("NOTION_SELF_HOST_URL", "http://127.0.0.1:1/mcp")
        .env("NOTION_CLIENT_ID", "notion-client")
        .env("NOTION_CLIENT_SECRET", "notion-secret-MARKER")
        .env("NOTION_API_URL", &notion.url)
}

fn alfred(notion: &FakeAuthorization) -> Builder {
    connected_to(here().workers(0), notion)
}

fn alfred_of_processes(notion: &FakeAuthorization) -> Builder {
    connected_to(processes().workers(0), notion)
}

/// What an address answered.
#[derive(Debug)]
pub(crate) struct Seen {
    status: u16,
    location: String,
    pub(crate) body: String,
    headers: reqwest::header::HeaderMap,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub(crate) fn is(self, status: u16, words: &str) -> Result<Self> {
        ensure!(self.status == status && self.body.contains(words), "not {status} with {words:?}: {self:?}");
        Ok(self)
    }
}

/// A browser: it keeps cookies, and goes where it is sent only when it is told to.
#[derive(Clone)]
pub(crate) struct Browser {
    http: reqwest::Client,
    base: String,
    cookies: BTreeMap<String, String>,
    /// Sent as X-API-Key, as by a page of somebody's own.
    key: Option<String>,
}

impl Browser {
    fn new(stack: &Stack) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.build().expect("a client can be made");
        Self { http, base: stack.apis[0].base.clone(), cookies: BTreeMap::new(), key: None }
    }

    /// With the key of the tenant's user.
    pub(crate) fn of(stack: &Stack, tenant: usize) -> Self {
        Self { key: Some(stack.tenants[tenant].key.clone()), ..Self::new(stack) }
    }

    /// With a cookie session of a new user, who shares the default tenant.
    pub(crate) async fn signed_in(stack: &Stack, email: &str) -> Result<Self> {
        let mut browser = Self::new(stack);
        let account = serde_json::json!({"email": email, "password": "correct horse battery staple"});
        browser.post("/api/v1/auth/register", &account).await?.is(202, "")?;
        browser.sign_in(email).await?;
        Ok(browser)
    }

    async fn sign_in(&mut self, email: &str) -> Result<()> {
        let account =
            serde_json::json!({"email": email, "password": "correct horse battery staple", "cookie": true});
        self.post("/api/v1/auth/login", &account).await?.is(200, "user")?;
        Ok(())
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Result<Seen> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = request.header("Cookie", cookies.join("; "));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        let answer = request.send().await?;
        let headers = answer.headers().clone();
        for line in headers.get_all("set-cookie") {
            let pair = line.to_str()?.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = headers.get("location").and_then(|place| place.to_str().ok()).unwrap_or_default();
        Ok(Seen {
            status: answer.status().as_u16(),
            location: location.to_owned(),
            headers,
            body: answer.text().await?,
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Seen> {
        let request = self.http.get(format!("{}{path}", self.base)).header("Accept", "text/html");
        self.send(request).await
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<Seen> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        let request = request.header("Sec-Fetch-Site", "same-origin");
        self.send(request).await
    }

    /// Accepts the invitation that an admin was answered.
    async fn accept(&mut self, invited: &Value) -> Result<()> {
        let body = serde_json::json!({"code": invited["invitation"]["code"]});
        let csrf = self.cookies.get("alfred_csrf").cloned().unwrap_or_default();
        let place = format!("{}/api/v1/auth/invitations/accept", self.base);
        let request = self.http.post(place).header("X-CSRF-Token", csrf).json(&body);
        self.send(request).await?.is(200, "tenant_id")?;
        Ok(())
    }

    /// A form of a page of ours.
    async fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Seen> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(format!("{}{path}", self.base)).body(body);
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        self.send(request.header("Origin", "null").header("Sec-Fetch-Site", "same-origin")).await
    }

    /// Goes to somebody else's address, where it has no cookies.
    async fn visit(&self, url: &str) -> Result<Seen> {
        Self { cookies: BTreeMap::new(), key: None, ..self.clone() }.send(self.http.get(url)).await
    }

    /// Goes off to connect a server; answers the path to come back to.
    async fn leave(&mut self, server: &str) -> Result<String> {
        let left = self.get(&format!("/connect/{server}")).await?;
        ensure!(left.status == 302, "the browser was not sent off: {left:?}");
        let asked = self.visit(&left.location).await?;
        ensure!(asked.status == 303, "the person was not sent back: {asked:?}");
        let back = url::Url::parse(&asked.location)?;
        Ok(format!("{}?{}", back.path(), back.query().context("a reply has parameters")?))
    }

    pub(crate) async fn connect(&mut self, server: &str) -> Result<Seen> {
        let back = self.leave(server).await?;
        self.get(&back).await
    }

    /// Posts a turn; the job at its end.
    pub(crate) async fn say(&mut self, text: &str) -> Result<Value> {
        let body = serde_json::json!({"messages": [{"role": "user", "content": text}]});
        let csrf = self.cookies.get("alfred_csrf").cloned().unwrap_or_default();
        let request = self.http.post(format!("{}/chat", self.base)).header("X-CSRF-Token", csrf);
        let posted = self.send(request.json(&body)).await?.is(202, "jobId")?.json();
        let place = format!("/jobs/{}", posted["jobId"].as_str().context("a job")?);
        let mut job = Value::Null;
        until("the turn's end", async || {
            job = self.get(&place).await?.is(200, "status")?.json();
            Ok(job["status"] == "succeeded")
        })
        .await?;
        Ok(job)
    }

    async fn connections(&mut self) -> Result<Value> {
        Ok(self.get("/v1/connections").await?.is(200, "")?.json())
    }

    /// The id of the only connection.
    async fn only(&mut self) -> Result<String> {
        let list = self.connections().await?;
        let connections = list["connections"].as_array().context("a list")?;
        ensure!(connections.len() == 1, "not one connection: {list}");
        Ok(connections[0]["id"].as_str().context("an id")?.to_owned())
    }
}

/// The connections of one more process over the stack's database.
fn process(stack: &Stack, notion: &FakeAuthorization) -> Result<Connections> {
    process_with(stack, notion, &[])
}

fn process_with(stack: &Stack, notion: &FakeAuthorization, more: &[(&str, &str)]) -> Result<Connections> {
    let mut variables: std::collections::HashMap<String, String> = [
        ("APP_ENV", "test"),
        ("FERNET_KEY", OLD_KEY),
        ("DB_URL", &stack.database.app_url),
        ("OUTBOUND_ALLOW", "127.0.0.0/8"),
        ("OAUTH_TIMEOUT_SECONDS", "1"),
        ("FEATURE_NOTION_HOSTED_MCP", "on"),
        ("NOTION_MCP_URL", &format!("{}/mcp", notion.url)),
        ("FEATURE_NOTION_SELF_HOST_FALLBACK", "true"),
        ("NOTION_SELF_HOST_URL", "http://127.0.0.1:1/mcp"),
        ("NOTION_CLIENT_ID", "notion-client"),
        ("NOTION_CLIENT_SECRET", "notion-secret-MARKER"),
        ("NOTION_API_URL", &notion.url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let config = Config::from_vars(&variables)?;
    let options = db::options(&stack.database.app_url, DbRole::App, "test").map_err(anyhow::Error::msg)?;
    let counters = Arc::new(Counters::start(db::relaxed_pool(options.clone())));
    let listen =
        db::options(&stack.database.engine_url, DbRole::Engine, "test").map_err(anyhow::Error::msg)?;
    let bell = Bell::start(listen, &stack.database.engine()?, &[]);
    Ok(Connections::new(Parts {
        tenants: TenantDb::new(db::pool(options, 8), counters),
        vault: Vault::new(&config.fernet_keys)?,
        outbound: Outbound::new(&config.outbound_allow),
        config: config.connections.clone(),
        public_url: "http://localhost:0".to_owned(),
        servers: None,
        bell,
        forget: None,
    }))
}

fn actor(stack: &Stack, tenant: usize) -> Actor {
    Actor::of_turn(stack.tenants[tenant].id, stack.tenants[tenant].user)
}

async fn execute(stack: &Stack, statement: &'static str) -> Result<()> {
    sqlx::raw_sql(statement).execute(&stack.database.admin).await?;
    Ok(())
}

/// Has every access token end, as if an hour had passed.
async fn an_hour_passes(stack: &Stack) -> Result<()> {
    execute(
        stack,
        "update connections set expires_at = clock_timestamp() - interval '1 minute', refreshed_at = clock_timestamp() - interval '1 hour'",
    )
    .await
}

async fn one_text(stack: &Stack, statement: &'static str) -> Result<String> {
    Ok(sqlx::query_scalar(statement).fetch_one(&stack.database.admin).await?)
}

/// Every row of every table, as text; fails when a token is in bytes that text does not show.
async fn everything_stored(stack: &Stack) -> Result<String> {
    let tables = "select string_agg(quote_ident(table_schema) || '.' || quote_ident(table_name), ' ') from information_schema.tables
                  where table_schema in ('public', 'apalis') and table_type = 'BASE TABLE'";
    let mut all = String::new();
    for table in one_text(stack, tables).await?.split(' ') {
        let dump = format!("select coalesce(string_agg(t::text, e'\\n'), '') || count(*) from {table} t");
        let text: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(dump)).fetch_one(&stack.database.admin).await?;
        // bytea is dumped in hexadecimal.
        ensure!(!text.contains("4d41524b4552"), "{table} has a token in its bytes");
        all += &text;
    }
    ensure!(all.lines().count() > 20, "the dump is too small");
    Ok(all)
}

/// Polls until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    // A queue looks by itself every 30 seconds.
    let within = 3 * crate::run::SOON;
    let deadline = tokio::time::Instant::now() + within;
    while !holds().await? {
        ensure!(tokio::time::Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// An id as a type.
fn connection_id(text: &str) -> Result<shared::ids::ConnectionId> {
    Ok(shared::ids::ConnectionId::from_str(text)?)
}
