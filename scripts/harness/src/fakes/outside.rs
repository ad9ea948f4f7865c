//! Something beyond the database that tools ring: it keeps every call with its key, and the tools that call it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use shared::{
    cache::{self, KnownAs, Scope, ToolCache},
    db::TenantTx,
    error::{Code, Error},
    tools::{Effect, OutsideCall as Call, OutsideTool, ToolDef, ToolOutput, ToolRun},
};

use crate::oracle::OutsideCall;

/// Pages, how often each was edited, and how often any was asked for.
#[derive(Default)]
struct Shelf {
    edits: BTreeMap<String, usize>,
    reads: usize,
    /// How long a read takes.
    pause: Duration,
}

/// A server that remembers who rang, and has pages. A page named `none…` is not there, one named `empty…` has nothing.
pub struct FakeOutside {
    /// `http://127.0.0.1:port`
    pub url: String,
    received: Arc<Mutex<Vec<OutsideCall>>>,
    pages: Arc<Mutex<Shelf>>,
    server: tokio::task::JoinHandle<()>,
}

impl FakeOutside {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No free port.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let received: Arc<Mutex<Vec<OutsideCall>>> = Arc::default();
        let calls = Arc::clone(&received);
        let ring = move |Path(tool): Path<String>, headers: HeaderMap| async move {
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
            let call = OutsideCall { key: key.to_owned(), tool };
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            "{\"rang\":true}"
        };
        let pages: Arc<Mutex<Shelf>> = Arc::default();
        let (shelf, edited) = (Arc::clone(&pages), Arc::clone(&pages));
        let read = move |Path(page): Path<String>| async move {
            let (edits, pause) = {
                let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
                shelf.reads += 1;
                (shelf.edits.get(&page).copied().unwrap_or(0), shelf.pause)
            };
            tokio::time::sleep(pause).await;
            match page.as_str() {
                name if name.starts_with("none") => {
                    (StatusCode::NOT_FOUND, "there is no such page".to_owned())
                }
                name if name.starts_with("empty") => (StatusCode::OK, json!({"results": []}).to_string()),
                name => {
                    let text =
                        format!("{name}, edited {edits} times. {}", "All work and no play. ".repeat(200));
                    (StatusCode::OK, json!({"id": name, "edits": edits, "text": text}).to_string())
                }
            }
        };
        let edit = move |Path(page): Path<String>| async move {
            *edited.lock().unwrap_or_else(PoisonError::into_inner).edits.entry(page).or_default() += 1;
            "{\"edited\":true}"
        };
        let router =
            Router::new().route("/ring/{tool}", post(ring)).route("/pages/{page}", get(read).post(edit));
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { url, received, pages, server })
    }

    /// How often a page was asked for.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).reads
    }

    /// From now on a read takes so long.
    pub fn slow_down(&self, pause: Duration) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).pause = pause;
    }

    /// Every call so far.
    #[must_use]
    pub fn received(&self) -> Vec<OutsideCall> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeOutside {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Ring {
    tool: &'static str,
    url: String,
    http: reqwest::Client,
}

impl OutsideTool for Ring {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, shared::Result<ToolOutput>> {
        Box::pin(async move {
            let answer = self
                .http
                .post(format!("{}/ring/{}", self.url, self.tool))
                .header("idempotency-key", call.idempotency_key)
                .timeout(Duration::from_secs(5))
                .send()
                .await;
            match answer {
                Ok(answer) if answer.status().is_success() => ToolOutput::json(&json!({"rang": true})),
                Ok(answer) => Ok(ToolOutput::error(format!("the bell answered {}", answer.status()))),
                Err(error) => {
                    Err(Error::new(Code::McpUnavailable, "the bell does not answer").with_source(error))
                }
            }
        })
    }
}

/// Kills the process that runs it, every time.
struct Poison;

impl OutsideTool for Poison {
    fn call<'a>(&'a self, _: Call<'a>) -> BoxFuture<'a, shared::Result<ToolOutput>> {
        std::process::abort()
    }
}

/// The tools that ring the server at this address: `ring_once` (a write), `ring_safely` (an idempotent write); and
/// `poison`, which says that it only reads and kills its process; and `overflow`, which runs within and asks for a date
/// that there is not.
#[must_use]
pub fn tools(url: &str) -> Vec<ToolDef> {
    let http = crate::client::http();
    let ring = |name: &'static str, effect| {
        let tool = Ring { tool: name, url: url.to_owned(), http: http.clone() };
        definition(name, effect, Arc::new(tool))
    };
    vec![
        ring("ring_once", Effect::Write),
        ring("ring_safely", Effect::IdempotentWrite),
        definition("poison", Effect::Read, Arc::new(Poison)),
        ToolDef {
            run: ToolRun::Workspace(Arc::new(overflow)),
            ..definition("overflow", Effect::Read, Arc::new(Poison))
        },
    ]
}

/// A built-in tool that gives the database a value that it cannot take.
fn overflow<'a>(tx: &'a mut TenantTx, _: &'a Value) -> BoxFuture<'a, shared::Result<ToolOutput>> {
    Box::pin(async move {
        sqlx::query("select make_date(0, 1, 1)").execute(tx.connection()).await?;
        Ok(ToolOutput::error("there is no year 0"))
    })
}

fn definition(name: &'static str, effect: Effect, tool: Arc<dyn OutsideTool>) -> ToolDef {
    ToolDef {
        name: name.into(),
        description: "Rings a bell of the test.".into(),
        effect,
        input: json!({"type": "object"}),
        output: None,
        resource: None,
        run: ToolRun::Outside(tool),
    }
}

/// A tool that asks for a page, or has it edited.
struct Pages {
    url: String,
    http: reqwest::Client,
    edits: bool,
}

impl OutsideTool for Pages {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, shared::Result<ToolOutput>> {
        Box::pin(async move {
            let page = call.arguments["id"].as_str().unwrap_or("none");
            let url = format!("{}/pages/{page}", self.url);
            let request = if self.edits { self.http.post(url) } else { self.http.get(url) };
            let away = |error| Error::new(Code::McpUnavailable, "the pages are away").with_source(error);
            let answer = request.timeout(Duration::from_secs(10)).send().await.map_err(away)?;
            let refused = !answer.status().is_success();
            let content = answer.text().await.map_err(away)?;
            Ok(ToolOutput { content, is_error: refused, ..ToolOutput::default() })
        })
    }
}

/// The tools of a server `pages` with the process's cache in front of it: `pages.get_page` reads and `pages.edit_page`
/// writes, both by `id`.
#[must_use]
pub fn cached_tools(url: &str, cache: &ToolCache) -> Vec<ToolDef> {
    let http = crate::client::http();
    let tool = |name: &'static str, effect| {
        let known_as = KnownAs {
            server: "pages".to_owned(),
            tool: name.to_owned(),
            version: "1".to_owned(),
            effect,
            scope: Scope::User,
            rules: Arc::default(),
        };
        let pages = Pages { url: url.to_owned(), http: http.clone(), edits: effect != Effect::Read };
        definition(name, effect, cache::through(cache.clone(), known_as, Arc::new(pages)))
    };
    vec![tool("pages.get_page", Effect::Read), tool("pages.edit_page", Effect::Write)]
}
