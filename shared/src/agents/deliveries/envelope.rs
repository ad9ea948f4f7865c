//! What an agent receives: the documented body of an event, or several of these, a token for it alone, and a signature after
//! Standard Webhooks.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    DeliverySettings,
    exchange::Exchange,
    store::{Claimed, UserFacts},
};
use crate::{
    agents::{AgentName, EventType, permissions::Part},
    error::{Error, Result},
    ids::UserId,
    outbound::Outgoing,
};

/// Tokens that agents get have this type, and no route of ours takes it.
const TYP: &str = "alfred-delivery+jwt";
/// Seconds for which such a token is good.
const TOKEN_LIFE: i64 = 300;

/// What is told of one event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) body: Value,
    /// The version of the user's context that it tells of.
    pub(super) version: Option<i64>,
}

/// What the agent is told of each delivery. Within an exchange, what comes before is told of already.
pub(super) fn events(deliveries: &[Claimed], users: &[UserFacts]) -> Vec<Event> {
    let mut told: HashMap<UserId, i64> = HashMap::new();
    let event = |(claimed, user): (&Claimed, &UserFacts)| {
        let before = told.get(&claimed.user_id).copied().max(user.told);
        let version = tells_of_context(claimed.event()).then_some(user.version);
        if let Some(version) = version.max(before) {
            told.insert(claimed.user_id, version);
        }
        Event { body: body(claimed, user, version, before), version }
    };
    deliveries.iter().zip(users).map(event).collect()
}

/// The request that tells the agent of these events.
pub(super) fn request(
    exchange: &Exchange,
    events: &[Event],
    endpoint: &str,
    keys: &[Vec<u8>],
    settings: &DeliverySettings,
) -> Result<Outgoing> {
    let (path, id, request_id, body) = match (exchange.deliveries.as_slice(), events) {
        ([delivery], [event]) => {
            ("", delivery.event_id.to_string(), delivery.id.to_string(), event.body.clone())
        }
        (deliveries, events) => {
            let id = batch_id(deliveries);
            let bodies: Vec<&Value> = events.iter().map(|event| &event.body).collect();
            ("/batch", id.clone(), id, json!({ "events": bodies }))
        }
    };
    let url = format!("{endpoint}/context/update{path}").parse().map_err(Error::internal)?;
    let now = Utc::now().timestamp();
    let secret = |value: String| {
        let mut value = HeaderValue::try_from(value).map_err(Error::internal)?;
        value.set_sensitive(true);
        Ok::<_, Error>(value)
    };
    let token = token(&exchange.agent, &request_id, settings, now)?;
    // What is signed are the very bytes that are sent: the one writing of this value.
    let signature = signatures(keys, &id, now, &body.to_string())?;
    Ok(Outgoing::json(&url, &body)
        .header(AUTHORIZATION, secret(format!("Bearer {token}"))?)
        .header(HeaderName::from_static("webhook-id"), HeaderValue::try_from(&id).map_err(Error::internal)?)
        .header(HeaderName::from_static("webhook-timestamp"), now.into())
        .header(HeaderName::from_static("webhook-signature"), secret(signature)?)
        .header(
            HeaderName::from_static("x-request-id"),
            HeaderValue::try_from(request_id).map_err(Error::internal)?,
        ))
}

/// The same for the same events, so that a batch that is told again, because nobody knows what came of it, is known by its id.
fn batch_id(deliveries: &[Claimed]) -> String {
    let mut hash = Sha256::new();
    for delivery in deliveries {
        hash.update(delivery.event_id.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let id = Uuid::from_bytes(std::array::from_fn(|place| digest[place]));
    format!("batch_{}", id.simple())
}

fn body(claimed: &Claimed, user: &UserFacts, version: Option<i64>, before: Option<i64>) -> Value {
    let event = claimed.event();
    json!({
        "event_type": event.told_as(),
        "event_id": claimed.event_id,
        "correlation_id": claimed.correlation_id,
        "timestamp": claimed.created_at,
        "version": version,
        "prev_version": before.filter(|_| version.is_some()),
        "user_context": user_context(claimed, user, version.is_some()),
        "session_info": if event == EventType::UserLogin { claimed.payload.clone() } else { Value::Null },
    })
}

/// Whether such an event carries what is known of its user. Who is gone is told of by id alone.
fn tells_of_context(event: EventType) -> bool {
    event != EventType::UserLogout
}

/// What the agent may see of the user.
fn user_context(claimed: &Claimed, user: &UserFacts, tells: bool) -> Value {
    if !tells {
        return json!({ "user_id": claimed.user_id });
    }
    let mut seen = user.document.seen_by(claimed.target_agent.as_str(), user.granted.clone());
    seen.insert("user_id".to_owned(), json!(claimed.user_id));
    seen.insert("email".to_owned(), json!(user.email));
    if user.granted.reads(Part::Session) {
        seen.insert("is_active".to_owned(), json!(user.sign_in.is_some()));
        seen.insert("session_id".to_owned(), json!(user.sign_in));
    }
    Value::Object(seen)
}

fn token(agent: &AgentName, id: &str, settings: &DeliverySettings, now: i64) -> Result<String> {
    let header = Header { typ: Some(TYP.to_owned()), ..Header::new(Algorithm::HS256) };
    let claims = json!({
        "iss": settings.issuer,
        "aud": agent,
        "sub": "alfred",
        "jti": id,
        "iat": now,
        "exp": now + TOKEN_LIFE,
    });
    let key = EncodingKey::from_secret(settings.token_key.expose_secret().as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).map_err(Error::internal)
}

/// One signature for each secret that is good, parted by spaces (Standard Webhooks, "signature scheme").
fn signatures(keys: &[Vec<u8>], id: &str, timestamp: i64, body: &str) -> Result<String> {
    if keys.is_empty() {
        return Err(Error::internal("the agent has no secret to sign with"));
    }
    let signed: Result<Vec<String>> = keys
        .iter()
        .map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(Error::internal)?;
            mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
            Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        })
        .collect();
    Ok(signed?.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn a_signature_is_the_specifications() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            signatures(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
