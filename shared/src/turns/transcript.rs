//! The text that a client has after reading a turn's log: tokens, less what a later `resumed` voids.

use serde::Deserialize;

use crate::events::{Event, EventKind};

/// Pieces of text that count, each with its event id.
pub(super) struct Transcript(Vec<(i64, String)>);

#[derive(Deserialize)]
struct TokenData {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResumedData {
    discard_after: String,
}

impl Transcript {
    /// Of events in order.
    pub(super) fn of(log: &[Event]) -> Self {
        let mut pieces: Vec<(i64, String)> = Vec::new();
        for event in log {
            match event.kind {
                EventKind::Token => {
                    if let Ok(token) = serde_json::from_str::<TokenData>(&event.data) {
                        pieces.push((event.seq, token.text));
                    }
                }
                EventKind::Resumed => {
                    let after = serde_json::from_str::<ResumedData>(&event.data)
                        .ok()
                        .and_then(|data| {
                            data.discard_after.split_once('.').and_then(|(_, seq)| seq.parse().ok())
                        })
                        .unwrap_or(i64::MAX);
                    pieces.retain(|(seq, _)| *seq <= after);
                }
                _ => {}
            }
        }
        Self(pieces)
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        self.text_after(0)
    }

    /// What came after this event.
    pub(super) fn text_after(&self, after: i64) -> String {
        self.0.iter().filter(|(seq, _)| *seq > after).map(|(_, text)| text.as_str()).collect()
    }

    /// What came up to this event.
    pub(super) fn text_until(&self, until: i64) -> String {
        self.0.iter().filter(|(seq, _)| *seq <= until).map(|(_, text)| text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_event_voids_what_came_after_the_event_it_names() {
        let token = |seq, text: &str| Event::new(seq, EventKind::Token, format!(r#"{{"text":"{text}"}}"#));
        let log = [
            token(2, "one "),
            token(3, "two "),
            Event::new(9000, EventKind::Resumed, r#"{"discardAfter":"7.2"}"#.to_owned()),
            token(9001, "three"),
        ];
        let transcript = Transcript::of(&log);
        assert_eq!(transcript.text(), "one three");
        assert_eq!(transcript.text_after(2), "three");
        assert_eq!(transcript.text_until(2), "one ");
    }
}
