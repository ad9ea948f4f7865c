//! Sends frames, and notes whether the client stayed to the end.

use std::{collections::VecDeque, io, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde_json::json;

use super::{
    Wire,
    record::{Outcome, Record},
    render::Frame,
    script::Refusal,
};

/// Settles the record when the answer is over, however that comes.
pub(super) struct Ending {
    record: Arc<Record>,
    number: u64,
    outcome: Outcome,
}

impl Ending {
    pub(super) fn new(record: Arc<Record>, number: u64) -> Self {
        Self { record, number, outcome: Outcome::Disconnected }
    }

    fn set(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.record.update(self.number, self.outcome, None);
    }
}

pub(super) fn refuse(wire: Wire, refusal: &Refusal, mut ending: Ending) -> Response {
    ending.set(Outcome::Refused);
    let kind = match refusal.status {
        429 => "rate_limit_error",
        401 => "authentication_error",
        529 => "overloaded_error",
        400 => "invalid_request_error",
        _ => "api_error",
    };
    let message = "the-provider-says-so";
    let body = match wire {
        Wire::Anthropic => json!({"type": "error", "error": {"type": kind, "message": message}}),
        Wire::Responses | Wire::Chat => {
            json!({"error": {"type": kind, "code": null, "param": null, "message": message}})
        }
    };
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(body)).into_response();
    for (name, value) in &refusal.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

/// Takes the request and keeps it.
pub(super) async fn silent(ending: Ending) -> Response {
    futures::future::pending::<()>().await;
    drop(ending);
    StatusCode::OK.into_response()
}

struct Sending {
    frames: VecDeque<Frame>,
    ending: Ending,
    record: Arc<Record>,
}

pub(super) fn stream_frames(frames: Vec<Frame>, record: Arc<Record>, ending: Ending) -> Response {
    let sending = Sending { frames: frames.into(), ending, record };
    let body = stream::unfold(sending, |mut sending| async move {
        let item = sending.next().await?;
        Some((item, sending))
    });
    event_stream(Body::from_stream(body))
}

/// An answer that is one ready-made piece.
pub(super) fn whole(bytes: Bytes, mut ending: Ending) -> Response {
    ending.set(Outcome::Complete);
    event_stream(Body::from(bytes))
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

impl Sending {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            let Some(frame) = self.frames.pop_front() else {
                self.ending.set(Outcome::Complete);
                return None;
            };
            match frame {
                Frame::Bytes(bytes) => return Some(Ok(bytes)),
                // A pause of nothing lets the connection write what it has.
                Frame::Pause(pause) if pause.is_zero() => tokio::task::yield_now().await,
                Frame::Pause(pause) => tokio::time::sleep(pause).await,
                Frame::Gate(name) => self.record.gate(&name).pass().await,
                Frame::Stall => futures::future::pending().await,
                Frame::Cut => {
                    // Lets the connection write what it has; an error throws the rest away.
                    tokio::task::yield_now().await;
                    self.ending.set(Outcome::Broken);
                    return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                }
                Frame::End => {
                    self.ending.set(Outcome::Broken);
                    return None;
                }
            }
        }
    }
}
