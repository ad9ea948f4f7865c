//! What the clients of a run were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::Frame;

/// A turn that a client got a 200 or 202 for.
#[derive(Debug, Clone)]
pub struct AcceptedTurn {
    /// Whose.
    pub tenant: String,
    /// The job's id.
    pub job: String,
    /// When the answer came.
    pub at: Instant,
}

/// What one reader saw of a job or session, joined over its reconnects.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// Whose.
    pub tenant: String,
    /// The path that was followed, without session tokens.
    pub path: String,
    /// The events in the order of their arrival.
    pub frames: Vec<Frame>,
    /// Whether the reader began at the first event (no `Last-Event-ID` in its first request).
    pub from_start: bool,
    /// How often it connected.
    pub connects: usize,
    /// Blocks that were neither events nor comments nor `retry:`.
    pub strays: Vec<String>,
}

impl Transcript {
    /// The bytes of all events.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.frames.iter().flat_map(|frame| frame.raw.iter().copied()).collect()
    }

    /// The kinds of the events, in order.
    #[must_use]
    pub fn kinds(&self) -> Vec<&str> {
        self.frames.iter().map(|frame| frame.event.as_str()).collect()
    }

    /// The text that a reader shows: tokens, less what a `resumed` voids.
    #[must_use]
    pub fn text(&self) -> String {
        let mut kept: Vec<(i64, String)> = Vec::new();
        for frame in &self.frames {
            let Some((_, seq)) = frame.position() else { continue };
            match frame.event.as_str() {
                "token" => kept.push((seq, frame.json()["text"].as_str().unwrap_or_default().to_owned())),
                "resumed" => {
                    if let Some(after) = discard_after(&frame.json()) {
                        kept.retain(|(seq, _)| *seq <= after);
                    }
                }
                _ => {}
            }
        }
        kept.into_iter().map(|(_, text)| text).collect()
    }

    /// The events by turn number, in the order of their first events; each with its sequence number.
    #[must_use]
    pub fn turns(&self) -> Vec<(i64, Vec<(i64, &Frame)>)> {
        let mut turns: Vec<(i64, Vec<(i64, &Frame)>)> = Vec::new();
        for frame in &self.frames {
            let Some((turn_no, seq)) = frame.position() else { continue };
            match turns.iter_mut().find(|(number, _)| *number == turn_no) {
                Some((_, frames)) => frames.push((seq, frame)),
                None => turns.push((turn_no, vec![(seq, frame)])),
            }
        }
        turns
    }

    /// The `done` event, if the stream got that far.
    #[must_use]
    pub fn done(&self) -> Option<serde_json::Value> {
        self.frames.iter().rev().find(|frame| frame.event == "done").map(Frame::json)
    }
}

/// The sequence number in a `resumed` event, which names it by the whole event id.
#[must_use]
pub fn discard_after(data: &serde_json::Value) -> Option<i64> {
    let value = &data["discardAfter"];
    value.as_i64().or_else(|| value.as_str()?.rsplit('.').next()?.parse().ok())
}

/// Everything that clients were told in a run.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: BTreeMap<String, AcceptedTurn>,
    transcripts: Vec<Transcript>,
    /// Per tenant, answers that were not seen before.
    answers: BTreeMap<String, BTreeSet<String>>,
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_answer(&self, tenant: &str, body: &str) {
        let mut inner = self.inner();
        if !body.is_empty() {
            inner.answers.entry(tenant.to_owned()).or_default().insert(body.to_owned());
        }
    }

    pub(crate) fn note_accepted(&self, tenant: &str, job: &str) {
        let turn = AcceptedTurn { tenant: tenant.to_owned(), job: job.to_owned(), at: Instant::now() };
        self.inner().accepted.entry(job.to_owned()).or_insert(turn);
    }

    /// Adds what a reader saw.
    pub fn note_transcript(&self, transcript: Transcript) {
        self.inner().transcripts.push(transcript);
    }

    /// The accepted turns, in the order of their acceptance.
    #[must_use]
    pub fn accepted(&self) -> Vec<AcceptedTurn> {
        let mut accepted: Vec<_> = self.inner().accepted.values().cloned().collect();
        accepted.sort_by_key(|turn| turn.at);
        accepted
    }

    /// What the readers saw.
    #[must_use]
    pub fn transcripts(&self) -> Vec<Transcript> {
        self.inner().transcripts.clone()
    }

    /// Every distinct answer, by tenant.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.inner().answers.clone()
    }
}
