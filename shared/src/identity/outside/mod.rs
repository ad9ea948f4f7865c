//! Tokens of another issuer: any OIDC provider, by its published keys or by a shared secret.
//!
//! Invariant: which keys may check a token is decided by the configuration, never by the token. A shared secret checks
//! HS256 and nothing else; a published key checks what its own type is for, and a published key that is a secret checks
//! nothing. So no public key is ever used as a secret, and `none` is not an algorithm.

mod keys;
mod store;

use std::time::Duration;

use chrono::Utc;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous::insecure_decode_claims};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sqlx::PgPool;

use self::keys::PublishedKeys;
use super::{Credential, CredentialTenant, EmailAddress, OutsideSubject, Principal, Scopes};
use crate::{config::OutsideIssuer, error::Result, ids::UserId};

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY: u64 = 60;
/// The longest subject; OIDC allows no more.
const LONGEST_SUBJECT: usize = 255;
/// What published keys may check.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The other issuer.
pub struct Outside {
    engine: PgPool,
    issuer: String,
    audience: Option<String>,
    secret: Option<DecodingKey>,
    published: Option<PublishedKeys>,
}

/// What is read of a token; all else is the issuer's affair.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    email: Option<String>,
    #[serde(default)]
    email_verified: Truth,
    tenant_id: Option<String>,
    /// WorkOS's name of the same.
    org_id: Option<String>,
}

/// Some issuers write booleans as text.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Truth {
    Said(bool),
    Written(String),
    #[default]
    Unsaid,
}

#[derive(Deserialize)]
struct Issuer {
    iss: Option<String>,
}

impl Outside {
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(engine: PgPool, config: &OutsideIssuer) -> Result<Self> {
        let published =
            config.jwks_url.as_ref().map(|url| PublishedKeys::new(url.clone(), config.jwks_pause));
        Ok(Self {
            engine,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            secret: config
                .hs256_secret
                .as_ref()
                .map(|secret| DecodingKey::from_secret(secret.expose_secret().as_bytes())),
            published: published.transpose()?,
        })
    }

    /// Whether a token says it is of this issuer. That alone makes it no good; it says which keys are to check it.
    #[must_use]
    pub fn is_named_by(&self, token: &SecretString) -> bool {
        insecure_decode_claims::<Issuer>(token.expose_secret())
            .is_ok_and(|claims| claims.iss.as_deref() == Some(&self.issuer))
    }

    /// Who a token belongs to, and for how long it is good; none when it is not. A user who is seen for the first time
    /// is made.
    ///
    /// # Errors
    /// The database's.
    pub async fn by_token(&self, token: &SecretString) -> Result<Option<(Principal, Duration)>> {
        let Some(claims) = self.checked(token).await? else { return Ok(None) };
        let subject = &claims.sub;
        if subject.is_empty() || subject.len() > LONGEST_SUBJECT || subject.contains('\0') {
            return Ok(None);
        }
        let seconds =
            (claims.exp - Utc::now().timestamp_millis() as f64 / 1000.0 + LEEWAY as f64).clamp(0.0, 86_400.0);
        let user = match store::find(&self.engine, &self.issuer, subject).await? {
            Some(user) => user,
            None => self.welcome(&claims).await?,
        };
        let wish = claims.tenant_id.or(claims.org_id);
        let principal = Principal {
            user: user.id,
            email: user.email,
            email_verified: user.email_verified,
            timezone: user.timezone,
            scopes: Scopes::ALL,
            operator: false,
            tenant: wish.map_or(CredentialTenant::Open, CredentialTenant::Wished),
            credential: Credential::OutsideBearer,
            outside: Some(OutsideSubject { issuer: self.issuer.clone(), subject: claims.sub }),
        };
        Ok(Some((principal, Duration::from_secs_f64(seconds))))
    }

    async fn welcome(&self, claims: &Claims) -> Result<store::SeenUser> {
        let claimed = claims.email.as_deref().and_then(|email| EmailAddress::parse(email).ok());
        let verified = match &claims.email_verified {
            Truth::Said(said) => *said,
            Truth::Written(text) => text == "true",
            Truth::Unsaid => false,
        };
        let new = store::NewUser {
            id: UserId::generate(),
            issuer: &self.issuer,
            subject: &claims.sub,
            claimed_email: claimed.as_ref().map(EmailAddress::as_str),
            trusted_email: claimed.as_ref().filter(|_| verified).map(EmailAddress::as_str),
        };
        let user = store::make(&self.engine, &new).await?;
        tracing::info!(account = %user.id, "a user of the outside issuer was seen for the first time");
        Ok(user)
    }

    /// The claims of a token that the issuer has signed for us and that is good now.
    async fn checked(&self, token: &SecretString) -> Result<Option<Claims>> {
        let text = token.expose_secret();
        let Ok(header) = jsonwebtoken::decode_header(text) else { return Ok(None) };
        // Extensions that must be understood are not.
        if header.crit.is_some() {
            return Ok(None);
        }
        let key = match (&self.secret, &self.published) {
            (Some(secret), _) if header.alg == Algorithm::HS256 => Some(secret.clone()),
            (_, Some(published)) if ASYMMETRIC.contains(&header.alg) => {
                published.key(header.kid.as_deref(), header.alg).await
            }
            _ => None,
        };
        let Some(key) = key else { return Ok(None) };
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
            }
            None => {
                validation.validate_aud = false;
                validation.set_required_spec_claims(&["exp", "iss", "sub"]);
            }
        }
        Ok(jsonwebtoken::decode::<Claims>(text, &key, &validation).ok().map(|decoded| decoded.claims))
    }
}
