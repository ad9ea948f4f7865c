//! Agent JWTs: what an agent shows on every request of its own. Signed with `AGENT_JWT_SECRET_KEY`, as the tokens of
//! deliveries are, but with another type and another audience, so that neither passes for the other.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SideSettings;
use crate::error::{Error, Result};

const TYP: &str = "alfred-agent+jwt";
const AUDIENCE: &str = "alfred";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    /// The agent's name.
    pub(super) sub: String,
    pub(super) tenant: Uuid,
    /// The session.
    pub(super) sid: Uuid,
    pub(super) iat: i64,
    pub(super) exp: i64,
}

/// The token of a session.
pub(super) fn make(
    settings: &SideSettings,
    agent: &str,
    tenant: Uuid,
    session: Uuid,
    ends: DateTime<Utc>,
) -> Result<SecretString> {
    let header = Header { typ: Some(TYP.to_owned()), ..Header::new(Algorithm::HS256) };
    let claims = Claims {
        iss: settings.issuer.clone(),
        aud: AUDIENCE.to_owned(),
        sub: agent.to_owned(),
        tenant,
        sid: session,
        iat: Utc::now().timestamp(),
        exp: ends.timestamp(),
    };
    let key = EncodingKey::from_secret(settings.token_key.expose_secret().as_bytes());
    Ok(jsonwebtoken::encode(&header, &claims, &key).map_err(Error::internal)?.into())
}

/// The claims of a token that we made for an agent and that has not expired.
pub(super) fn read(settings: &SideSettings, token: &SecretString) -> Option<Claims> {
    let text = token.expose_secret();
    let header = jsonwebtoken::decode_header(text).ok()?;
    if header.alg != Algorithm::HS256 || header.typ.as_deref() != Some(TYP) || header.crit.is_some() {
        return None;
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let key = DecodingKey::from_secret(settings.token_key.expose_secret().as_bytes());
    Some(jsonwebtoken::decode::<Claims>(text, &key, &validation).ok()?.claims)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn settings(key: &str) -> SideSettings {
        SideSettings {
            token_key: key.into(),
            issuer: "https://a.example".to_owned(),
            token_life: std::time::Duration::from_secs(60),
            default_tenant: crate::config::DEFAULT_TENANT,
        }
    }

    fn signed(header: &Header, claims: &Claims) -> SecretString {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(b"key")).unwrap().into()
    }

    #[test]
    fn only_a_live_token_of_ours_for_an_agent_is_read() {
        let (tenant, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ends = Utc::now() + TimeDelta::minutes(1);
        let token = make(&settings("key"), "risk_management", tenant, session, ends).unwrap();
        let claims = read(&settings("key"), &token).unwrap();
        assert_eq!((claims.tenant, claims.sid, claims.sub.as_str()), (tenant, session, "risk_management"));
        assert_eq!(read(&settings("another"), &token), None);
        let past = Utc::now() - TimeDelta::seconds(2);
        let old = make(&settings("key"), "risk_management", tenant, session, past).unwrap();
        assert_eq!(read(&settings("key"), &old), None);
        let header = Header { typ: Some(TYP.to_owned()), ..Header::new(Algorithm::HS256) };
        assert!(read(&settings("key"), &signed(&header, &claims)).is_some());
        for wrong in [Some("alfred-delivery+jwt"), Some("JWT"), Some("at+jwt"), None] {
            let header = Header { typ: wrong.map(str::to_owned), ..Header::new(Algorithm::HS256) };
            assert_eq!(read(&settings("key"), &signed(&header, &claims)), None, "{wrong:?}");
        }
        for wrong in [
            Claims { aud: "risk_management".to_owned(), ..claims.clone() },
            Claims { iss: "https://b.example".to_owned(), ..claims.clone() },
        ] {
            assert_eq!(read(&settings("key"), &signed(&header, &wrong)), None, "{wrong:?}");
        }
        let mut other = header;
        other.alg = Algorithm::HS512;
        assert_eq!(read(&settings("key"), &signed(&other, &claims)), None);
        assert_eq!(read(&settings("key"), &"not.a.token".into()), None);
    }
}
