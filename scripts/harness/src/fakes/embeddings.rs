//! A stand-in for a model of embeddings, on the wire of `/embeddings`: texts that share words are alike, and so are those
//! with words that mean the same.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};

/// As many as a small model has.
const DIMENSIONS: usize = 64;
/// Words that mean the same.
const ALIKE: &[&[&str]] =
    &[&["automobile", "car", "vehicle"], &["doctor", "physician", "surgeon"], &["budget", "cash", "money"]];

/// The server, and what it was asked.
pub struct FakeEmbeddings {
    /// `http://127.0.0.1:port/v1`
    pub base_url: String,
    received: Arc<Mutex<Vec<String>>>,
    failing: Arc<AtomicU16>,
    server: tokio::task::JoinHandle<()>,
}

impl FakeEmbeddings {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No free port.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let failing: Arc<AtomicU16> = Arc::default();
        let (texts, fails) = (Arc::clone(&received), Arc::clone(&failing));
        let answer = move |Json(asked): Json<Value>| async move { answer(&asked, &texts, &fails) };
        let router = Router::new().route("/v1/embeddings", post(answer));
        let server = tokio::spawn(async move {
            // It ends with the test.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { base_url, received, failing, server })
    }

    /// Every text so far, also of requests that it refused.
    #[must_use]
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers with this status from now on; 0 is an answer again.
    pub fn fail(&self, status: u16) {
        self.failing.store(status, Ordering::SeqCst);
    }

    /// Waits until a text with this in it has come so often.
    ///
    /// # Errors
    /// It has not within the time.
    pub async fn until(&self, part: &str, times: usize, within: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let received = self.received();
            if received.iter().filter(|text| text.contains(part)).count() >= times {
                return Ok(());
            }
            anyhow::ensure!(
                tokio::time::Instant::now() < deadline,
                "{part:?} is not {times} times in {received:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for FakeEmbeddings {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn answer(asked: &Value, received: &Mutex<Vec<String>>, failing: &AtomicU16) -> Response {
    let texts: Vec<&str> =
        asked["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let owned = texts.iter().map(|text| (*text).to_owned());
    received.lock().unwrap_or_else(PoisonError::into_inner).extend(owned);
    if let Some(status) =
        StatusCode::from_u16(failing.load(Ordering::SeqCst)).ok().filter(|status| !status.is_success())
    {
        return (status, Json(json!({"error": {"type": "server_error", "message": "out of order"}})))
            .into_response();
    }
    if asked["model"].as_str().is_none()
        || texts.is_empty()
        || texts.iter().any(|text| text.contains("[[refuse]]"))
    {
        let error = json!({"error": {"type": "invalid_request_error", "message": "not that"}});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    // Backwards, as the wire allows: the index says which text it is.
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .rev()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}))
        .collect();
    let tokens = texts.iter().map(|text| text.split_whitespace().count()).sum::<usize>();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Json(json!({"object": "list", "model": asked["model"], "data": data, "usage": usage})).into_response()
}

/// One direction for each meaning, and a little of one that all texts share.
fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    vector[0] = 0.1;
    for word in text.to_lowercase().split(|letter: char| !letter.is_alphanumeric()) {
        if word.len() < 3 {
            continue;
        }
        let place = ALIKE.iter().position(|words| words.contains(&word)).map_or_else(
            || {
                let hash =
                    word.bytes().fold(7_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
                1 + ALIKE.len() + hash % (DIMENSIONS - 1 - ALIKE.len())
            },
            |place| 1 + place,
        );
        vector[place] += 1.0;
    }
    vector
}
