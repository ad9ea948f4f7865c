//! Event streams without a worker: a turn's log is `queued`, then the end that cancelling writes.

use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde_json::json;

use crate::app::{MEMBER, TestApp, say};

/// An open stream and what came so far.
pub(crate) struct Reader {
    response: futures::stream::BoxStream<'static, Result<bytes::Bytes, reqwest::Error>>,
    pub(crate) text: String,
    ended: bool,
}

impl Reader {
    pub(crate) async fn open(app: &TestApp, path: &str, last: Option<&str>) -> Self {
        Self::open_as(app, MEMBER, path, last).await
    }

    pub(crate) async fn open_as(app: &TestApp, key: &str, path: &str, last: Option<&str>) -> Self {
        let mut request = app.request(Method::GET, path).header("X-API-Key", key);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { response: response.bytes_stream().boxed(), text: String::new(), ended: false }
    }

    /// Reads until the text is there, or to the end when there is none to wait for.
    pub(crate) async fn until(&mut self, wanted: Option<&str>) -> &str {
        self.until_that(|text| wanted.is_some_and(|wanted| text.contains(wanted))).await
    }

    /// Reads until the text is as wanted, or to the end.
    pub(crate) async fn until_that(&mut self, wanted: impl Fn(&str) -> bool) -> &str {
        let reading = async {
            while !wanted(&self.text) {
                match self.response.next().await {
                    Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap()),
                    None => {
                        self.ended = true;
                        break;
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(15), reading).await.is_ok();
        assert!(in_time, "what was waited for did not come; there is {:?}", self.text);
        &self.text
    }

    /// The events of the whole stream as (id, kind), without the lines about retrying.
    async fn events(mut self) -> Vec<(String, String)> {
        self.until(None).await;
        ids(&self.text)
    }
}

fn ids(text: &str) -> Vec<(String, String)> {
    let mut lines = text.lines();
    let mut events = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(id) = line.strip_prefix("id: ") {
            let kind = lines.next().and_then(|line| line.strip_prefix("event: ")).unwrap();
            assert!(lines.next().unwrap().starts_with("data: {"));
            assert_eq!(lines.next(), Some(""));
            events.push((id.to_owned(), kind.to_owned()));
        } else {
            assert!(line.is_empty() || line.starts_with("retry: ") || line == ":keepalive", "{line:?}");
        }
    }
    events
}

fn event(id: &str, kind: &str) -> (String, String) {
    (id.to_owned(), kind.to_owned())
}

async fn cancel(app: &TestApp, turn: &serde_json::Value) {
    let cancelled = app.post(MEMBER, turn["links"]["cancel"].as_str().unwrap(), &json!({})).await;
    assert_eq!(cancelled.json()["status"], "cancelled");
}

async fn again(app: &TestApp, turn: &serde_json::Value) -> serde_json::Value {
    let mut body = say("again");
    body["session"] = turn["session"].clone();
    app.post(MEMBER, "/chat", &body).await.json()
}

#[tokio::test]
async fn a_jobs_stream_begins_at_the_start_and_ends_with_done() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    let events = turn["links"]["events"].as_str().unwrap();
    let mut reader = Reader::open(&app, events, None).await;
    let start = reader.until(Some("event: queued")).await;
    let retry = start.strip_prefix("retry: ").and_then(|rest| rest.split('\n').next()?.parse::<u64>().ok());
    assert!(retry.is_some_and(|ms| (1000..=5000).contains(&ms)), "{start:?}");
    cancel(&app, &turn).await;
    assert_eq!(reader.events().await, [event("1.1", "queued"), event("1.2", "done")]);
    // Late: the same, from the table.
    let late = Reader::open(&app, events, None).await;
    assert_eq!(late.events().await, [event("1.1", "queued"), event("1.2", "done")]);
    let rest = Reader::open(&app, events, Some("1.1")).await;
    assert_eq!(rest.events().await, [event("1.2", "done")]);
    let rest = Reader::open(&app, &format!("{events}?lastEventId=1.1"), None).await;
    assert_eq!(rest.events().await, [event("1.2", "done")]);
    // Past the end: stop.
    let past = app.request(Method::GET, events).header("X-API-Key", MEMBER).header("Last-Event-ID", "1.2");
    assert_eq!(app.send(past).await.status, StatusCode::NO_CONTENT);
    // The header is newer than the parameter that a browser's EventSource keeps repeating.
    let past = app.request(Method::GET, &format!("{events}?lastEventId=1.1")).header("X-API-Key", MEMBER);
    assert_eq!(app.send(past.header("Last-Event-ID", "1.2")).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_wrong_last_event_id_is_refused() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    let job = turn["links"]["events"].as_str().unwrap();
    let session = turn["links"]["stream"].as_str().unwrap();
    for (path, id) in [
        (job, "x"),
        (job, "1"),
        (job, "1.-1"),
        (job, "2.1"),
        (job, "1.1 "),
        (session, "9.1"),
        (session, "a.b"),
    ] {
        let request = app
            .request(Method::GET, path)
            .header("X-API-Key", MEMBER)
            .header("Last-Event-ID", format!("{id}~"));
        app.send(request).await.is_error(400, "APP-4XX-VALIDATION");
        let separator = if path.contains('?') { '&' } else { '?' };
        let id = id.replace(' ', "%20");
        app.get(MEMBER, &format!("{path}{separator}lastEventId={id}"))
            .await
            .is_error(400, "APP-4XX-VALIDATION");
    }
    for path in ["/chat/stream", "/chat/stream?session=x&follow=perhaps"] {
        app.get(MEMBER, path).await.is_error(400, "APP-4XX-VALIDATION");
    }
    app.get(MEMBER, "/chat/stream?session=x").await.is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn a_turn_that_ended_a_day_ago_is_gone() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    cancel(&app, &turn).await;
    app.execute("update turns set finished_at = clock_timestamp() - interval '24 hours 1 second'").await;
    // Not the process that accepted the turn a moment ago and needs no look at it.
    let app = app.restarted().await;
    let events = turn["links"]["events"].as_str().unwrap();
    app.get(MEMBER, events).await.is_error(410, "APP-410-GONE");
    app.get(MEMBER, &format!("{events}?lastEventId=1.1")).await.is_error(410, "APP-410-GONE");
    // Who has seen all of it is told to stop, not that something was lost.
    let past = app.get(MEMBER, &format!("{events}?lastEventId=1.2")).await;
    assert_eq!(past.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_sessions_stream_carries_the_running_or_next_turn() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    let stream = turn["links"]["stream"].as_str().unwrap();
    let mut running = Reader::open(&app, stream, None).await;
    running.until(Some("event: queued")).await;
    cancel(&app, &turn).await;
    assert_eq!(running.events().await, [event("1.1", "queued"), event("1.2", "done")]);
    // A browser comes back by itself, and is told to stop.
    let past = app.request(Method::GET, stream).header("X-API-Key", MEMBER).header("Last-Event-ID", "1.2");
    assert_eq!(app.send(past).await.status, StatusCode::NO_CONTENT);
    // Nothing runs: the next turn it is.
    let mut next = Reader::open(&app, stream, None).await;
    next.until(Some("retry: ")).await;
    let second = again(&app, &turn).await;
    next.until(Some("event: queued")).await;
    cancel(&app, &second).await;
    assert_eq!(next.events().await, [event("2.1", "queued"), event("2.2", "done")]);
}

#[tokio::test]
async fn a_following_stream_goes_on_across_turns_and_resumes_within_them() {
    let app = TestApp::start().await;
    let first = app.chat(MEMBER).await;
    let stream = format!("{}&follow=true", first["links"]["stream"].as_str().unwrap());
    let mut reader = Reader::open(&app, &stream, None).await;
    reader.until(Some("event: queued")).await;
    cancel(&app, &first).await;
    for _ in 0..2 {
        let turn = again(&app, &first).await;
        cancel(&app, &turn).await;
    }
    reader.until(Some("id: 3.2")).await;
    assert!(!reader.ended);
    let all = ids(&reader.text);
    let expected: Vec<_> = (1..=3)
        .flat_map(|turn| [event(&format!("{turn}.1"), "queued"), event(&format!("{turn}.2"), "done")])
        .collect();
    assert_eq!(all, expected);
    for (index, (id, _)) in all.iter().enumerate().take(5) {
        let mut resumed = Reader::open(&app, &stream, Some(id)).await;
        resumed.until(Some("id: 3.2")).await;
        assert_eq!(ids(&resumed.text), all[index + 1..]);
    }
    // Past the end of the last one, it waits for more.
    let mut waiting = Reader::open(&app, &stream, Some("3.2")).await;
    waiting.until(Some("retry: ")).await;
    again(&app, &first).await;
    waiting.until(Some("id: 4.1")).await;
    assert_eq!(ids(&waiting.text), [event("4.1", "queued")]);
}

#[tokio::test]
async fn silence_is_filled_and_a_stop_sends_readers_elsewhere() {
    let app = TestApp::start_with(|config| config.stream_keepalive = Duration::from_millis(100)).await;
    let turn = app.chat(MEMBER).await;
    let mut job = Reader::open(&app, turn["links"]["events"].as_str().unwrap(), None).await;
    job.until(Some(":keepalive\n\n:keepalive\n\n")).await;
    let stream = format!("{}&follow=true", turn["links"]["stream"].as_str().unwrap());
    let mut session = Reader::open(&app, &stream, None).await;
    session.until(Some("event: queued")).await;
    let TestApp { running, .. } = app;
    tokio::time::timeout(Duration::from_secs(10), running.stop()).await.unwrap();
    for reader in [&mut job, &mut session] {
        let text = reader.until(None).await;
        assert!(text.rsplit("\n\n").nth(1).is_some_and(|last| last.starts_with("retry: ")), "{text:?}");
        assert!(!text.contains("event: done"));
    }
}

/// What a client that speaks plain HTTP over a socket reads, until the connection ends.
async fn raw(app: &TestApp, head: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(app.running.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_streams_connection_is_plain_http() {
    let app = TestApp::start().await;
    let turn = app.chat(MEMBER).await;
    cancel(&app, &turn).await;
    let path = turn["links"]["events"].as_str().unwrap();
    let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {MEMBER}\r\n");
    let new = raw(&app, &format!("{get}Connection: close\r\n\r\n")).await;
    let (head, body) = new.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in ["transfer-encoding: chunked", "connection: close", "x-content-type-options: nosniff"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(body.ends_with("\r\n0\r\n\r\n"), "{body:?}");
    let old = raw(&app, &format!("GET {path} HTTP/1.0\r\nX-API-Key: {MEMBER}\r\n\r\n")).await;
    let (head, body) = old.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("chunked"), "{head}");
    assert_eq!(ids(body), [event("1.1", "queued"), event("1.2", "done")]);
    // The connection outlives the stream, but not when a part of the next request was read with the first.
    let both = raw(&app, &format!("{get}\r\n{get}Connection: close\r\n\r\n")).await;
    assert!((1..=2).contains(&both.matches("HTTP/1.1 200 OK").count()), "{both}");
    assert!(both.ends_with("\r\n0\r\n\r\n"), "{both}");
    // Asking for the head alone opens nothing.
    let head = app.request(Method::HEAD, path).header("X-API-Key", MEMBER);
    let answered = app.send(head).await;
    assert_eq!((answered.status, answered.text.as_str()), (StatusCode::OK, ""));
}
