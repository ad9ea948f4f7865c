//! How people sign in, and whose tokens count besides our own.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::reader::Reader;
use crate::identity::PasswordCost;

/// See `.env.example`.
#[derive(Debug, Clone)]
pub struct SignInConfig {
    /// `REGISTRATION`: whether anybody may make an account.
    pub registration: bool,
    /// `ACCESS_TOKEN_SECONDS`
    pub access_life: Duration,
    /// `SIGN_IN_IDLE_DAYS`
    pub idle_days: i64,
    /// `PASSWORD_HASH_*`
    pub password_cost: PasswordCost,
    /// `JWT_*`: none when only our own tokens count.
    pub outside_issuer: Option<OutsideIssuer>,
}

/// Another issuer whose tokens count.
#[derive(Debug, Clone)]
pub struct OutsideIssuer {
    /// `JWT_ISSUER`: the `iss` of its tokens.
    pub issuer: String,
    /// `JWT_AUDIENCE`: the `aud` of its tokens for us.
    pub audience: Option<String>,
    /// `JWT_JWKS_URL`: where it publishes its keys.
    pub jwks_url: Option<Url>,
    /// `JWT_HS256_SECRET`: what it shares with us instead.
    pub hs256_secret: Option<SecretString>,
    /// `JWT_JWKS_PAUSE_SECONDS`: the least time between two looks at its keys.
    pub jwks_pause: Duration,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    production: bool,
    own: Option<&Url>,
    warnings: &mut Vec<String>,
) -> SignInConfig {
    let registration = match reader.text("REGISTRATION") {
        Some("on") => true,
        Some("off") => false,
        _ => {
            reader.refuse("REGISTRATION", "is not on or off");
            false
        }
    };
    SignInConfig {
        registration,
        access_life: reader.seconds("ACCESS_TOKEN_SECONDS", 1.0, 86_400.0),
        idle_days: reader.number("SIGN_IN_IDLE_DAYS", 1, 3650),
        password_cost: PasswordCost {
            memory_kib: reader.number("PASSWORD_HASH_MEMORY_KIB", if production { 7168 } else { 8 }, 1 << 21),
            passes: reader.number("PASSWORD_HASH_PASSES", 1, 100),
            at_once: reader.number("PASSWORD_HASH_AT_ONCE", 1, 64),
        },
        outside_issuer: {
            let outside = outside_issuer(reader, production, warnings);
            let of = |url: &str| url.trim_end_matches('/').to_owned();
            if outside
                .as_ref()
                .is_some_and(|outside| own.is_some_and(|own| of(own.as_str()) == of(&outside.issuer)))
            {
                reader.refuse("JWT_ISSUER", "is PUBLIC_URL, whose tokens are this deployment's own");
            }
            outside
        },
    }
}

fn outside_issuer(
    reader: &mut Reader<'_>,
    production: bool,
    warnings: &mut Vec<String>,
) -> Option<OutsideIssuer> {
    let issuer = reader.text("JWT_ISSUER").map(str::to_owned);
    let audience = reader.text("JWT_AUDIENCE").map(str::to_owned);
    let jwks_url: Option<Url> = reader.optional("JWT_JWKS_URL", "an http or https URL");
    let hs256_secret = reader.secret("JWT_HS256_SECRET");
    let jwks_pause = reader.seconds("JWT_JWKS_PAUSE_SECONDS", 0.01, 3600.0);
    if let Some(url) = &jwks_url {
        let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let good = url.scheme() == "https" || (url.scheme() == "http" && (is_local || !production));
        if !good {
            reader.refuse("JWT_JWKS_URL", "is not an https URL");
        }
    }
    if hs256_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < 32) {
        reader.refuse("JWT_HS256_SECRET", "is shorter than 32 characters");
    }
    let Some(issuer) = issuer else {
        if jwks_url.is_some() || hs256_secret.is_some() {
            reader.refuse("JWT_ISSUER", "is required beside JWT_JWKS_URL or JWT_HS256_SECRET");
        }
        return None;
    };
    if jwks_url.is_none() && hs256_secret.is_none() {
        reader.refuse("JWT_ISSUER", "needs JWT_JWKS_URL or JWT_HS256_SECRET beside it");
    }
    if audience.is_none() {
        warnings.push(
            "JWT_AUDIENCE is not set: tokens that the issuer made for others count here too".to_owned(),
        );
    }
    Some(OutsideIssuer { issuer, audience, jwks_url, hs256_secret, jwks_pause })
}
