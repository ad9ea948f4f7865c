//! The text of refresh tokens, session cookies and CSRF tokens.
//!
//! `ar_` or `ac_`, then base64 of sign-in id (16 bytes), generation (8) and code (32). The code is over kind, id,
//! generation and the row's nonce, so neither the database alone nor the deployment's key alone makes a token.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::{error::Result, identity::secrets::DerivedKeys, ids::SignInId};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Refreshes.
    Token,
    /// Is a browser's session.
    Cookie,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Cookie => "cookie",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Token => "ar_",
            Self::Cookie => "ac_",
        }
    }
}

/// A token that was taken apart; nothing about it is true yet.
pub(super) struct Presented {
    pub(super) kind: Kind,
    pub(super) sign_in: SignInId,
    pub(super) generation: i64,
    code: [u8; 32],
}

impl Presented {
    pub(super) fn is_right(&self, keys: &DerivedKeys, nonce: &[u8]) -> bool {
        let (id, generation) = (self.sign_in.0.as_bytes(), self.generation.to_be_bytes());
        keys.is_code(&[self.kind.prefix().as_bytes(), id, &generation, nonce], &self.code)
    }
}

pub(super) fn make(
    keys: &DerivedKeys,
    kind: Kind,
    sign_in: SignInId,
    generation: i64,
    nonce: &[u8],
) -> Result<SecretString> {
    let (id, generation) = (sign_in.0.as_bytes(), generation.to_be_bytes());
    let code = keys.code(&[kind.prefix().as_bytes(), id, &generation, nonce])?;
    let bytes = [id.as_slice(), &generation, &code].concat();
    Ok(format!("{}{}", kind.prefix(), BASE64_URL_SAFE_NO_PAD.encode(bytes)).into())
}

pub(super) fn read(token: &SecretString, kind: Kind) -> Option<Presented> {
    let text = token.expose_secret().strip_prefix(kind.prefix())?;
    let bytes: [u8; 56] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (generation, code) = rest.split_first_chunk::<8>()?;
    Some(Presented {
        kind,
        sign_in: SignInId(Uuid::from_bytes(*id)),
        generation: i64::from_be_bytes(*generation),
        code: code.try_into().ok()?,
    })
}

/// The CSRF token of a cookie: another site can make a browser send the cookie, but knows neither of the two.
pub(super) fn csrf(keys: &DerivedKeys, cookie: &SecretString) -> Result<SecretString> {
    let code = keys.code(&[b"csrf:", cookie.expose_secret().as_bytes()])?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(code).into())
}

pub(super) fn is_csrf(keys: &DerivedKeys, cookie: &SecretString, csrf: &str) -> bool {
    let code = BASE64_URL_SAFE_NO_PAD.decode(csrf).unwrap_or_default();
    keys.is_code(&[b"csrf:", cookie.expose_secret().as_bytes()], &code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_its_row_kind_and_generation() {
        let keys = DerivedKeys::new(&["key".into()], "tests");
        let id = SignInId::generate();
        let token = make(&keys, Kind::Token, id, 7, b"nonce").unwrap();
        let presented = read(&token, Kind::Token).unwrap();
        assert_eq!((presented.sign_in, presented.generation), (id, 7));
        assert!(presented.is_right(&keys, b"nonce") && !presented.is_right(&keys, b"other"));
        assert!(!Presented { generation: 8, ..presented }.is_right(&keys, b"nonce"));
        assert!(read(&token, Kind::Cookie).is_none());
        for wrong in ["", "ar_", "ar_AAAA", "ar_!", &format!("{}A", token.expose_secret())] {
            assert!(read(&wrong.into(), Kind::Token).is_none(), "{wrong}");
        }
        let csrf = csrf(&keys, &token).unwrap();
        assert!(is_csrf(&keys, &token, csrf.expose_secret()) && !is_csrf(&keys, &token, ""));
        assert!(!is_csrf(&keys, &"other".into(), csrf.expose_secret()));
    }
}
