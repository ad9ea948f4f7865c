//! The credential that a request shows. Whoever counts requests looks at the same thing as whoever checks them: another
//! spelling of a credential is no other credential.

use http::{HeaderMap, header};
use secrecy::SecretString;
use shared::{
    error::{Code, Error, Result},
    identity,
};

use super::{Cookies, LONGEST};

/// A credential as the request has it.
pub(crate) enum Shown {
    Bearer(SecretString),
    ApiKey(SecretString),
    Cookie(SecretString),
}

/// The credential of a request. A header that a program sets wins over a cookie that a browser adds by itself.
///
/// # Errors
/// 401.
pub(crate) fn shown(headers: &HeaderMap, cookies: &Cookies) -> Result<Shown> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && token.len() <= LONGEST => {
                Ok(Shown::Bearer(token.trim().into()))
            }
            _ => Err(Error::new(Code::Auth, "the header Authorization takes: Bearer and an access token")),
        };
    }
    if let Some(value) = headers.get("x-api-key") {
        return match value.to_str() {
            Ok(key) if key.len() <= LONGEST => Ok(Shown::ApiKey(key.into())),
            _ => Err(Shown::ApiKey(SecretString::default()).unknown()),
        };
    }
    cookies.session(headers).map(Shown::Cookie).ok_or_else(|| {
        Error::new(
            Code::Auth,
            "a credential is required: Authorization: Bearer with an access token, X-API-Key, or a session's cookie",
        )
    })
}

impl Shown {
    /// The word of its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
            Self::ApiKey(_) => "key",
            Self::Cookie(_) => "cookie",
        }
    }

    /// The credential itself.
    pub(crate) fn secret(&self) -> &SecretString {
        match self {
            Self::Bearer(secret) | Self::ApiKey(secret) | Self::Cookie(secret) => secret,
        }
    }

    /// The one refusal of each kind: it does not say why.
    pub(super) fn unknown(&self) -> Error {
        match self {
            Self::ApiKey(_) => Error::new(Code::Auth, "the API key is unknown, expired or revoked"),
            Self::Bearer(_) => identity::not_good(),
            Self::Cookie(_) => Error::new(Code::Auth, "the session has ended; sign in again"),
        }
    }
}
