//! What an exchange with an agent means for the delivery, and for the agent.

use std::time::Duration;

use http::{StatusCode, header::RETRY_AFTER};

use super::DeliverySettings;
use crate::{error::Error, outbound::Incoming};

/// The longest that an agent may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What came of one try.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) status: Option<StatusCode>,
    /// The beginning of the answer's body.
    pub(super) body: Option<String>,
    pub(super) error: Option<String>,
    retry_after: Option<Duration>,
    /// No further try could go better.
    is_final: bool,
}

impl Told {
    /// The agent answered.
    pub(super) fn answered(answer: &Incoming, kept: usize) -> Self {
        let body = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
        let mut end = body.len().min(kept);
        while !body.is_char_boundary(end) {
            end -= 1;
        }
        let status = answer.status;
        let retry_after =
            answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let error = match status {
            status if status.is_success() => None,
            status if status.is_redirection() => {
                Some(format!("the agent answered {status}; redirects are not followed"))
            }
            status => Some(format!("the agent answered {status}")),
        };
        Self {
            status: Some(status),
            body: (end > 0).then(|| body[..end].to_owned()),
            error,
            retry_after: retry_after.map(Duration::from_secs),
            is_final: status == StatusCode::GONE,
        }
    }

    /// The agent did not answer, or nobody knows what it answered.
    pub(super) fn silent(error: &Error) -> Self {
        Self {
            status: None,
            body: None,
            error: Some(error.message.to_string()),
            retry_after: None,
            is_final: false,
        }
    }

    /// The delivery cannot be made: its address is refused, or it cannot be signed.
    pub(super) fn impossible(error: &Error) -> Self {
        Self { is_final: true, ..Self::silent(error) }
    }

    /// What becomes of the delivery.
    pub(super) fn outcome(&self, retries: i64, settings: &DeliverySettings) -> Outcome {
        if self.status.is_some_and(|status| status.is_success()) {
            return Outcome::Delivered;
        }
        if self.is_final || retries >= settings.max_retries {
            return Outcome::Dead;
        }
        let doubled = 1_u32 << u32::try_from(retries.clamp(0, 16)).unwrap_or(16);
        let pause = settings.retry_base * doubled;
        // Jitter, so that what failed together does not come back together.
        let pause = pause.mul_f64(rand::random_range(0.8..1.2));
        Outcome::Retry(self.retry_after.map_or(pause, |wait| wait.clamp(pause, LONGEST_WAIT)))
    }

    /// The agent says that it is no more.
    pub(super) fn is_gone(&self) -> bool {
        self.status == Some(StatusCode::GONE)
    }

    /// The agent is in trouble, which counts for its breaker. One that is merely busy is not.
    pub(super) fn is_failure(&self) -> bool {
        match self.status {
            Some(status) => !status.is_success() && status != StatusCode::TOO_MANY_REQUESTS,
            None => !self.is_final,
        }
    }
}

/// What becomes of a delivery after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The agent has it.
    Delivered,
    /// Again after this time.
    Retry(Duration),
    /// Never again by itself.
    Dead,
}

impl Outcome {
    /// The word of the metric, and of the table's status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(_) => "retry",
            Self::Dead => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn settings() -> DeliverySettings {
        DeliverySettings {
            enabled: true,
            timeout: Duration::from_secs(5),
            max_retries: 3,
            retry_base: Duration::from_secs(1),
            breaker_threshold: 5,
            breaker_recovery: Duration::from_secs(30),
            token_key: "k".into(),
            issuer: "http://localhost".to_owned(),
        }
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Told {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        Told::answered(&Incoming { status: StatusCode::from_u16(status).unwrap(), headers, body }, 8)
    }

    #[test]
    fn retries_double_up_to_their_number_and_a_final_answer_ends_them() {
        for (retries, seconds) in [(0, 1.0), (1, 2.0), (2, 4.0)] {
            let Outcome::Retry(pause) = answer(500, None, "").outcome(retries, &settings()) else { panic!() };
            assert!((0.8..1.2).contains(&(pause.as_secs_f64() / seconds)), "{pause:?}");
        }
        assert_eq!(answer(500, None, "").outcome(3, &settings()), Outcome::Dead);
        assert_eq!(answer(204, None, "").outcome(3, &settings()), Outcome::Delivered);
        let gone = answer(410, None, "");
        assert!(gone.is_gone() && gone.outcome(0, &settings()) == Outcome::Dead);
        assert_eq!(Told::impossible(&Error::unacceptable("no")).outcome(0, &settings()), Outcome::Dead);
        assert!(matches!(answer(301, None, "").outcome(0, &settings()), Outcome::Retry(_)));
    }

    #[test]
    fn an_agent_may_ask_for_time_within_bounds() {
        let wait = |value| match answer(429, Some(value), "").outcome(0, &settings()) {
            Outcome::Retry(wait) => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("30"), 30);
        assert_eq!(wait("999999999"), 3600);
        assert!(wait("0") <= 1 && wait("soon") <= 1);
        assert!(!answer(429, None, "").is_failure() && answer(503, None, "").is_failure());
    }

    #[test]
    fn of_an_answer_the_beginning_is_kept_as_the_database_takes_it() {
        assert_eq!(answer(200, None, "0123456789").body.as_deref(), Some("01234567"));
        assert_eq!(answer(200, None, "0\u{0}").body.as_deref(), Some("0\u{fffd}"));
        assert_eq!(answer(200, None, "1234567é").body.as_deref(), Some("1234567"));
        assert_eq!(answer(200, None, "").body, None);
    }
}
