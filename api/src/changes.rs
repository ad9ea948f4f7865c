//! The change feed as an event stream [W8].
//!
//! A stream is a cursor and a follower of the hub. It reads a page, in a transaction as its caller, only when the hub
//! says that there may be one, and the next page only when the client has taken this one. Who the caller is, and what they
//! may see, is looked at again while the stream lasts.

use std::{collections::VecDeque, fmt::Write as _, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use shared::{
    error::Code,
    workspace::changes::{self, Cursor, Follower, PageQuery},
};

use crate::{
    auth::{Looked, Reader},
    sse::{self, Counted, retry_line},
    state::App,
};

/// Changes that are read together for a stream.
const PAGE: i64 = 100;

/// An open stream of changes.
pub(crate) struct ChangeStream {
    app: App,
    reader: Reader,
    follower: Follower,
    cursor: Cursor,
    items: bool,
    /// The next page may be read without waiting.
    more: bool,
    /// Written, but not sent.
    ready: VecDeque<Bytes>,
    ended: bool,
    _counted: Counted,
}

/// What a waiting stream heard.
enum Heard {
    Changes,
    Silence,
    Draining,
}

impl ChangeStream {
    /// From after this cursor. The follower must have been made before the cursor was taken.
    pub(crate) fn new(app: &App, reader: Reader, follower: Follower, cursor: Cursor, items: bool) -> Self {
        // By itself, so that the client sees the stream open, and has a cursor before there is a change.
        let mut start = retry_line(Duration::from_millis(rand::random_range(1000..=5000))).to_vec();
        start.extend_from_slice(&frame(
            "ready",
            &cursor.to_string(),
            &json!({ "cursor": cursor.to_string() }),
        ));
        Self {
            app: app.clone(),
            reader,
            follower,
            cursor,
            items,
            more: true,
            ready: VecDeque::from([Bytes::from(start)]),
            ended: false,
            _counted: Counted::new(),
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.reader.is_due() && !self.ended {
                match self.reader.look(&self.app).await {
                    Looked::Same => {}
                    // Without the cursor, which may be after what is written and not sent.
                    Looked::Unknown => return Some(sse::KEEPALIVE),
                    Looked::Over(bytes) => {
                        (self.ended, self.ready) = (true, VecDeque::new());
                        return Some(bytes);
                    }
                }
            }
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let (keepalive, draining) = (self.app.config.stream_keepalive, self.app.draining.clone());
            let heard = tokio::select! {
                biased;
                () = draining.cancelled() => Heard::Draining,
                () = self.follower.changed(), if !self.more => Heard::Changes,
                () = std::future::ready(()), if self.more => Heard::Changes,
                () = tokio::time::sleep(keepalive) => Heard::Silence,
            };
            match heard {
                Heard::Changes => self.read().await,
                // An id without data moves a reader's cursor and dispatches nothing.
                Heard::Silence => return Some(format!(":keepalive\nid: {}\n\n", self.cursor).into()),
                Heard::Draining => {
                    self.ended = true;
                    return Some(retry_line(Duration::from_millis(rand::random_range(100..=2000))));
                }
            }
        }
    }

    /// Reads the next page, if there is one. While the database is away the stream waits.
    async fn read(&mut self) {
        let query = PageQuery { limit: PAGE, items: self.items };
        let page = async {
            let mut tx = self.app.tenants.begin(self.reader.actor()).await?;
            let page = changes::page(&mut tx, &self.cursor, query).await?;
            tx.commit().await?;
            let cursor = Cursor::read(&page.next_cursor)?;
            Ok::<_, shared::Error>((page, cursor))
        };
        match page.await {
            Ok((page, cursor)) => {
                self.ready.extend(page.changes.iter().map(|change| frame("change", &change.cursor, change)));
                (self.cursor, self.more) = (cursor, page.more);
            }
            Err(failure) if failure.code == Code::Gone => {
                let data = json!({
                    "error": failure.code.as_str(), "message": failure.message, "origin": failure.origin.as_str(),
                });
                self.ready.push_back(frame("error", &self.cursor.to_string(), &data));
                self.ended = true;
            }
            Err(failure) => {
                tracing::warn!(
                    error = &failure as &dyn std::error::Error,
                    "a stream of changes waits until the database answers"
                );
                self.more = true;
                tokio::time::sleep(sse::AGAIN).await;
            }
        }
    }
}

impl IntoResponse for ChangeStream {
    fn into_response(self) -> Response {
        sse::respond(futures::stream::unfold(self, |mut stream| async move {
            let bytes = stream.next().await?;
            Some((bytes, stream))
        }))
    }
}

fn frame(kind: &str, cursor: &str, data: &impl Serialize) -> Bytes {
    let mut text = format!("id: {cursor}\nevent: {kind}\ndata: ");
    // JSON without white space has no line ends.
    match serde_json::to_string(data) {
        Ok(data) => text.push_str(&data),
        Err(_) => {
            let _ = write!(text, "{{}}");
        }
    }
    text.push_str("\n\n");
    text.into()
}
