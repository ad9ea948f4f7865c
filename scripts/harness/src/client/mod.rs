//! A client of Alfred as its users write one, except that it forgets nothing: every answer and every event that it
//! was given goes into a [`Ledger`], byte for byte, for the oracle to compare with the database afterwards.

mod ledger;
mod sse;
mod stream;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub use self::{
    ledger::{AcceptedTurn, Ledger, Transcript, discard_after},
    sse::{Frame, FrameParser, Piece},
    stream::{Ending, Follow, Pace},
};

/// Speaks for one user of one tenant to one API process.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// `http://127.0.0.1:port`, without a slash at the end.
    pub base: String,
    key: String,
    /// A name for the tenant, unique in the run; its messages carry it, and no other tenant may ever see it.
    pub tenant: String,
    ledger: Arc<Ledger>,
}

/// What an API process answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// One header as text; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The error code of the one error shape; empty when it is none.
    #[must_use]
    pub fn error_code(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// A chat turn to be posted.
#[derive(Debug, Clone)]
pub struct Chat {
    body: Value,
    idempotency: Option<String>,
    prefer: Option<String>,
}

impl Chat {
    /// One message of the user.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            body: json!({"messages": [{"role": "user", "content": text}]}),
            idempotency: None,
            prefer: None,
        }
    }

    /// A body of one's own.
    #[must_use]
    pub fn raw(body: Value) -> Self {
        Self { body, idempotency: None, prefer: None }
    }

    /// In the conversation of this session token.
    #[must_use]
    pub fn session(mut self, token: &str) -> Self {
        self.body["session"] = json!(token);
        self
    }

    /// `enqueue`, `reject` or `interrupt`.
    #[must_use]
    pub fn on_busy(mut self, what: &str) -> Self {
        self.body["onBusy"] = json!(what);
        self
    }

    /// With an idempotency key.
    #[must_use]
    pub fn idempotency(mut self, key: &str) -> Self {
        self.idempotency = Some(key.to_owned());
        self
    }

    /// `Prefer: wait=N`.
    #[must_use]
    pub fn wait(mut self, seconds: u64) -> Self {
        self.prefer = Some(format!("wait={seconds}"));
        self
    }
}

/// An accepted turn, as the 202 or 200 names it.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The turn's id.
    pub job: String,
    /// The session token.
    pub session: String,
    /// The session's id.
    pub session_id: String,
    /// The conversation's short id.
    pub conversation: i64,
    /// The whole answer.
    pub answer: Answer,
}

impl Client {
    /// For this key, at this address; what it is told goes into the ledger under the tenant's name.
    #[must_use]
    pub fn new(base: &str, key: &str, tenant: &str, ledger: &Arc<Ledger>) -> Self {
        Self {
            http: http(),
            base: base.to_owned(),
            key: key.to_owned(),
            tenant: tenant.to_owned(),
            ledger: Arc::clone(ledger),
        }
    }

    /// The same user, at another API process.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// The same user with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Where this client's findings go.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// A request with the caller's key, not yet sent.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("tests name real methods");
        self.http
            .request(method, format!("{}{path}", self.base))
            .header("x-api-key", &self.key)
            .timeout(Duration::from_secs(40))
    }

    /// Sends it and notes the answer.
    ///
    /// # Errors
    /// No answer: refused, cut, timed out.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let response = request.send().await.context("no answer")?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.text().await.context("the answer was cut")?;
        self.ledger.note_answer(&self.tenant, &body);
        Ok(Answer { status, headers, body })
    }

    /// GET.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request("GET", path)).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(self.request("POST", path).json(body)).await
    }

    /// POST /chat, whatever the answer.
    ///
    /// # Errors
    /// No answer.
    pub async fn chat(&self, chat: &Chat) -> Result<Answer> {
        let mut request = self.request("POST", "/chat").json(&chat.body);
        if let Some(key) = &chat.idempotency {
            request = request.header("idempotency-key", key);
        }
        if let Some(prefer) = &chat.prefer {
            request = request.header("prefer", prefer);
        }
        let answer = self.send(request).await?;
        if matches!(answer.status, 200 | 202)
            && let Some(job) = answer.json()["jobId"].as_str()
        {
            self.ledger.note_accepted(&self.tenant, job);
        }
        Ok(answer)
    }

    /// POST /chat, which must be accepted.
    ///
    /// # Errors
    /// No answer, or any other than 200 or 202.
    pub async fn accept(&self, chat: &Chat) -> Result<Posted> {
        let answer = self.chat(chat).await?;
        Self::posted(answer)
    }

    /// Reads an accepted turn out of an answer.
    ///
    /// # Errors
    /// Any answer but a 200 or 202 of the right shape.
    pub fn posted(answer: Answer) -> Result<Posted> {
        if !matches!(answer.status, 200 | 202) {
            bail!("the turn was not accepted: {} {}", answer.status, answer.body);
        }
        let json = answer.json();
        let text = |name: &str| {
            json[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {}", answer.body))
        };
        Ok(Posted {
            job: text("jobId")?,
            session: text("session")?,
            session_id: text("sessionId")?,
            conversation: json["conversationId"].as_i64().context("no conversationId")?,
            answer,
        })
    }

    /// POST /chat again and again until an API process takes it: what an application does during a restart. The
    /// idempotency key makes it safe.
    ///
    /// # Errors
    /// A refusal that no retry mends, or no acceptance within the time.
    pub async fn accept_stubbornly(&self, chat: &Chat, within: Duration) -> Result<Posted> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let last = match self.chat(chat).await {
                Ok(answer) if matches!(answer.status, 200 | 202) => return Self::posted(answer),
                Ok(answer) if answer.status < 500 && answer.status != 429 => {
                    bail!("the turn was refused: {} {}", answer.status, answer.body)
                }
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            if tokio::time::Instant::now() > deadline {
                bail!("no API process took the turn within {within:?}; the last answer was {last}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// GET /jobs/{id} as JSON.
    ///
    /// # Errors
    /// No answer, or any but 200.
    pub async fn job(&self, job: &str) -> Result<Value> {
        let answer = self.get(&format!("/jobs/{job}")).await?;
        if answer.status != 200 {
            bail!("GET /jobs/{job}: {} {}", answer.status, answer.body);
        }
        Ok(answer.json())
    }

    /// Polls the job until its status is one of these.
    ///
    /// # Errors
    /// It is not within the time.
    pub async fn until(&self, job: &str, statuses: &[&str], within: Duration) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            // During a restart of the database or of the API there may be no answer; the deadline decides.
            let last = match self.job(job).await {
                Ok(view) if view["status"].as_str().is_some_and(|status| statuses.contains(&status)) => {
                    return Ok(view);
                }
                Ok(view) => view.to_string(),
                Err(error) => format!("{error:#}"),
            };
            if tokio::time::Instant::now() > deadline {
                bail!("job {job} is not {statuses:?} after {within:?}: {last}");
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// POST /jobs/{id}/cancel.
    ///
    /// # Errors
    /// No answer.
    pub async fn cancel(&self, job: &str) -> Result<Answer> {
        self.send(self.request("POST", &format!("/jobs/{job}/cancel"))).await
    }

    /// POST /jobs/{id}/retry; an accepted one is a new turn.
    ///
    /// # Errors
    /// No answer.
    pub async fn retry(&self, job: &str) -> Result<Answer> {
        let answer = self.send(self.request("POST", &format!("/jobs/{job}/retry"))).await?;
        if answer.status == 202
            && let Some(job) = answer.json()["jobId"].as_str()
        {
            self.ledger.note_accepted(&self.tenant, job);
        }
        Ok(answer)
    }

    /// POST /jobs/{id}/approvals/{call}.
    ///
    /// # Errors
    /// No answer.
    pub async fn decide(&self, job: &str, call: &str, decision: &str) -> Result<Answer> {
        self.post(
            &format!("/jobs/{job}/approvals/{call}"),
            &json!({"decision": decision, "reason": "a test"}),
        )
        .await
    }

    /// Follows the events of a job.
    #[must_use]
    pub fn follow(&self, job: &str) -> Follow {
        Follow::new(self.clone(), format!("/jobs/{job}/events"))
    }

    /// Follows the session's stream; with `follow`, across turns.
    #[must_use]
    pub fn follow_session(&self, token: &str, across_turns: bool) -> Follow {
        let more = if across_turns { "&follow=true" } else { "" };
        Follow::new(self.clone(), format!("/chat/stream?session={}{more}", percent_encode(token)))
    }

    /// The caller's key, for requests written by hand.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A client for loopback.
#[must_use]
pub fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .http1_only()
        .pool_max_idle_per_host(64)
        .connect_timeout(Duration::from_secs(5))
        .build()
        .expect("a client without settings that can be wrong is always built")
}

/// For query values: everything but letters, digits, `-`, `_`, `.` and `~`.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
