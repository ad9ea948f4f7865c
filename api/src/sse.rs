//! Event streams over HTTP [S1] to [S6].
//!
//! A stream answers with events or not at all: a browser's EventSource gives up for ever on any status but 200, so our
//! own trouble is never a status. The request is held while the database is away, then closed without an answer.
//! Nothing is buffered for a slow reader: the body is pulled, by at most one batch of the hub's rows at a time.

use std::{convert::Infallible, sync::Arc, time::Duration, vec};

use axum::{
    Extension,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use shared::{
    events::{Event, EventKind, Follower, TurnPosted},
    identity::Actor,
    ids::ConversationId,
    turns::StreamStart,
};
use tokio::time::Instant;

use crate::{
    auth::{Looked, Reader},
    direct::WantsConnection,
    error::{self, Answer, Failure},
    request::NoAnswer,
    state::App,
};

/// Events are joined into one write up to this many bytes; a larger one goes alone.
const WRITE: usize = 16 * 1024;
/// A comment, so that nobody on the way takes the stream for dead.
pub(crate) const KEEPALIVE: Bytes = Bytes::from_static(b":keepalive\n\n");
/// The pause before a failed look at the database is made again.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);

/// What a stream's request leads to.
pub(crate) enum Opening<S = Stream> {
    /// Events.
    Stream(S),
    /// Nothing will ever come: 204, which tells an EventSource to stop.
    Nothing,
}

/// Opens a stream. `look` finds out who asks and where the stream begins; it is asked again while the database is away.
pub(crate) async fn open<S, F>(app: &App, look: impl Fn() -> F) -> Response
where
    S: IntoResponse,
    F: Future<Output = Answer<Opening<S>>>,
{
    let until = Instant::now() + app.config.stream_hold;
    loop {
        let Ok(looked) = tokio::time::timeout_at(until, look()).await else { return no_answer() };
        let failure = match looked {
            Ok(Opening::Stream(stream)) => return stream.into_response(),
            Ok(Opening::Nothing) => return StatusCode::NO_CONTENT.into_response(),
            Err(Failure(failure)) => failure,
        };
        let status = error::status(&failure);
        if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            return Failure(failure).into_response();
        }
        if !failure.is_transient() || app.draining.is_cancelled() {
            tracing::error!(error = &failure as &dyn std::error::Error, "a stream could not be opened");
            return no_answer();
        }
        tracing::warn!(
            error = &failure as &dyn std::error::Error,
            "a stream is held until the database answers"
        );
        tokio::time::sleep(AGAIN).await;
    }
}

fn no_answer() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(NoAnswer);
    response
}

/// An open stream.
pub(crate) struct Stream {
    app: App,
    reader: Reader,
    place: Place,
    /// Events that the hub gave and the client has not been sent.
    ready: vec::IntoIter<Arc<Event>>,
    /// Of a session's stream: how it finds its next turn.
    session: Option<Box<SessionStream>>,
    /// `retry:` of the next write.
    retry: Option<Duration>,
    _counted: Counted,
}

/// Where a stream is.
enum Place {
    /// Within a turn.
    In { turn_no: i64, follower: Follower },
    /// Behind this turn, waiting for the next.
    After { turn_no: i64 },
    /// Done.
    End,
}

struct SessionStream {
    conversation: ConversationId,
    posted: TurnPosted,
    /// Whether to go on after a turn's end.
    follow: bool,
}

impl IntoResponse for Stream {
    fn into_response(self) -> Response {
        respond(futures::stream::unfold(self, |mut stream| async move {
            let bytes = stream.next().await?;
            Some((bytes, stream))
        }))
    }
}

/// The answer that carries a stream's bytes.
pub(crate) fn respond(bytes: impl futures::Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let body = Body::from_stream(bytes.map(Ok::<_, Infallible>));
    (headers, Extension(WantsConnection), body).into_response()
}

/// One open stream in the metric.
pub(crate) struct Counted;

impl Counted {
    pub(crate) fn new() -> Self {
        metrics::gauge!("sse_streams").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("sse_streams").decrement(1.0);
    }
}

/// What a waiting stream heard.
enum Heard {
    Events(Vec<Arc<Event>>),
    Turn(StreamStart),
    Silence,
    Draining,
}

impl Stream {
    fn new(app: &App, reader: Reader, place: Place, session: Option<Box<SessionStream>>) -> Self {
        let retry = Duration::from_millis(rand::random_range(1000..=5000));
        Self {
            app: app.clone(),
            reader,
            place,
            ready: vec::IntoIter::default(),
            session,
            retry: Some(retry),
            _counted: Counted::new(),
        }
    }

    /// Of one turn, from after this event.
    pub(crate) fn of_turn(app: &App, reader: Reader, start: &StreamStart, seq: i64) -> Self {
        let follower = app.hub.follow(reader.actor().tenant, start.turn, seq);
        Self::new(app, reader, Place::In { turn_no: start.turn_no, follower }, None)
    }

    /// Of a session; [`Self::at`] or [`Self::after`] say where it begins.
    pub(crate) fn of_session(
        app: &App,
        reader: Reader,
        conversation: ConversationId,
        posted: TurnPosted,
        follow: bool,
    ) -> Self {
        let session = SessionStream { conversation, posted, follow };
        Self::new(app, reader, Place::End, Some(Box::new(session)))
    }

    /// Begins within this turn.
    pub(crate) fn at(mut self, start: &StreamStart, seq: i64) -> Self {
        let follower = self.app.hub.follow(self.reader.actor().tenant, start.turn, seq);
        self.place = Place::In { turn_no: start.turn_no, follower };
        self
    }

    /// Begins with the turn after this one.
    pub(crate) fn after(mut self, turn_no: i64) -> Self {
        self.place = Place::After { turn_no };
        self
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(retry) = self.retry.take() {
            // By itself, so that the client sees the stream open before there is an event.
            return Some(retry_line(retry));
        }
        loop {
            if self.reader.is_due() && !matches!(self.place, Place::End) {
                match self.reader.look(&self.app).await {
                    Looked::Same => {}
                    Looked::Unknown => return Some(KEEPALIVE),
                    Looked::Over(bytes) => {
                        self.place = Place::End;
                        return Some(bytes);
                    }
                }
            }
            if let Some(bytes) = self.write() {
                return Some(bytes);
            }
            if matches!(self.place, Place::End) {
                return None;
            }
            let (keepalive, draining) = (self.app.config.stream_keepalive, self.app.draining.clone());
            let heard = tokio::select! {
                biased;
                heard = hear(&self.app, self.reader.actor(), &mut self.place, self.session.as_deref_mut()) => heard,
                () = draining.cancelled() => Heard::Draining,
                () = tokio::time::sleep(keepalive) => Heard::Silence,
            };
            match heard {
                Heard::Events(events) if events.is_empty() => self.place = Place::End,
                Heard::Events(events) => self.ready = events.into_iter(),
                Heard::Turn(start) => {
                    let follower = self.app.hub.follow(self.reader.actor().tenant, start.turn, 0);
                    self.place = Place::In { turn_no: start.turn_no, follower };
                }
                Heard::Silence => return Some(KEEPALIVE),
                Heard::Draining => {
                    self.place = Place::End;
                    // Soon, as another process is ready, but not all at once.
                    return Some(retry_line(Duration::from_millis(rand::random_range(100..=2000))));
                }
            }
        }
    }

    /// Events that are ready, joined; each is whole. What waits is never held back for more.
    fn write(&mut self) -> Option<Bytes> {
        let Place::In { turn_no, .. } = self.place else { return None };
        let first = self.ready.next()?;
        let mut ended = first.kind == EventKind::Done;
        let first = first.frame(turn_no);
        let bytes = if self.ready.len() == 0 {
            first
        } else {
            let mut joined = BytesMut::with_capacity(first.len().max(WRITE / 4));
            joined.extend_from_slice(&first);
            while let Some(event) = self.ready.as_slice().first() {
                let frame = event.frame(turn_no);
                if joined.len() + frame.len() > WRITE {
                    break;
                }
                joined.extend_from_slice(&frame);
                ended |= event.kind == EventKind::Done;
                self.ready.next();
            }
            joined.freeze()
        };
        if ended {
            let goes_on = self.session.as_ref().is_some_and(|session| session.follow);
            self.place = if goes_on { Place::After { turn_no } } else { Place::End };
        }
        Some(bytes)
    }
}

pub(crate) fn retry_line(retry: Duration) -> Bytes {
    format!("retry: {}\n\n", retry.as_millis()).into()
}

/// Waits for what comes next. Cancel-safe: nothing is taken that is not answered.
async fn hear(app: &App, actor: &Actor, place: &mut Place, session: Option<&mut SessionStream>) -> Heard {
    match (place, session) {
        (Place::In { follower, .. }, _) => Heard::Events(follower.next().await),
        (Place::After { turn_no }, Some(session)) => {
            Heard::Turn(next_turn(app, actor, turn_no, session).await)
        }
        _ => Heard::Events(Vec::new()),
    }
}

/// The conversation's next turn, in the order of their numbers. Moves `turn_no` past turns that are no longer there.
async fn next_turn(app: &App, actor: &Actor, turn_no: &mut i64, session: &mut SessionStream) -> StreamStart {
    loop {
        let newest = session.posted.after(*turn_no).await;
        while *turn_no < newest {
            // In a box: an idle stream is as large as the largest thing it may come to wait for.
            let next = app.turns.stream_of(actor, session.conversation, Some(*turn_no + 1));
            match Box::pin(next).await {
                Ok(Some(start)) if !start.past_retention => return start,
                Ok(_) => *turn_no += 1,
                Err(failure) => {
                    tracing::warn!(
                        error = &failure as &dyn std::error::Error,
                        "a stream waits until the database answers"
                    );
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}
