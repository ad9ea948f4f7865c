//! The two cookies of a browser's session: one that scripts cannot read, and one that they send back in a header.
//!
//! `SameSite=Lax` alone is no protection against requests from a sister domain or an old browser, so whatever changes
//! something under a cookie needs [`must_be_own_page`] and the token. Nothing here reads `Referer`, which our own
//! `Referrer-Policy: no-referrer` suppresses.

use axum::http::HeaderValue;
use http::{HeaderMap, header, request::Parts};
use secrecy::{ExposeSecret as _, SecretString};
use shared::{
    config::{AppEnv, Config},
    error::{Code, Error, Result},
    identity::{CookieSession, SignIns},
};

/// Where scripts put the token.
const CSRF_HEADER: &str = "x-csrf-token";
/// The longest that browsers keep a cookie; how long the session lasts is the server's to say.
const LONGEST: u32 = 400 * 24 * 3600;

/// Longer than anybody has to come back with a connection.
const CONNECT: u32 = 15 * 60;

/// The cookies of this deployment.
pub(crate) struct Cookies {
    session: &'static str,
    csrf: &'static str,
    connect: &'static str,
    secure: bool,
    own_origin: String,
}

impl Cookies {
    pub(crate) fn new(config: &Config) -> Self {
        let secure = config.app_env == AppEnv::Prod || config.public_url.scheme() == "https";
        let (session, csrf, connect) = match secure {
            // The prefix makes browsers refuse a cookie that a sister domain has set.
            true => ("__Host-alfred_session", "__Host-alfred_csrf", "__Host-alfred_connect"),
            false => ("alfred_session", "alfred_csrf", "alfred_connect"),
        };
        Self { session, csrf, connect, secure, own_origin: config.public_url.origin().ascii_serialization() }
    }

    /// The session's cookie of a request.
    pub(crate) fn session(&self, headers: &HeaderMap) -> Option<SecretString> {
        value(headers, self.session)
    }

    /// What tells the browser that leaves to connect a server from all others; only a whole one of ours.
    pub(crate) fn connect(&self, headers: &HeaderMap) -> Option<SecretString> {
        let of_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        value(headers, self.connect)
            .filter(|value| value.expose_secret().len() == 43 && value.expose_secret().bytes().all(of_ours))
    }

    /// `Set-Cookie` of that.
    pub(crate) fn set_connect(&self, secret: &SecretString) -> HeaderValue {
        self.line(self.connect, secret.expose_secret(), CONNECT, "; HttpOnly")
    }

    /// `Set-Cookie` of a session.
    pub(crate) fn set(&self, session: &CookieSession) -> [HeaderValue; 2] {
        [
            self.line(self.session, session.cookie.expose_secret(), LONGEST, "; HttpOnly"),
            self.line(self.csrf, session.csrf.expose_secret(), LONGEST, ""),
        ]
    }

    /// `Set-Cookie` that removes a session.
    pub(crate) fn clear(&self) -> [HeaderValue; 2] {
        [self.line(self.session, "", 0, "; HttpOnly"), self.line(self.csrf, "", 0, "")]
    }

    fn line(&self, name: &str, value: &str, seconds: u32, more: &str) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let line = format!("{name}={value}; Path=/; Max-Age={seconds}; SameSite=Lax{more}{secure}");
        // Names and values are ours: letters, digits, - and _.
        HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static(""))
    }

    /// Whether a request that changes something under this cookie comes from a page of ours.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn must_be_meant(
        &self,
        parts: &Parts,
        sign_ins: &SignIns,
        cookie: &SecretString,
    ) -> Result<()> {
        if parts.method.is_safe() {
            return Ok(());
        }
        self.must_be_own_page(parts)?;
        let token = parts.headers.get(CSRF_HEADER).and_then(|token| token.to_str().ok());
        match token {
            Some(token) if sign_ins.is_csrf_token(cookie, token) => Ok(()),
            Some(_) => Err(forbidden("the header X-CSRF-Token is not the one of this session")),
            None => Err(forbidden(
                "with cookies, the value of the csrf cookie is required in the header X-CSRF-Token",
            )),
        }
    }

    /// Refuses what a browser says comes from somebody else's page. What says nothing is no browser of these years, and
    /// `Origin: null` is what our own forms send under `no-referrer`; both are left to the token.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn must_be_own_page(&self, parts: &Parts) -> Result<()> {
        let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
        let origin = text("origin").filter(|origin| *origin != "null");
        let own = |origin: &str| {
            let host = text("host").unwrap_or_default();
            let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
            origin.eq_ignore_ascii_case(&self.own_origin)
                || (!host.is_empty() && authority.eq_ignore_ascii_case(host))
        };
        let from_here = match (text("sec-fetch-site"), origin) {
            (_, Some(origin)) => own(origin),
            (Some("same-origin" | "none") | None, None) => true,
            (Some(_), None) => false,
        };
        if from_here { Ok(()) } else { Err(forbidden("the request comes from a page of another site")) }
    }
}

fn value(headers: &HeaderMap, wanted: &str) -> Option<SecretString> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
}

fn forbidden(message: &'static str) -> Error {
    Error::new(Code::Forbidden, message)
}
