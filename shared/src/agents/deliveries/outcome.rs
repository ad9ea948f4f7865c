//! What an exchange with an agent means for its deliveries, and for the agent.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{DeliverySettings, store::Claimed};
use crate::{error::Error, outbound::Incoming};

/// The longest that an agent may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Bytes of an agent's answer that are stored.
pub(super) const KEPT: usize = 8 * 1024;

/// What came of one try: what the agent said, of all that it was told or of one event of a batch.
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
    pub(super) fn answered(answer: &Incoming) -> Self {
        let body = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
        Self::said(answer.status, &answer.headers, &body)
    }

    fn said(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let error = match status {
            status if status.is_success() => None,
            status if status.is_redirection() => {
                Some(format!("the agent answered {status}; redirects are not followed"))
            }
            status => Some(format!("the agent answered {status}")),
        };
        Self {
            status: Some(status),
            body: beginning(body, KEPT),
            error,
            retry_after: retry_after.map(Duration::from_secs),
            is_final: status == StatusCode::GONE,
        }
    }

    /// The agent took the batch, but not this event of it.
    fn passed_over(error: &str) -> Self {
        Self { status: None, body: None, error: Some(error.to_owned()), retry_after: None, is_final: false }
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

    /// What becomes of a delivery that was tried alone, or that the agent named.
    pub(super) fn outcome(&self, retries: i64, settings: &DeliverySettings) -> Outcome {
        if self.is_well() {
            return Outcome::Delivered;
        }
        if self.is_final || retries >= settings.max_retries {
            return Outcome::Dead;
        }
        Outcome::Retry(self.pause(retries, settings))
    }

    fn pause(&self, retries: i64, settings: &DeliverySettings) -> Duration {
        let doubled = 1_u32 << u32::try_from(retries.clamp(0, 16)).unwrap_or(16);
        let pause = settings.retry_base * doubled;
        // Jitter, so that what failed together does not come back together.
        let pause = pause.mul_f64(rand::random_range(0.8..1.2));
        self.retry_after.map_or(pause, |wait| wait.clamp(pause, LONGEST_WAIT))
    }

    /// The agent took it.
    pub(super) fn is_well(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
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
    /// Again after this time, alone; this was no try of it, because what it went together with may be what failed.
    Alone(Duration),
    /// Never again by itself.
    Dead,
}

impl Outcome {
    /// The word of the metric, and of the table's status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(_) | Self::Alone(_) => "retry",
            Self::Dead => "failed",
        }
    }

    /// How long until it is due.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Retry(pause) | Self::Alone(pause) => pause,
            Self::Delivered | Self::Dead => Duration::ZERO,
        }
    }
}

/// What is written down of a delivery after an exchange.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) told: Told,
    pub(super) outcome: Outcome,
    /// The version of the user's context that it told of.
    pub(super) version: Option<i64>,
}

#[derive(Deserialize)]
struct Named {
    results: Vec<Value>,
}

/// What an agent that took a batch says of single events of it.
pub(super) fn named(answer: &Incoming) -> HashMap<Uuid, Told> {
    let Ok(Named { results }) = serde_json::from_slice(&answer.body) else { return HashMap::new() };
    let told = results.iter().filter_map(|result| {
        let event = result.get("event_id")?.as_str()?.parse().ok()?;
        let status =
            result.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        let told = match status.and_then(|status| StatusCode::from_u16(status).ok()) {
            Some(status) => Told::said(status, &answer.headers, &result.to_string()),
            None => Told::passed_over("the agent named no status of this event"),
        };
        Some((event, told))
    });
    told.collect()
}

/// What becomes of each delivery of an exchange.
pub(super) fn settlements(
    deliveries: &[Claimed],
    versions: &[Option<i64>],
    told: &Told,
    named: &HashMap<Uuid, Told>,
    settings: &DeliverySettings,
) -> Vec<Settlement> {
    let is_alone = deliveries.len() == 1;
    // Of all that is told together no more is kept than of one.
    let share = || Told {
        body: told.body.as_deref().and_then(|body| beginning(body, KEPT / deliveries.len())),
        ..told.clone()
    };
    // Users of whom an event is to come again: what the agent took of what stands behind it comes again as well.
    let mut held = HashSet::new();
    let settle = |(delivery, version): (&Claimed, &Option<i64>)| {
        let (told, outcome) = if is_alone || told.is_final {
            (share(), told.outcome(delivery.retry_count, settings))
        } else if !told.is_well() {
            (share(), Outcome::Alone(told.pause(0, settings)))
        } else if held.contains(&delivery.user_id) {
            let told = Told::passed_over("an event of this user that comes before it was not taken");
            (told, Outcome::Alone(Duration::ZERO))
        } else {
            let told = named.get(&delivery.event_id).cloned().unwrap_or_else(share);
            let outcome = told.outcome(delivery.retry_count, settings);
            (told, outcome)
        };
        if matches!(outcome, Outcome::Retry(_)) {
            held.insert(delivery.user_id);
        }
        Settlement { told, outcome, version: *version }
    };
    deliveries.iter().zip(versions).map(settle).collect()
}

/// At most so many bytes, none of nothing.
fn beginning(text: &str, most: usize) -> Option<String> {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (end > 0).then(|| text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::ids::{TenantId, UserId};

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
            default_tenant: TenantId::generate(),
        }
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Told {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        Told::answered(&Incoming { status: StatusCode::from_u16(status).unwrap(), headers, body })
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
        assert_eq!(beginning("0123456789", 8).as_deref(), Some("01234567"));
        assert_eq!(beginning("1234567é", 8).as_deref(), Some("1234567"));
        assert_eq!(beginning("", 8), None);
        assert_eq!(answer(200, None, "0\u{0}").body.as_deref(), Some("0\u{fffd}"));
        assert_eq!(answer(200, None, &"x".repeat(10_000)).body.unwrap().len(), KEPT);
    }

    /// Deliveries about these users, none tried yet.
    fn deliveries(users: &[u128]) -> Vec<Claimed> {
        let delivery = |(seq, user): (usize, &u128)| Claimed {
            tenant_id: TenantId(Uuid::nil()),
            id: Uuid::new_v4(),
            event_id: Uuid::new_v4(),
            target_agent: "a".parse().unwrap(),
            user_id: UserId(Uuid::from_u128(*user)),
            event_type: "user_login".to_owned(),
            payload: Value::Null,
            retry_count: 0,
            correlation_id: None,
            created_at: chrono::Utc::now(),
            seq: i64::try_from(seq).unwrap(),
            lease: Uuid::nil(),
            breaker_was_open: false,
            in_batch: true,
            belongs: true,
        };
        users.iter().enumerate().map(delivery).collect()
    }

    fn words(deliveries: &[Claimed], status: u16, body: &Value) -> Vec<&'static str> {
        let answer = Incoming {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        };
        let versions = vec![None; deliveries.len()];
        let told = Told::answered(&answer);
        let each = settlements(deliveries, &versions, &told, &named(&answer), &settings());
        let word = |one: &Settlement| match one.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry(_) => "retry",
            Outcome::Alone(_) => "alone",
            Outcome::Dead => "dead",
        };
        each.iter().map(word).collect()
    }

    #[test]
    fn a_batch_that_is_taken_is_taken_but_for_what_is_named() {
        let batch = deliveries(&[1, 2, 1, 3, 1, 2]);
        let said = |statuses: &[(usize, Value)]| {
            let results: Vec<Value> = statuses
                .iter()
                .map(|(place, status)| json!({"event_id": batch[*place].event_id, "status": status}))
                .collect();
            words(&batch, 200, &json!({ "results": results }))
        };
        let all = ["delivered"; 6];
        assert_eq!(said(&[]), all);
        assert_eq!(said(&[(0, json!(204)), (5, json!(200))]), all);
        assert_eq!(words(&batch, 202, &json!("thanks")), all);
        assert_eq!(words(&batch, 200, &json!({"results": [7, {"event_id": "x", "status": 500}]})), all);
        // What stands behind an event of the same user comes again after it, whatever the agent says of it.
        let expected = ["retry", "delivered", "alone", "delivered", "alone", "delivered"];
        assert_eq!(said(&[(0, json!(503)), (2, json!(200))]), expected);
        assert_eq!(said(&[(0, json!("no"))]), expected);
        // A dead one holds up nobody.
        assert_eq!(
            said(&[(0, json!(410))]),
            ["dead", "delivered", "delivered", "delivered", "delivered", "delivered"]
        );
    }

    #[test]
    fn a_batch_that_is_not_taken_falls_apart_and_costs_no_try() {
        let batch = deliveries(&[1, 2, 1]);
        let named = json!({"results": [{"event_id": batch[0].event_id, "status": 200}]});
        for status in [301, 404, 413, 429, 500] {
            assert_eq!(words(&batch, status, &named), ["alone"; 3], "{status}");
        }
        assert_eq!(words(&batch, 410, &named), ["dead"; 3]);
        assert_eq!(words(&batch[..1], 500, &named), ["retry"]);
    }

    #[test]
    fn of_a_batchs_answer_no_more_is_kept_than_of_one() {
        let batch = deliveries(&[1, 2]);
        let told = answer(200, None, &"x".repeat(10_000));
        let each = settlements(&batch, &[None, None], &told, &HashMap::new(), &settings());
        assert!(each.iter().all(|one| one.told.body.as_ref().is_some_and(|body| body.len() == KEPT / 2)));
    }
}
