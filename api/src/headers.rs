//! Request headers with a grammar: `Prefer`, `Idempotency-Key`, `If-Match`, `Last-Event-ID`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::idempotency::IdempotencyKey;

use crate::error::{Answer, Failure, unreadable};

/// The longest that a request waits, whatever it prefers.
const LONGEST_WAIT: u64 = 30;
/// The longest idempotency key.
const LONGEST_KEY: usize = 255;

/// How long the client would wait for the result (`Prefer: wait=N`, RFC 7240), if it would at all. Preferences that we
/// do not know are skipped, as the RFC wants; a `wait` that is no number of seconds is an error.
pub(crate) fn wait(headers: &HeaderMap) -> Answer<Option<Duration>> {
    for value in headers.get_all("prefer") {
        let value = value.to_str().map_err(|_| no_preference(""))?;
        for preference in value.split(',').map(str::trim).filter(|preference| !preference.is_empty()) {
            // What follows a semicolon are parameters of the preference.
            let token = preference.split(';').next().unwrap_or_default();
            let (name, argument) =
                token.split_once('=').map_or((token, None), |(name, rest)| (name, Some(rest)));
            let name = name.trim();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(no_preference(preference));
            }
            if !name.eq_ignore_ascii_case("wait") {
                continue;
            }
            let argument = argument.map(|text| text.trim().trim_matches('"')).unwrap_or_default();
            if argument.is_empty() || !argument.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(no_preference(preference));
            }
            // More digits than a number holds is a long time.
            let seconds = argument.parse().unwrap_or(u64::MAX).min(LONGEST_WAIT);
            return Ok(Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero()));
        }
    }
    Ok(None)
}

/// A character of an HTTP token (RFC 9110).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn no_preference(text: &str) -> Failure {
    unreadable(format!("Prefer: {text:?} is not a preference; wait=N takes whole seconds"))
}

/// The idempotency key of a request on this route, with the hash of what it asks for. `asked` is the request as we
/// understood it, so neither the order of members nor white space makes a difference.
pub(crate) fn idempotency(
    headers: &HeaderMap,
    route: &str,
    asked: &impl Serialize,
) -> Answer<Option<IdempotencyKey>> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    match key {
        Some(key) if (1..=LONGEST_KEY).contains(&key.len()) => {
            let canonical = serde_json::to_vec(asked).map_err(shared::Error::from)?;
            let body_hash = Sha256::digest(&canonical).into();
            Ok(Some(IdempotencyKey { route: route.to_owned(), key: key.to_owned(), body_hash }))
        }
        _ => Err(unreadable("Idempotency-Key: takes 1 to 255 visible ASCII characters")),
    }
}

/// The version that an item must still have: as its entity tag, strong or weak, or as the bare number. Any version will
/// do for `*`.
pub(crate) fn if_match(headers: &HeaderMap) -> Answer<Option<i64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("\u{fffd}").trim();
    if text == "*" {
        return Ok(None);
    }
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    match version.parse() {
        Ok(version) if version > 0 => Ok(Some(version)),
        _ => Err(unreadable("If-Match: takes the version of one item, as its ETag says")),
    }
}

/// Where a client stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastEventId {
    pub(crate) turn_no: i64,
    pub(crate) seq: i64,
}

/// The id of the last event that the client has seen, as it was given.
pub(crate) fn last_event_text<'a>(headers: &'a HeaderMap, parameter: Option<&'a str>) -> Option<&'a str> {
    const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    header.filter(|text| !text.is_empty()).or(parameter.filter(|text| !text.is_empty()))
}

/// The last event that the client has seen: by header, else by the query's parameter. A browser that reconnects by
/// itself repeats the parameter it began with and adds the header, so the header is the newer one.
pub(crate) fn last_event_id(headers: &HeaderMap, parameter: Option<&str>) -> Answer<Option<LastEventId>> {
    match last_event_text(headers, parameter) {
        None => Ok(None),
        Some(text) => match read_event_id(text) {
            Some(id) => Ok(Some(id)),
            None => Err(unreadable("Last-Event-ID: is not the id of an event of this stream")),
        },
    }
}

fn read_event_id(text: &str) -> Option<LastEventId> {
    let number = |text: &str| -> Option<i64> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain)
    };
    let (turn_no, seq) = text.split_once('.')?;
    Some(LastEventId { turn_no: number(turn_no).filter(|turn_no| *turn_no > 0)?, seq: number(seq)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(value: &str) -> Result<Option<u64>, ()> {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", value.parse().unwrap());
        wait(&headers).map(|wait| wait.map(|wait| wait.as_secs())).map_err(|_| ())
    }

    #[test]
    fn prefer_is_read_as_the_rfc_says() {
        assert_eq!(prefer("wait=5"), Ok(Some(5)));
        assert_eq!(prefer("respond-async, WAIT = \"7\"; foo"), Ok(Some(7)));
        assert_eq!(prefer("wait=31"), Ok(Some(30)));
        assert_eq!(prefer("wait=99999999999999999999999"), Ok(Some(30)));
        assert_eq!(prefer("wait=0"), Ok(None));
        assert_eq!(prefer("handling=lenient"), Ok(None));
        for wrong in ["wait", "wait=soon", "wait=-1", "wait=1.5", "=3", "a b"] {
            assert_eq!(prefer(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn event_ids_have_one_spelling() {
        assert_eq!(read_event_id("3.17"), Some(LastEventId { turn_no: 3, seq: 17 }));
        assert_eq!(read_event_id("3.0"), Some(LastEventId { turn_no: 3, seq: 0 }));
        for wrong in [
            "",
            "3",
            "3.",
            ".1",
            "0.1",
            "-3.1",
            "+3.1",
            "3.01",
            "3.1.1",
            "3.9223372036854775808",
            "a.b",
            "3. 1",
        ] {
            assert_eq!(read_event_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn versions_are_read_as_tags_or_numbers() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("if-match", value.parse().unwrap());
            if_match(&headers).map_err(|_| ())
        };
        for good in ["3", "\"3\"", "W/\"3\"", " 3 "] {
            assert_eq!(read(good), Ok(Some(3)), "{good}");
        }
        assert_eq!(read("*"), Ok(None));
        for wrong in ["", "\"3", "three", "0", "-1", "1.5", "\"1\", \"2\"", "99999999999999999999"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_visible_ascii_and_not_too_long() {
        let key = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            idempotency(&headers, "/chat", &1).map(|key| key.is_some()).map_err(|_| ())
        };
        assert_eq!(key("a-b"), Ok(true));
        assert_eq!(key(&"x".repeat(255)), Ok(true));
        assert_eq!(key(&"x".repeat(256)), Err(()));
        assert_eq!(key("a b"), Err(()));
        assert_eq!(key(""), Err(()));
    }
}
