//! What an agent receives: the documented body, a token for it alone, and a signature after Standard Webhooks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    DeliverySettings,
    store::{Claimed, Facts},
};
use crate::{
    agents::{EventType, permissions::Part},
    error::{Error, Result},
    outbound::Outgoing,
};

/// Tokens that agents get have this type, and no route of ours takes it.
const TYP: &str = "alfred-delivery+jwt";
/// Seconds for which such a token is good.
const TOKEN_LIFE: i64 = 300;

/// The request that tells the agent.
pub(super) fn request(
    claimed: &Claimed,
    facts: &Facts,
    keys: &[Vec<u8>],
    settings: &DeliverySettings,
) -> Result<Outgoing> {
    let url = format!("{}/context/update", facts.endpoint).parse().map_err(Error::internal)?;
    let body = body(claimed, facts);
    let now = Utc::now().timestamp();
    let id = claimed.event_id.to_string();
    let secret = |value: String| {
        let mut value = HeaderValue::try_from(value).map_err(Error::internal)?;
        value.set_sensitive(true);
        Ok::<_, Error>(value)
    };
    let token = token(claimed, settings, now)?;
    // What is signed are the very bytes that are sent: the one writing of this value.
    let signature = signatures(keys, &id, now, &body.to_string())?;
    Ok(Outgoing::json(&url, &body)
        .header(AUTHORIZATION, secret(format!("Bearer {token}"))?)
        .header(HeaderName::from_static("webhook-id"), HeaderValue::try_from(&id).map_err(Error::internal)?)
        .header(HeaderName::from_static("webhook-timestamp"), now.into())
        .header(HeaderName::from_static("webhook-signature"), secret(signature)?)
        .header(
            HeaderName::from_static("x-request-id"),
            HeaderValue::try_from(claimed.id.to_string()).map_err(Error::internal)?,
        ))
}

fn body(claimed: &Claimed, facts: &Facts) -> Value {
    let event = claimed.event();
    let tells = tells_of_context(event);
    json!({
        "event_type": event.told_as(),
        "event_id": claimed.event_id,
        "correlation_id": claimed.correlation_id,
        "timestamp": claimed.created_at,
        "version": tells.then_some(facts.version),
        "prev_version": facts.told.filter(|_| tells),
        "user_context": user_context(claimed, facts, tells),
        "session_info": if event == EventType::UserLogin { claimed.payload.clone() } else { Value::Null },
    })
}

/// Whether such an event carries what is known of its user. Who is gone is told of by id alone.
pub(super) fn tells_of_context(event: EventType) -> bool {
    event != EventType::UserLogout
}

/// What the agent may see of the user.
fn user_context(claimed: &Claimed, facts: &Facts, tells: bool) -> Value {
    if !tells {
        return json!({ "user_id": claimed.user_id });
    }
    let mut seen = facts.document.seen_by(claimed.target_agent.as_str(), facts.granted.clone());
    seen.insert("user_id".to_owned(), json!(claimed.user_id));
    seen.insert("email".to_owned(), json!(facts.email));
    if facts.granted.reads(Part::Session) {
        seen.insert("is_active".to_owned(), json!(facts.sign_in.is_some()));
        seen.insert("session_id".to_owned(), json!(facts.sign_in));
    }
    Value::Object(seen)
}

fn token(claimed: &Claimed, settings: &DeliverySettings, now: i64) -> Result<String> {
    let header = Header { typ: Some(TYP.to_owned()), ..Header::new(Algorithm::HS256) };
    let claims = json!({
        "iss": settings.issuer,
        "aud": claimed.target_agent,
        "sub": "alfred",
        "jti": claimed.id,
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
