//! Following a stream: whole, cut at chosen points, slowly, or across restarts.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::Instant,
};

use super::{Client, Frame, FrameParser, Piece, Transcript};

/// How fast to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it comes.
    Free,
    /// So many bytes, then so long a pause, over a socket with the least receive buffer.
    Slow(usize, Duration),
}

/// Asked after each event whether to cut the connection; shown all events so far.
type CutWhen = Box<dyn FnMut(&[Frame]) -> bool + Send>;

/// How one connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The server ended the stream as it should.
    Closed,
    /// We cut it, as asked.
    Cut,
    /// The connection broke, or was refused.
    Broken(String),
    /// Another status than 200, with its body.
    Status(u16, String),
}

/// A reader that is being described, then run.
pub struct Follow {
    client: Client,
    path: String,
    bases: Vec<String>,
    last_event_id: Option<String>,
    cut_after: CutWhen,
    pace: Pace,
    within: Duration,
    transcript: Transcript,
    /// `retry:` values that were sent.
    pub retries: Vec<u64>,
    /// How many comments were sent.
    pub comments: usize,
}

impl Follow {
    pub(super) fn new(client: Client, path: String) -> Self {
        let shown = path.split("session=").next().unwrap_or_default().to_owned();
        let transcript = Transcript {
            tenant: client.tenant.clone(),
            path: shown,
            from_start: true,
            ..Transcript::default()
        };
        Self {
            bases: vec![client.base.clone()],
            client,
            path,
            last_event_id: None,
            cut_after: Box::new(|_| false),
            pace: Pace::Free,
            within: Duration::from_secs(20),
            transcript,
            retries: Vec::new(),
            comments: 0,
        }
    }

    /// Connects to these API processes in turn, one a connection.
    #[must_use]
    pub fn over(mut self, bases: &[String]) -> Self {
        self.bases = bases.to_vec();
        self
    }

    /// Starts after this event.
    #[must_use]
    pub fn after(mut self, id: &str) -> Self {
        self.last_event_id = Some(id.to_owned());
        self.transcript.from_start = false;
        self
    }

    /// Cuts the connection whenever this says so; it is shown all frames so far after each new one.
    #[must_use]
    pub fn cut_when(mut self, cut: impl FnMut(&[Frame]) -> bool + Send + 'static) -> Self {
        self.cut_after = Box::new(cut);
        self
    }

    /// Reads at this pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Gives up after so long.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &Transcript {
        &self.transcript
    }

    /// One connection, until it ends or is cut. `stop` is asked after each event as well.
    ///
    /// # Errors
    /// Time is up.
    pub async fn connect_once(&mut self) -> Result<Ending> {
        let deadline = Instant::now() + self.within;
        match tokio::time::timeout_at(deadline, self.connection()).await {
            Ok(ending) => Ok(ending),
            Err(_) => bail!(
                "{} did not end within {:?}; last event {:?}",
                self.transcript.path,
                self.within,
                self.transcript.frames.last().map(|frame| (&frame.id, &frame.event))
            ),
        }
    }

    /// Follows to the `done` event over as many connections as it takes, as a browser does; notes the transcript.
    ///
    /// # Errors
    /// Time is up, or an answer that makes a browser give up.
    pub async fn to_done(self) -> Result<Transcript> {
        self.until(|frames| frames.last().is_some_and(|frame| frame.event == "done")).await
    }

    /// Follows until this says that it is enough; notes the transcript.
    ///
    /// # Errors
    /// Time is up, or an answer that makes a browser give up.
    pub async fn until(mut self, mut enough: impl FnMut(&[Frame]) -> bool) -> Result<Transcript> {
        let deadline = Instant::now() + self.within;
        let outcome = tokio::time::timeout_at(deadline, async {
            loop {
                let ending = self.connection_until(&mut enough).await;
                if enough(&self.transcript.frames) {
                    return Ok(());
                }
                match ending {
                    Ending::Status(204, _) => bail!("204 before the end of {}", self.transcript.path),
                    Ending::Status(status, body) if status < 500 && status != 429 => {
                        bail!("{} answered {status} {body}", self.transcript.path)
                    }
                    Ending::Status(..) | Ending::Broken(_) => {
                        tokio::time::sleep(Duration::from_millis(50)).await
                    }
                    Ending::Closed | Ending::Cut => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        let transcript = std::mem::take(&mut self.transcript);
        self.client.ledger().note_transcript(transcript.clone());
        match outcome {
            Ok(outcome) => outcome.map(|()| transcript),
            Err(_) => bail!(
                "{} is not at its end within {:?} after {} connections; seen: {:?}",
                transcript.path,
                self.within,
                transcript.connects,
                transcript.frames.iter().map(|frame| (&frame.id, &frame.event)).collect::<Vec<_>>()
            ),
        }
    }

    async fn connection(&mut self) -> Ending {
        self.connection_until(&mut |_| false).await
    }

    async fn connection_until(&mut self, enough: &mut impl FnMut(&[Frame]) -> bool) -> Ending {
        let base = self.bases[self.transcript.connects % self.bases.len()].clone();
        self.transcript.connects += 1;
        let outcome = match self.pace {
            Pace::Free => self.read_freely(&base, enough).await,
            Pace::Slow(bytes, pause) => self.read_slowly(&base, bytes, pause, enough).await,
        };
        outcome.unwrap_or_else(|error| Ending::Broken(format!("{error:#}")))
    }

    async fn read_freely(&mut self, base: &str, enough: &mut impl FnMut(&[Frame]) -> bool) -> Result<Ending> {
        let mut request = self
            .client
            .http
            .get(format!("{base}{}", self.path))
            .header("x-api-key", self.client.key())
            .header("accept", "text/event-stream");
        if let Some(id) = &self.last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Ok(Ending::Status(status, response.text().await.unwrap_or_default()));
        }
        let mut parser = FrameParser::default();
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            if let Some(ending) = self.take(&mut parser, &chunk.context("the stream broke")?, enough) {
                return Ok(ending);
            }
        }
        Ok(Ending::Closed)
    }

    /// By hand over a socket, so that nothing below us reads ahead.
    async fn read_slowly(
        &mut self,
        base: &str,
        bytes: usize,
        pause: Duration,
        enough: &mut impl FnMut(&[Frame]) -> bool,
    ) -> Result<Ending> {
        let address: std::net::SocketAddr = base.trim_start_matches("http://").parse()?;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1024)?;
        let mut socket = socket.connect(address).await?;
        let resume =
            self.last_event_id.as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\n{resume}connection: close\r\n\r\n",
            self.path,
            self.client.key()
        );
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Ok(Ending::Status(head.get(9..12).unwrap_or_default().parse().unwrap_or(0), head));
        }
        let mut chunks = head.contains("transfer-encoding: chunked").then(Unchunk::default);
        let mut parser = FrameParser::default();
        let mut buffer = vec![0; bytes];
        loop {
            let read = socket.read(&mut buffer).await?;
            if read == 0 {
                return Ok(Ending::Closed);
            }
            let data = match &mut chunks {
                Some(chunks) => chunks.feed(&buffer[..read]),
                None => buffer[..read].to_vec(),
            };
            if let Some(ending) = self.take(&mut parser, &data, enough) {
                return Ok(ending);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn take(
        &mut self,
        parser: &mut FrameParser,
        bytes: &[u8],
        enough: &mut impl FnMut(&[Frame]) -> bool,
    ) -> Option<Ending> {
        for piece in parser.feed(bytes) {
            match piece {
                Piece::Event(frame) => {
                    self.last_event_id = Some(frame.id.clone());
                    self.transcript.frames.push(frame);
                    let cut = (self.cut_after)(&self.transcript.frames);
                    if cut || enough(&self.transcript.frames) {
                        return Some(Ending::Cut);
                    }
                }
                Piece::Retry(milliseconds) => self.retries.push(milliseconds),
                Piece::Comment(_) => self.comments += 1,
                Piece::Other(raw) => self.transcript.strays.push(String::from_utf8_lossy(&raw).into_owned()),
            }
        }
        None
    }

    /// Notes what was seen and gives it back, wherever the stream stands.
    #[must_use]
    pub fn finish(mut self) -> Transcript {
        let transcript = std::mem::take(&mut self.transcript);
        Arc::clone(self.client.ledger()).note_transcript(transcript.clone());
        transcript
    }
}

/// Takes HTTP/1.1 chunk framing off.
#[derive(Default)]
struct Unchunk {
    line: Vec<u8>,
    left: usize,
}

impl Unchunk {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        for &byte in bytes {
            if self.left > 0 {
                data.push(byte);
                self.left -= 1;
                continue;
            }
            // Between chunks: the CRLF that ends one, then the next one's size in hexadecimal and a CRLF.
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).trim().to_owned();
                self.line.clear();
                if !line.is_empty() {
                    self.left = usize::from_str_radix(&line, 16).unwrap_or(0);
                }
            } else {
                self.line.push(byte);
            }
        }
        data
    }
}
