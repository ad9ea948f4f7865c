//! Server-sent events as providers send them: bounded, strict, and never silent for longer than allowed.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{
    ModelError,
    http::{Endpoint, root_cause},
};

/// The largest whole reply, in bytes.
const MAX_STREAM: usize = 64 * 1024 * 1024;

/// One event: its name (empty if it has none) and its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
}

/// Splits bytes into events, however they were cut on their way.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Bytes not yet looked at, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    name: String,
    data: Option<String>,
    max_event: usize,
    begun: bool,
}

/// What a decoder found next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Event(Event),
    /// A comment: a sign of life.
    Comment,
    /// Nothing before more bytes arrive.
    Nothing,
}

/// Why bytes are not an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Garbage {
    NotUtf8,
    UnknownField,
    TooLong,
}

impl Garbage {
    fn describe(self) -> &'static str {
        match self {
            Self::NotUtf8 => "sent bytes that are not UTF-8",
            Self::UnknownField => "sent a line that is not part of an event",
            Self::TooLong => "sent an event larger than is accepted",
        }
    }
}

impl Decoder {
    pub(super) fn new(max_event: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, name: String::new(), data: None, max_event, begun: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event among the bytes so far.
    pub(super) fn next(&mut self) -> Result<Found, Garbage> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return if rest.len() > self.max_event { Err(Garbage::TooLong) } else { Ok(Found::Nothing) };
            };
            let skip = match (rest[end], rest.get(end + 1)) {
                (b'\r', Some(b'\n')) => 2,
                // A lone CR at the end of a chunk may be half of a CRLF.
                (b'\r', None) => return Ok(Found::Nothing),
                _ => 1,
            };
            let line = std::str::from_utf8(&rest[..end]).map_err(|_| Garbage::NotUtf8)?;
            let line = if self.begun { line } else { line.strip_prefix('\u{feff}').unwrap_or(line) };
            self.begun = true;
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            let found = match field {
                "" if line.is_empty() => {
                    let name = std::mem::take(&mut self.name);
                    self.data.take().map(|data| Found::Event(Event { name, data }))
                }
                "" => Some(Found::Comment),
                "data" => {
                    match &mut self.data {
                        Some(data) => {
                            data.push('\n');
                            data.push_str(value);
                        }
                        None => self.data = Some(value.to_owned()),
                    }
                    None
                }
                "event" => {
                    value.clone_into(&mut self.name);
                    None
                }
                "id" | "retry" => None,
                _ => return Err(Garbage::UnknownField),
            };
            self.start += end + skip;
            if self.data.as_ref().is_some_and(|data| data.len() > self.max_event) {
                return Err(Garbage::TooLong);
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
}

/// The events of one answer.
#[derive(Debug)]
pub(super) struct Events {
    response: Response,
    decoder: Decoder,
    idle_timeout: Duration,
    received: usize,
}

impl Events {
    pub(super) fn new(response: Response, endpoint: &Endpoint) -> Self {
        let decoder = Decoder::new(endpoint.max_event);
        Self { response, decoder, idle_timeout: endpoint.idle_timeout, received: 0 }
    }

    /// The next event; `None` when the provider closed the stream in good order.
    pub(super) async fn next(&mut self, endpoint: &Endpoint) -> Result<Option<Event>, ModelError> {
        let mut deadline = Instant::now() + self.idle_timeout;
        loop {
            match self.decoder.next() {
                Ok(Found::Event(event)) => return Ok(Some(event)),
                Ok(Found::Comment) => {
                    deadline = Instant::now() + self.idle_timeout;
                    continue;
                }
                Ok(Found::Nothing) => {}
                Err(garbage) => return Err(endpoint.truncated(garbage.describe())),
            }
            let chunk: Option<Bytes> = match timeout_at(deadline, self.response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    let cause = root_cause(&error);
                    return Err(endpoint.truncated("broke off in the middle of a reply").caused_by(cause));
                }
                Err(_) => return Err(endpoint.silent()),
            };
            let Some(chunk) = chunk else { return Ok(None) };
            self.received += chunk.len();
            if self.received > MAX_STREAM {
                return Err(endpoint.truncated("sent a reply larger than is accepted"));
            }
            self.decoder.push(&chunk);
        }
    }

    /// Reads to the end of the body after its end marker, so that the connection can serve the next request. Mostly
    /// the end has already arrived; otherwise it is waited for in the background, briefly.
    pub(super) fn finish(mut self) {
        match self.response.chunk().now_or_never() {
            Some(Ok(Some(_))) | None => {
                tokio::spawn(async move {
                    let rest = async { while let Ok(Some(_)) = self.response.chunk().await {} };
                    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
                });
            }
            Some(Ok(None) | Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, Garbage> {
        let mut decoder = Decoder::new(64);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            loop {
                match decoder.next()? {
                    Found::Event(event) => events.push((event.name, event.data)),
                    Found::Comment => {}
                    Found::Nothing => break,
                }
            }
        }
        Ok(events)
    }

    #[test]
    fn events_survive_any_cut() {
        let text = "\u{feff}event: a\ndata: {\"t\":\"h\u{e9}\u{1f600}\"}\n\n: ping\n\ndata:x\r\ndata: y\r\n\r\nid: 1\nretry: 5\ndata\n\n";
        let expected = vec![
            ("a".to_owned(), "{\"t\":\"h\u{e9}\u{1f600}\"}".to_owned()),
            (String::new(), "x\ny".to_owned()),
            (String::new(), String::new()),
        ];
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(decode(&chunks).as_ref(), Ok(&expected), "chunks of {size}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(decode(&[b"data: \xff\xfe\n\n"]), Err(Garbage::NotUtf8));
        assert_eq!(decode(&[b"<html>\n"]), Err(Garbage::UnknownField));
        assert_eq!(decode(&[&[b'x'; 65]]), Err(Garbage::TooLong));
        assert_eq!(
            decode(&[&b"data: 0123456789012345678901234567890123456789\n".repeat(2)]),
            Err(Garbage::TooLong)
        );
        assert_eq!(decode(&[b"data: unfinished"]), Ok(Vec::new()));
    }
}
