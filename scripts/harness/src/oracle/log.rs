//! Rules (1) to (3): the event log and what clients saw of it.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::{EventRow, Expectations, Picture, TurnRow, Violation};
use crate::client::{Ledger, Transcript, discard_after};

/// (1) Every accepted turn is stored and ended once; so did every other turn that is stored.
pub(super) fn terminal_events(
    picture: &Picture,
    ledger: &Ledger,
    expected: &Expectations,
    found: &mut Vec<Violation>,
) {
    let mut say = |what: String| found.push(Violation { rule: 1, what });
    for accepted in ledger.accepted() {
        if !picture.turns.iter().any(|turn| turn.id.to_string() == accepted.job) {
            say(format!("the job {} was accepted and is not stored", accepted.job));
        }
    }
    for turn in &picture.turns {
        let events = picture.events_of(turn.id);
        let done: Vec<_> = events.iter().filter(|event| event.kind == "done").collect();
        if expected.unfinished.contains(&turn.id.to_string()) && turn.finished_at.is_none() {
            if !done.is_empty() {
                say(format!("turn {} is {} and has a done event", turn.id, turn.state));
            }
            continue;
        }
        if turn.finished_at.is_none() {
            say(format!(
                "turn {} is still {} (attempts {}, takeovers {})",
                turn.id, turn.state, turn.attempts, turn.takeovers_total
            ));
        }
        if done.len() != 1 {
            say(format!("turn {} ({}) has {} done events", turn.id, turn.state, done.len()));
        }
        let Some(last) = events.last() else { continue };
        if turn.finished_at.is_some() && last.kind != "done" {
            say(format!("turn {} ends with {} (event {})", turn.id, last.kind, last.seq));
        }
        if let Some(done) = done.first() {
            let data: Value = serde_json::from_str(&done.data).unwrap_or(Value::Null);
            if data["status"].as_str() != Some(turn.state.as_str()) {
                say(format!("turn {} is {} and its done event says {}", turn.id, turn.state, done.data));
            }
        }
        let errors = events.iter().filter(|event| event.kind == "error").count();
        let failed = matches!(turn.state.as_str(), "failed" | "dead");
        if errors != usize::from(failed) {
            say(format!("turn {} is {} and has {errors} error events", turn.id, turn.state));
        }
        if events.first().map(|event| event.kind.as_str()) != Some("queued") {
            say(format!("turn {} does not begin with its queued event", turn.id));
        }
    }
    for (turn, events) in &picture.events {
        if !picture.turns.iter().any(|row| row.id == *turn) {
            say(format!("there are {} events of a turn {turn} that is not stored", events.len()));
        }
    }
}

/// (2) Ids ascend by one, or jump onto `resumed`.
pub(super) fn event_ids(picture: &Picture, found: &mut Vec<Violation>) {
    for (turn, events) in &picture.events {
        let before = std::iter::once(0).chain(events.iter().map(|event| event.seq));
        for (before, event) in before.zip(events) {
            if event.seq != before + 1 && event.kind != "resumed" {
                found.push(Violation {
                    rule: 2,
                    what: format!(
                        "turn {turn}: the id jumps from {before} to {} onto {}",
                        event.seq, event.kind
                    ),
                });
            }
            if event.kind == "resumed" {
                let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                if !discard_after(&data).is_some_and(|after| (0..event.seq).contains(&after)) {
                    found.push(Violation {
                        rule: 2,
                        what: format!("turn {turn}: event {} is {}", event.seq, event.data),
                    });
                }
            }
        }
    }
}

/// (3) Every transcript is a stretch of the log: nothing missing, nothing twice, nothing changed.
pub(super) fn transcripts(picture: &Picture, ledger: &Ledger, found: &mut Vec<Violation>) {
    let by_number: HashMap<(Uuid, i64), &TurnRow> =
        picture.turns.iter().map(|turn| ((turn.session_id, turn.turn_no), turn)).collect();
    for transcript in ledger.transcripts() {
        let mut say = |what: String| {
            found.push(Violation {
                rule: 3,
                what: format!("{} ({}): {what}", transcript.path, transcript.tenant),
            });
        };
        for stray in &transcript.strays {
            say(format!("a block that is no event: {stray:?}"));
        }
        for (turn_no, frames) in transcript.turns() {
            let Some(turn) = turn_of(picture, &by_number, &transcript, turn_no) else { continue };
            let log = picture.events_of(turn.id);
            let (Some(first), Some(last)) = (frames.first(), frames.last()) else { continue };
            let begins = transcript.from_start
                || transcript.frames.first().map(|frame| &frame.id) != Some(&first.1.id);
            let from = if begins { 0 } else { first.0 };
            let expected: Vec<&EventRow> =
                log.iter().filter(|event| event.seq >= from && event.seq <= last.0).collect();
            for (event, (seq, frame)) in expected.iter().zip(&frames) {
                let raw =
                    format!("id: {turn_no}.{}\nevent: {}\ndata: {}\n\n", event.seq, event.kind, event.data);
                if raw.as_bytes() != frame.raw {
                    say(format!(
                        "event {seq} of turn {} was seen as {:?}, the log has {raw:?}",
                        turn.id,
                        String::from_utf8_lossy(&frame.raw)
                    ));
                    break;
                }
            }
            if expected.len() != frames.len() {
                say(format!(
                    "{} events of turn {} were seen up to {}, the log has {}",
                    frames.len(),
                    turn.id,
                    last.0,
                    expected.len()
                ));
            }
        }
    }
}

fn turn_of<'a>(
    picture: &'a Picture,
    by_number: &HashMap<(Uuid, i64), &'a TurnRow>,
    transcript: &Transcript,
    turn_no: i64,
) -> Option<&'a TurnRow> {
    if let Some(job) = transcript.path.strip_prefix("/jobs/").and_then(|rest| rest.split('/').next()) {
        return picture.turns.iter().find(|turn| turn.id.to_string() == job);
    }
    let queued = transcript.frames.iter().find(|frame| {
        frame.event == "queued" && frame.position().is_some_and(|(number, _)| number == turn_no)
    })?;
    let job: Uuid = queued.json()["jobId"].as_str()?.parse().ok()?;
    let turn = picture.turns.iter().find(|turn| turn.id == job)?;
    by_number.get(&(turn.session_id, turn_no)).copied().or(Some(turn))
}

/// [S2] The tokens that were not voided are the stored reply.
pub(super) fn replies(picture: &Picture, found: &mut Vec<Violation>) {
    for turn in picture.turns.iter().filter(|turn| turn.state == "succeeded") {
        let text = text(picture.events_of(turn.id));
        if turn.reply.as_deref() != Some(text.as_str()) {
            found.push(Violation {
                rule: 3,
                what: format!(
                    "turn {}: the stored reply is {:?}, its tokens say {text:?}",
                    turn.id, turn.reply
                ),
            });
        }
    }
}

/// The tokens of a log, less those that a `resumed` voids.
fn text(events: &[EventRow]) -> String {
    let mut kept: Vec<(i64, String)> = Vec::new();
    for event in events {
        let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
        match event.kind.as_str() {
            "token" => kept.push((event.seq, data["text"].as_str().unwrap_or_default().to_owned())),
            "resumed" => {
                if let Some(after) = discard_after(&data) {
                    kept.retain(|(seq, _)| *seq <= after);
                }
            }
            _ => {}
        }
    }
    kept.into_iter().map(|(_, text)| text).collect()
}
