//! Something beyond the database that tools ring: it keeps every call with its key, and the tools that call it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{Router, extract::Path, http::HeaderMap, routing::post};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use shared::{
    db::TenantTx,
    error::{Code, Error},
    tools::{Effect, OutsideCall as Call, OutsideTool, ToolDef, ToolOutput, ToolRun},
};

use crate::oracle::OutsideCall;

/// A server that remembers who rang.
pub struct FakeOutside {
    /// `http://127.0.0.1:port`
    pub url: String,
    received: Arc<Mutex<Vec<OutsideCall>>>,
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
        let router = Router::new().route("/ring/{tool}", post(ring));
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { url, received, server })
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
