//! An MCP server of somebody else, of either era of the protocol, that goes wrong in every way a real one does: it stalls,
//! breaks off, lies about sizes, changes its tools, loops its cursors, forgets sessions, refuses.

mod serve;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::oauth::FakeAuthorization;

/// Which protocol it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25: initialize, sessions.
    Legacy,
    /// 2026-07-28: no sessions, everything in each request.
    Modern,
}

/// What happens when a tool is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    /// Answers with the arguments, as text.
    Echo,
    /// Answers with this result.
    Answer(Value),
    /// Says nothing, for ever.
    Stall,
    /// Refuses with this status.
    Status(u16),
    /// Does so the first time, and echoes after that.
    StatusOnce(u16),
    /// A JSON-RPC error.
    Error(i64, &'static str),
    /// Begins an event and closes the connection.
    Cut,
    /// Announces more bytes than it sends.
    Short,
    /// So many bytes of text.
    Huge(usize),
    /// Reports progress so often, with a pause before each, then echoes.
    Progress(usize, Duration),
}

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeTool {
    definition: Value,
    behaviour: Behaviour,
}

impl FakeTool {
    /// A tool that says nothing of what it does.
    #[must_use]
    pub fn new(name: &str, behaviour: Behaviour) -> Self {
        let definition = json!({
            "name": name, "description": format!("The {name} of a test."),
            "inputSchema": {"type": "object", "properties": {"query": {"type": "string"}}},
        });
        Self { definition, behaviour }
    }

    /// One that says that it only reads.
    #[must_use]
    pub fn reads(name: &str, behaviour: Behaviour) -> Self {
        Self::new(name, behaviour).with("annotations", json!({"readOnlyHint": true}))
    }

    /// One that says that it writes and destroys nothing.
    #[must_use]
    pub fn writes(name: &str, behaviour: Behaviour) -> Self {
        Self::new(name, behaviour).with("annotations", json!({"destructiveHint": false}))
    }

    /// The same with another member of its definition.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.definition[member] = value;
        self
    }
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct ReceivedRpc {
    /// `tools/call` and the like.
    pub method: String,
    /// The body.
    pub body: Value,
    /// In lower case.
    pub headers: BTreeMap<String, String>,
}

impl ReceivedRpc {
    /// A header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a fake does besides its tools.
#[derive(Debug, Clone, Default)]
struct Faults {
    discovery: Option<(u16, String)>,
    bearer: Option<String>,
    everything: Option<u16>,
    loops: bool,
    pages: usize,
}

/// Whose tokens are wanted.
#[derive(Clone)]
struct Guard {
    issuer: String,
    accepts: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

struct State {
    base: String,
    era: Era,
    guard: Mutex<Option<Guard>>,
    tools: Mutex<Vec<FakeTool>>,
    faults: Mutex<Faults>,
    received: Mutex<Vec<ReceivedRpc>>,
    sessions: Mutex<Vec<String>>,
    calls_by_tool: Mutex<BTreeMap<String, usize>>,
    given_up: Mutex<Vec<String>>,
    heard: Notify,
    changed: watch::Sender<u64>,
}

/// A running one.
pub struct FakeMcp {
    /// Its endpoint.
    pub url: String,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeMcp {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(era: Era, tools: Vec<FakeTool>) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let url = format!("{base}/mcp");
        let state = Arc::new(State {
            base,
            era,
            guard: Mutex::default(),
            tools: Mutex::new(tools),
            faults: Mutex::default(),
            received: Mutex::default(),
            sessions: Mutex::default(),
            calls_by_tool: Mutex::default(),
            given_up: Mutex::default(),
            heard: Notify::new(),
            changed: watch::channel(0).0,
        });
        let router = serve::router(Arc::clone(&state));
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { url, state, server })
    }

    /// Other tools from now on; whoever listens is told.
    pub fn set_tools(&self, tools: Vec<FakeTool>) {
        *locked(&self.state.tools) = tools;
        self.state.changed.send_modify(|version| *version += 1);
    }

    /// Wants this bearer token from now on.
    pub fn want_bearer(&self, token: &str) {
        locked(&self.state.faults).bearer = Some(token.to_owned());
    }

    /// Wants a good token of this authorization server from now on, and says so to whoever has none.
    pub fn want_tokens_of(&self, authorization: &FakeAuthorization) {
        let accepts = Arc::new(authorization.accepts());
        *locked(&self.state.guard) = Some(Guard { issuer: authorization.url.clone(), accepts });
    }

    /// Answers everything with this status from now on; none: as usual.
    pub fn refuse_everything(&self, status: Option<u16>) {
        locked(&self.state.faults).everything = status;
    }

    /// Answers so when it is asked in a newer way than it knows.
    pub fn answer_discovery(&self, status: u16, body: &str) {
        locked(&self.state.faults).discovery = Some((status, body.to_owned()));
    }

    /// Gives the same cursor again and again.
    pub fn loop_cursors(&self) {
        locked(&self.state.faults).loops = true;
    }

    /// Spreads its tools over so many pages of a list, all alike.
    pub fn endless_pages(&self, pages: usize) {
        locked(&self.state.faults).pages = pages;
    }

    /// Forgets all sessions, as a restart does.
    pub fn forget_sessions(&self) {
        locked(&self.state.sessions).clear();
    }

    /// Every request so far.
    #[must_use]
    pub fn received(&self) -> Vec<ReceivedRpc> {
        locked(&self.state.received).clone()
    }

    /// Every request of this method so far.
    #[must_use]
    pub fn received_of(&self, method: &str) -> Vec<ReceivedRpc> {
        self.received().into_iter().filter(|request| request.method == method).collect()
    }

    /// The names of tools whose calls were given up by whoever made them.
    #[must_use]
    pub fn given_up(&self) -> Vec<String> {
        locked(&self.state.given_up).clone()
    }

    /// Waits until something holds; false when it does not in time.
    pub async fn until(&self, within: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let heard = self.state.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            if holds(self) {
                return true;
            }
            if tokio::time::timeout_at(deadline, heard).await.is_err() {
                return holds(self);
            }
        }
    }
}

impl Drop for FakeMcp {
    fn drop(&mut self) {
        self.server.abort();
    }
}
