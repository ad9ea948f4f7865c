//! An agent: keeps every event that it is told of, byte for byte, and answers as the test says. Events that come together are kept
//! one by one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

/// How an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// 204.
    Well,
    /// 204, after so many milliseconds.
    Slow(u64),
    /// This status.
    Status(u16),
    /// This status, and `Retry-After`.
    After(u16, u64),
    /// Never.
    Silent,
    /// 204, once it is let go.
    Held,
    /// 200 with so many bytes.
    Long(usize),
    /// 307 to itself.
    Redirect,
    /// So many requests are refused with 503, so many taken, and again from the beginning.
    Waves(usize, usize),
    /// This status for an event with this word in it; of a batch it names them all, and takes the others.
    Names(String, u16),
    /// 500 for whatever has this word in it, be it one event or a batch.
    ChokesOn(String),
    /// 404 for batches, 204 for single events.
    KnowsNoBatches,
}

/// An event as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request's headers.
    pub headers: HeaderMap,
    /// What was said of the event.
    pub body: String,
    /// The request's body, byte for byte.
    pub whole: String,
    /// Which request it came by, counted from none.
    pub request: usize,
    /// It came by the address for batches.
    pub in_batch: bool,
    /// What the agent answered for it, when it is decided at once.
    pub answered: Option<u16>,
    /// When.
    pub at: Instant,
}

impl Received {
    /// What was said of the event.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The event's id.
    #[must_use]
    pub fn event_id(&self) -> String {
        self.json()["event_id"].as_str().unwrap_or_default().to_owned()
    }

    /// The agent said that it has it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.answered.is_some_and(|status| (200..300).contains(&status))
    }
}

struct Shared {
    manner: Mutex<Manner>,
    received: Mutex<Vec<Received>>,
    requests: AtomicUsize,
    /// Requests since its manner was last set.
    since: AtomicUsize,
    told: Notify,
    released: Notify,
}

/// An agent on loopback.
pub struct FakeAgent {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl FakeAgent {
    /// Starts on a free port.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(manner: Manner) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            received: Mutex::default(),
            requests: AtomicUsize::new(0),
            since: AtomicUsize::new(0),
            told: Notify::new(),
            released: Notify::new(),
        });
        let router = Router::new()
            .route("/context/update", post(update))
            .route("/context/update/batch", post(update_batch))
            .route("/health", get(async || "fine"))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { endpoint, shared, server })
    }

    /// From now on it answers so.
    pub fn set(&self, manner: Manner) {
        let mut current = self.shared.manner.lock().unwrap_or_else(PoisonError::into_inner);
        *current = manner;
        self.shared.since.store(0, Ordering::SeqCst);
    }

    /// Lets what is held be answered.
    pub fn release(&self) {
        self.shared.released.notify_waiters();
    }

    /// Every event so far, in the order in which they came.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many events have come.
    ///
    /// # Errors
    /// They have not within the time.
    pub async fn until(&self, count: usize, within: Duration) -> Result<Vec<Received>> {
        let deadline = Instant::now() + within;
        loop {
            let told = self.shared.told.notified();
            let received = self.received();
            if received.len() >= count {
                return Ok(received);
            }
            let in_time = tokio::time::timeout_at(deadline, told).await.is_ok();
            ensure!(in_time, "of {count} deliveries {} came within {within:?}", received.len());
        }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn update(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&shared, headers, &body, false).await
}

async fn update_batch(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&shared, headers, &body, true).await
}

async fn answer(shared: &Shared, headers: HeaderMap, body: &Bytes, in_batch: bool) -> Response {
    // Before the test hears of it, and may change it for the next one.
    let (manner, since) = {
        let manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner);
        (manner.clone(), shared.since.fetch_add(1, Ordering::SeqCst))
    };
    // Before the test hears of it, and lets it go.
    let released = shared.released.notified();
    tokio::pin!(released);
    released.as_mut().enable();
    let whole = String::from_utf8_lossy(body).into_owned();
    let events: Vec<String> = if in_batch {
        let json: Value = serde_json::from_str(&whole).unwrap_or(Value::Null);
        json["events"].as_array().into_iter().flatten().map(Value::to_string).collect()
    } else {
        vec![whole.clone()]
    };
    let decide = |event: &str| decide(&manner, event, &whole, since, in_batch);
    let request = shared.requests.fetch_add(1, Ordering::SeqCst);
    let at = Instant::now();
    let received: Vec<Received> = events
        .into_iter()
        .map(|event| Received {
            headers: headers.clone(),
            answered: decide(&event),
            body: event,
            whole: whole.clone(),
            request,
            in_batch,
            at,
        })
        .collect();
    let response = respond(&manner, &received);
    shared.received.lock().unwrap_or_else(PoisonError::into_inner).extend(received);
    shared.told.notify_waiters();
    match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Held => released.await,
        Manner::Slow(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
        _ => {}
    }
    response
}

/// What is answered for an event, once anything is.
fn decide(manner: &Manner, event: &str, whole: &str, since: usize, in_batch: bool) -> Option<u16> {
    Some(match manner {
        Manner::Well | Manner::Slow(_) | Manner::Held => 204,
        Manner::Silent => return None,
        Manner::Status(code) | Manner::After(code, _) => *code,
        Manner::Long(_) => 200,
        Manner::Redirect => 307,
        Manner::Waves(down, up) => {
            if since % (down + up) < *down {
                503
            } else {
                204
            }
        }
        Manner::Names(word, code) if event.contains(word.as_str()) => *code,
        Manner::ChokesOn(word) if whole.contains(word.as_str()) => 500,
        Manner::KnowsNoBatches if in_batch => 404,
        Manner::Names(..) | Manner::ChokesOn(_) | Manner::KnowsNoBatches => 204,
    })
}

fn respond(manner: &Manner, received: &[Received]) -> Response {
    let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let all = received.first().and_then(|first| first.answered).map_or(StatusCode::NO_CONTENT, status);
    match manner {
        Manner::Names(..) if received.iter().any(|one| one.in_batch) => {
            let named: Vec<Value> = received
                .iter()
                .map(|one| json!({"event_id": one.event_id(), "status": one.answered, "detail": "as the test says"}))
                .collect();
            Json(json!({ "results": named })).into_response()
        }
        Manner::After(_, seconds) => (all, [(header::RETRY_AFTER, seconds.to_string())]).into_response(),
        Manner::Long(bytes) => "x".repeat(*bytes).into_response(),
        Manner::Redirect => (all, [(header::LOCATION, "/context/update")]).into_response(),
        _ if all == StatusCode::NO_CONTENT => all.into_response(),
        _ => (all, "as the test says").into_response(),
    }
}
