//! A client that costs next to nothing: one socket a connection, kept open, and no more parsing than measuring needs.
//!
//! The clients of tests keep every byte and check everything; here each instruction is taken from the product, which
//! runs on the same processors.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// Nothing that a section waits for takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection to the API.
pub(super) struct Connection {
    socket: TcpStream,
    key: String,
    /// Received and not yet used.
    received: Vec<u8>,
}

/// An accepted turn.
pub(super) struct Posted {
    pub(super) job: String,
    pub(super) session: String,
}

/// When a stream brought what is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) first_token: Instant,
    pub(super) done: Instant,
}

/// An event's number within its turn, and when it came, in microseconds since 1970.
pub(super) type Arrival = (i64, i64);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Refused.
    pub(super) async fn open(address: SocketAddr, key: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("the api takes no connection")?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, key: key.to_owned(), received: Vec::new() })
    }

    /// Posts a turn, in a new conversation without a session.
    ///
    /// # Errors
    /// Any answer but 202.
    pub(super) async fn post(&mut self, message: &str, session: Option<&str>) -> Result<Posted> {
        let mut body = serde_json::json!({"messages": [{"role": "user", "content": message}]});
        if let Some(session) = session {
            body["session"] = session.into();
        }
        self.post_body(&body).await
    }

    /// Posts a turn with this body.
    ///
    /// # Errors
    /// Any answer but 202.
    pub(super) async fn post_body(&mut self, body: &serde_json::Value) -> Result<Posted> {
        let body = body.to_string();
        let head = format!(
            "POST /chat HTTP/1.1\r\nhost: bench\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        tokio::time::timeout(PATIENCE, self.exchange(&head)).await.context("POST /chat is not answered")?
    }

    /// Gets a document, and answers its length.
    ///
    /// # Errors
    /// Any answer but 200.
    pub(super) async fn get(&mut self, path: &str) -> Result<usize> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nx-api-key: {}\r\n\r\n", self.key);
        let answered = tokio::time::timeout(PATIENCE, self.answer(&request)).await;
        let (status, body) = answered.with_context(|| format!("GET {path} is not answered"))??;
        if status != 200 {
            bail!("GET {path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body.len())
    }

    /// Posts a JSON document.
    ///
    /// # Errors
    /// Any answer but 201.
    pub(super) async fn create(&mut self, path: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let answered = tokio::time::timeout(PATIENCE, self.answer(&request)).await;
        let (status, body) = answered.with_context(|| format!("POST {path} is not answered"))??;
        if status != 201 {
            bail!("POST {path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    /// Sends a message to the MCP server, and reads its answer.
    ///
    /// # Errors
    /// Anything but a result that is no error.
    pub(super) async fn call_tool(&mut self, message: &str) -> Result<()> {
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n\
             content-length: {}\r\n\r\n{message}",
            self.key,
            message.len()
        );
        let answered = tokio::time::timeout(PATIENCE, self.answer(&request)).await;
        let (status, body) = answered.context("POST /mcp is not answered")??;
        if status != 200 || !contains(&body, b"\"isError\":false") {
            bail!("POST /mcp: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    /// Sends a request, and reads an answer of a known length.
    async fn answer(&mut self, request: &str) -> Result<(u16, Vec<u8>)> {
        self.socket.write_all(request.as_bytes()).await?;
        let (status, head) = self.head().await?;
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
            .context("an answer without a length")?;
        while self.received.len() < length {
            self.read().await?;
        }
        Ok((status, self.received.drain(..length).collect()))
    }

    async fn exchange(&mut self, request: &str) -> Result<Posted> {
        let (status, body) = self.answer(request).await?;
        if status != 202 {
            bail!("POST /chat: {status} {}", String::from_utf8_lossy(&body));
        }
        let body = String::from_utf8(body)?;
        let member = |name: &str| {
            let start = body.find(&format!("\"{name}\":\""))? + name.len() + 4;
            Some(body[start..].split('"').next()?.to_owned())
        };
        let job = member("jobId").with_context(|| format!("no jobId in {body}"))?;
        let session = member("session").with_context(|| format!("no session in {body}"))?;
        Ok(Posted { job, session })
    }

    /// Opens the event stream of a job, or of a session with `follow=true`.
    ///
    /// # Errors
    /// Any answer but 200.
    pub(super) async fn follow(&mut self, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nx-api-key: {}\r\n\r\n", self.key);
        let answered = async {
            self.socket.write_all(request.as_bytes()).await?;
            self.head().await
        };
        let (status, _) = tokio::time::timeout(PATIENCE, answered)
            .await
            .with_context(|| format!("GET {path} is not answered"))??;
        if status != 200 {
            bail!("GET {path}: {status}");
        }
        Ok(())
    }

    /// Reads the open stream up to `done`.
    ///
    /// # Errors
    /// The stream ends before.
    pub(super) async fn until_done(&mut self) -> Result<Seen> {
        tokio::time::timeout(PATIENCE, self.events_until_done()).await.context("no done event came")?
    }

    async fn events_until_done(&mut self) -> Result<Seen> {
        let mut first_token = None;
        loop {
            if first_token.is_none() && contains(&self.received, b"event: token") {
                first_token = Some(Instant::now());
            }
            if let Some(at) = position(&self.received, b"event: done") {
                let now = Instant::now();
                while !contains(&self.received[at..], b"\n\n") {
                    self.read().await?;
                }
                let end = at + position(&self.received[at..], b"\n\n").unwrap_or(0);
                self.received.drain(..end);
                return Ok(Seen { first_token: first_token.unwrap_or(now), done: now });
            }
            // Enough for a name that is cut in two.
            let old = self.received.len().saturating_sub(16);
            self.received.drain(..old);
            self.read().await?;
        }
    }

    /// Reads the rest of a job's stream after `done`, so that the connection can be used again.
    ///
    /// # Errors
    /// The connection breaks.
    pub(super) async fn until_end(&mut self) -> Result<()> {
        let end = async {
            // The last chunk of the body.
            while !self.received.ends_with(b"0\r\n\r\n") {
                self.read().await?;
            }
            self.received.clear();
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, end).await.context("a stream does not end after done")?
    }

    /// Reads the open stream up to `done`, or up to so many tokens, and notes when each event came.
    ///
    /// # Errors
    /// The stream ends before.
    pub(super) async fn arrivals(&mut self, mut tokens: usize, noted: &mut Vec<Arrival>) -> Result<()> {
        loop {
            let now = now_micros();
            let (mut used, mut is_over) = (0, false);
            while let Some(end) = position(&self.received[used..], b"\n\n") {
                let frame = &self.received[used..used + end];
                if let Some(number) = number_of(frame) {
                    noted.push((number, now));
                }
                is_over |= contains(frame, b"event: done");
                tokens = tokens.saturating_sub(usize::from(contains(frame, b"event: token")));
                used += end + 2;
            }
            self.received.drain(..used);
            if is_over || tokens == 0 {
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn head(&mut self) -> Result<(u16, String)> {
        loop {
            if let Some(end) = position(&self.received, b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                let head = String::from_utf8(head)?.to_ascii_lowercase();
                let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
                return Ok((status, head));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.socket.read_buf(&mut self.received).await? == 0 {
            bail!("the api closed a connection");
        }
        Ok(())
    }
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    position(text, wanted).is_some()
}

/// The second half of `id: 3.17`.
fn number_of(frame: &[u8]) -> Option<i64> {
    let start = position(frame, b"id: ")? + 4;
    let id = frame[start..].split(|&byte| byte == b'\n').next()?;
    std::str::from_utf8(id).ok()?.split_once('.')?.1.parse().ok()
}

/// The time of day, as Postgres has it on the same machine.
pub(super) fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
