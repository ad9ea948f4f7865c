//! An agent: keeps every delivery that reaches it, byte for byte, and answers as the test says.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

/// How an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// 204.
    Well,
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
}

/// A delivery as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: String,
    /// When.
    pub at: Instant,
}

impl Received {
    /// The body.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

struct Shared {
    manner: Mutex<Manner>,
    received: Mutex<Vec<Received>>,
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
            told: Notify::new(),
            released: Notify::new(),
        });
        let router = Router::new()
            .route("/context/update", post(update))
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
        *self.shared.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Lets what is held be answered.
    pub fn release(&self) {
        self.shared.released.notify_waiters();
    }

    /// Every delivery so far, in the order in which they came.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many deliveries have come.
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
    // Before the test hears of it, and may change it for the next one.
    let manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Before the test hears of it, and lets it go.
    let released = shared.released.notified();
    tokio::pin!(released);
    released.as_mut().enable();
    let received =
        Received { headers, body: String::from_utf8_lossy(&body).into_owned(), at: Instant::now() };
    shared.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    shared.told.notify_waiters();
    let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match manner {
        Manner::Well => StatusCode::NO_CONTENT.into_response(),
        Manner::Status(code) => (status(code), "as the test says").into_response(),
        Manner::After(code, seconds) => {
            (status(code), [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Manner::Silent => std::future::pending().await,
        Manner::Held => {
            released.await;
            StatusCode::NO_CONTENT.into_response()
        }
        Manner::Long(bytes) => "x".repeat(bytes).into_response(),
        Manner::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/context/update")]).into_response()
        }
    }
}
