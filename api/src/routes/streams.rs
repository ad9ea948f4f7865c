//! Where an event stream begins: at a job, or at a session's running or next turn.

use axum::{extract::State, response::Response};
use http::{HeaderMap, request::Parts};
use secrecy::SecretString;
use serde::Deserialize;
use shared::{
    error::{Code, Error},
    ids::TurnId,
    turns::StreamStart,
};
use tracing::{Span, field::display};

use crate::{
    auth::{self, Reader},
    error::{Answer, ErrorBody, unreadable},
    extract::{Job, parameters},
    headers::{self, LastEventId},
    sse::{self, Opening, Stream},
    state::App,
};

/// The query of GET /jobs/{id}/events.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventsQuery {
    /// As the header Last-Event-ID, for clients that cannot set it.
    last_event_id: Option<String>,
}

/// Follows a job: what has happened so far, then what happens, until `done`.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "chat", security(("apiKey" = [])),
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event"),
        EventsQuery,
    ),
    responses(
        (status = 200, description = "Events: queued, token, tool_call, tool_result, cache_hit, warning, approval_required, resumed, error, done", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The turn has ended and nothing came after that event: stop reconnecting"),
        (status = 400, description = "Last-Event-ID is not an id of this stream", body = ErrorBody),
        (status = 404, description = "There is no such job", body = ErrorBody),
        (status = 410, description = "The turn ended over 24 hours ago", body = ErrorBody),
    )
)]
pub(crate) async fn job_events(State(app): State<App>, Job(turn): Job, parts: Parts) -> Response {
    auth::note_route(&parts);
    sse::open(&app, || begin_at_job(&app, turn, &parts)).await
}

async fn begin_at_job(app: &App, turn: TurnId, parts: &Parts) -> Answer<Opening> {
    let actor = app.callers.of(parts).await?;
    let query: EventsQuery = parameters(parts)?;
    let last = headers::last_event_id(&parts.headers, query.last_event_id.as_deref())?;
    let start = match last {
        None => app.turns.stream_beginning(&actor, turn).await?,
        Some(_) => app.turns.stream_start(&actor, turn).await?,
    };
    if last.is_some_and(|last| last.turn_no != start.turn_no) {
        return Err(unreadable("Last-Event-ID: is not the id of an event of this stream"));
    }
    let seq = last.map_or(0, |last| last.seq);
    if is_over(&start, seq)? {
        return Ok(Opening::Nothing);
    }
    Ok(Opening::Stream(Stream::of_turn(app, Reader::new(app, parts, &actor)?, &start, seq)))
}

/// Whether nothing comes after this event any more.
fn is_over(start: &StreamStart, seq: i64) -> Answer<bool> {
    // Also of an old turn, while its log is there: who has seen all of it misses nothing.
    if start.status.is_terminal() && start.last_seq > 0 && seq >= start.last_seq {
        return Ok(true);
    }
    if start.past_retention {
        let message = "the turn ended over 24 hours ago and its events are gone; the job has its result";
        return Err(Error::new(Code::Gone, message).into());
    }
    Ok(false)
}

/// The query of GET /chat/stream.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamQuery {
    /// The session's token.
    #[param(value_type = String)]
    session: Option<SecretString>,
    /// Stay open across turns.
    follow: Option<bool>,
    /// As the header Last-Event-ID, for clients that cannot set it.
    last_event_id: Option<String>,
}

/// Follows a session: its running or next turn from the start until `done`, or with `follow=true` all turns from there on.
#[utoipa::path(
    get, path = "/chat/stream", tag = "chat", security(("apiKey" = [])),
    params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses(
        (status = 200, description = "Events, as of GET /jobs/{id}/events", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The turn has ended and nothing came after that event: stop reconnecting"),
        (status = 400, description = "Last-Event-ID is not an id of this stream, or a parameter is missing or cannot be read", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 410, description = "The session has expired, or the turn ended over 24 hours ago", body = ErrorBody),
    )
)]
pub(crate) async fn session_events(State(app): State<App>, parts: Parts) -> Response {
    auth::note_route(&parts);
    sse::open(&app, || begin_at_session(&app, &parts)).await
}

async fn begin_at_session(app: &App, parts: &Parts) -> Answer<Opening> {
    let actor = app.callers.of(parts).await?;
    let query: StreamQuery = parameters(parts)?;
    let follow = query.follow == Some(true);
    let last = last_of_session(&parts.headers, &query)?;
    let Some(token) = query.session else { return Err(unreadable("session: the parameter is required")) };
    let session = app.turns.sessions().by_token(&actor, &token).await?;
    Span::current().record("session_id", display(session.id));
    app.last_accessed.touch(actor.tenant, session.id);
    let conversation = session.conversation;
    // Before looking, so that no turn can be missed.
    let posted = app.hub.turn_posted(actor.tenant, conversation);
    let stream = Stream::of_session(app, Reader::new(app, parts, &actor)?, conversation, posted, follow);
    let Some(last) = last else {
        // A turn that is posted between the two looks has a higher number, and is waited for.
        let newest = app.turns.newest_turn_no(&actor, conversation).await?;
        return Ok(Opening::Stream(match app.turns.stream_of(&actor, conversation, None).await? {
            Some(start) => stream.at(&start, 0),
            None => stream.after(newest),
        }));
    };
    let Some(start) = app.turns.stream_of(&actor, conversation, Some(last.turn_no)).await? else {
        return Err(unreadable("Last-Event-ID: is not the id of an event of this stream"));
    };
    match (is_over(&start, last.seq)?, follow) {
        (false, _) => Ok(Opening::Stream(stream.at(&start, last.seq))),
        (true, true) => Ok(Opening::Stream(stream.after(last.turn_no))),
        (true, false) => Ok(Opening::Nothing),
    }
}

fn last_of_session(headers: &HeaderMap, query: &StreamQuery) -> Answer<Option<LastEventId>> {
    headers::last_event_id(headers, query.last_event_id.as_deref())
}
