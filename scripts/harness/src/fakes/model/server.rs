//! The server and the handle that a test holds.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use shared::model::Usage;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    Gate, Outcome, ReceivedRequest, Script, Served, Step, Wire,
    directives::Directives,
    record::Record,
    render::{Frame, render},
    respond::{Ending, refuse, silent, stream_frames, whole},
};

type Rule = Box<dyn Fn(&ReceivedRequest) -> Option<Script> + Send + Sync>;

/// Ready-made answers, by wire, model, tokens and reported input.
type Ready = HashMap<(Wire, String, usize, i64), Bytes>;

#[derive(Default)]
struct Shared {
    record: Arc<Record>,
    queue: Mutex<VecDeque<Script>>,
    rules: Mutex<Vec<Rule>>,
    ready: Mutex<Ready>,
    forget_requests: bool,
    connections: Arc<AtomicUsize>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running fake provider. Dropping it closes its port.
pub struct FakeModel {
    /// The address to configure as `MODEL_BASE_URL`, without a path.
    pub base_url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl FakeModel {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts at an address, for example the one a stopped fake had.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub async fn start_at(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let served = shared.clone();
        let server = tokio::spawn(async move {
            if let Err(error) = run(listener, served).await {
                tracing::error!(%error, "fake model stopped");
            }
        });
        Ok(Self { base_url, shared, server })
    }

    /// Answers the next request that no earlier script took, whatever it is.
    pub fn push(&self, script: Script) {
        lock(&self.shared.queue).push_back(script);
    }

    /// Asks `rule` about every request that the queue does not answer; newer rules are asked first.
    pub fn rule(&self, rule: impl Fn(&ReceivedRequest) -> Option<Script> + Send + Sync + 'static) {
        lock(&self.shared.rules).push(Box::new(rule));
    }

    /// The gate of that name, made when it is first mentioned.
    pub fn gate(&self, name: &str) -> Gate {
        self.shared.record.gate(name)
    }

    /// The newest 2 000 requests.
    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.shared.record.requests()
    }

    /// How every request so far ended, in order of their numbers.
    pub fn served(&self) -> Vec<Served> {
        self.shared.record.served()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests have ended so; false when `limit` passed first.
    pub async fn ended(&self, outcome: Outcome, count: usize, limit: Duration) -> bool {
        let enough = |served: &[Served]| served.iter().filter(|one| one.outcome == outcome).count() >= count;
        self.shared.record.wait(limit, enough).await
    }

    /// Waits until `count` requests have come in; false when `limit` passed first.
    pub async fn asked(&self, count: usize, limit: Duration) -> bool {
        self.shared.record.wait(limit, |served| served.len() >= count).await
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves directives only and keeps no requests: for load programs and processes of its own.
///
/// # Errors
///
/// When the listener breaks.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    run(listener, Arc::new(Shared { forget_requests: true, ..Shared::default() })).await
}

async fn run(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let route = |wire: Wire| {
        post(move |State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes| async move {
            answer(&shared, wire, &headers, body).await
        })
    };
    // For programs that have no handle, because the fake runs in a process of its own.
    let release = |State(shared): State<Arc<Shared>>, Path(gate): Path<String>| async move {
        shared.record.gate(&gate).release();
    };
    let connections = shared.connections.clone();
    let router = Router::new()
        .route("/v1/messages", route(Wire::Anthropic))
        .route("/v1/responses", route(Wire::Responses))
        .route("/v1/chat/completions", route(Wire::Chat))
        .route("/gates/{name}/release", post(release))
        .layer(DefaultBodyLimit::max(64 * 1024 * 1024))
        .with_state(shared);
    let listener = listener.tap_io(move |stream| {
        connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await
}

fn key(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    text("x-api-key").or(bearer).map(str::to_owned)
}

async fn answer(shared: &Arc<Shared>, wire: Wire, headers: &HeaderMap, body: Bytes) -> Response {
    let record = &shared.record;
    let number = record.begin();
    let Some(request) = ReceivedRequest::read(wire, number, key(headers), body) else {
        record.update(number, Outcome::Refused, None);
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !shared.forget_requests {
        record.keep(&request);
    }
    let directed = || {
        let directives = Directives::read(&request.last_user);
        if directives.is_plain(request.rounds) {
            return Err(directives.tokens);
        }
        let seen = directives.first.is_some() && record.seen(&request.last_user, request.rounds);
        Ok(directives.script(request.rounds, seen))
    };
    let chosen = match lock(&shared.queue).pop_front() {
        Some(script) => Ok(script),
        None => match lock(&shared.rules).iter().rev().find_map(|rule| rule(&request)) {
            Some(script) => Ok(script),
            None => directed(),
        },
    };
    let script = match chosen {
        Ok(script) => script,
        Err(tokens) => return plain(shared, &request, tokens),
    };
    let usage = script.usage.unwrap_or_else(|| estimate(&request, &script));
    record.update(number, Outcome::Running, Some(usage));
    let ending = Ending::new(record.clone(), number);
    if script.silent {
        return silent(ending).await;
    }
    if let Some(refusal) = &script.refusal {
        return refuse(wire, refusal, ending);
    }
    stream_frames(render(wire, &request.model, number, &script, usage), record.clone(), ending)
}

/// A reply of plain tokens, ready-made after the first time.
fn plain(shared: &Shared, request: &ReceivedRequest, tokens: usize) -> Response {
    let script = Script::new().tokens(tokens);
    // Rounded, so that few answers serve many requests.
    let exact = estimate(request, &script);
    let usage = Usage { input: (exact.input + 255) / 256 * 256, ..exact };
    let key = (request.wire, request.model.clone(), tokens, usage.input);
    let bytes = lock(&shared.ready)
        .entry(key)
        .or_insert_with(|| {
            let mut bytes = BytesMut::new();
            for frame in render(request.wire, &request.model, 0, &script, usage) {
                if let Frame::Bytes(part) = frame {
                    bytes.extend_from_slice(&part);
                }
            }
            bytes.freeze()
        })
        .clone();
    shared.record.update(request.number, Outcome::Running, Some(usage));
    whole(bytes, Ending::new(shared.record.clone(), request.number))
}

/// Four bytes of the request are a token, every delta is one, and a call is two.
fn estimate(request: &ReceivedRequest, script: &Script) -> Usage {
    let output = script.steps.iter().map(|step| match step {
        Step::Text(_) => 1,
        Step::Tokens { count, .. } => i64::try_from(*count).unwrap_or(i64::MAX),
        Step::Thinking { .. } | Step::Call { .. } => 2,
        _ => 0,
    });
    let input = i64::try_from(request.body.len().div_ceil(4)).unwrap_or(i64::MAX);
    Usage { input, output: output.sum(), ..Usage::default() }
}
