//! Who calls. A request's credential proves a [`Principal`]; with the request's headers it becomes an [`Actor`], who acts
//! in a tenant. Routes on tenant data take a [`Caller`]; the few that are about the person alone take a [`Person`].
//!
//! Invariant: what a credential may be used for is data (`scopes`), and what changes something under a cookie has shown
//! that it is meant (`cookie`), before any handler runs; no handler can forget to ask.

mod agent;
mod cookie;
pub(crate) mod event;
mod known;
mod last_use;
mod reader;
mod roles;
mod scopes;
mod shown;
mod tenant;

use axum::extract::{FromRequestParts, MatchedPath};
use http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};
use shared::{
    config::Config,
    error::{Code, Error, Result},
    identity::{self, Actor, Credential, KeyHash, Outside, Principal, SignIns},
    vault::Vault,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::display};

pub(crate) use self::{
    agent::{AgentCaller, token as agent_token},
    cookie::Cookies,
    reader::{Looked, Reader},
    roles::{Admin, Operator, Steward},
    shown::{Shown, shown},
};
use self::{
    known::{Found, Known},
    last_use::LastUse,
};
use crate::{error::Failure, state::App};

/// The longest credential that is looked at.
const LONGEST: usize = 8192;

/// An authenticated caller, acting in a tenant.
pub(crate) struct Caller(pub(crate) Actor);

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        Ok(Self(app.callers.of(parts).await?))
    }
}

/// An authenticated caller, with which credential they showed.
pub(crate) struct CallerBy(pub(crate) Actor, pub(crate) Credential);

impl FromRequestParts<App> for CallerBy {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        let (actor, credential) = app.callers.with_credential(parts).await?;
        Ok(Self(actor, credential))
    }
}

/// An authenticated person, before the choice of a tenant.
pub(crate) struct Person(pub(crate) Principal);

impl FromRequestParts<App> for Person {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        Ok(Self(app.callers.principal(parts).await?))
    }
}

/// Tells the access log which route was taken.
pub(crate) fn note_route(parts: &Parts) {
    if let Some(route) = parts.extensions.get::<MatchedPath>() {
        Span::current().record("route", route.as_str());
    }
}

/// Finds callers by their credentials.
pub(crate) struct Callers {
    app: PgPool,
    sign_ins: SignIns,
    outside: Option<Outside>,
    cookies: Cookies,
    known: Known,
    last_use: LastUse,
    pub(crate) tenants: tenant::Tenants,
}

impl Callers {
    /// Over the pool of the app role, and the engine's for what is about no tenant.
    ///
    /// # Errors
    /// When no HTTP client can be made, or a key of `FERNET_KEY` cannot be read.
    pub(crate) fn start(
        config: &Config,
        vault: Vault,
        app: PgPool,
        engine: PgPool,
        sign_ins: SignIns,
        stop: CancellationToken,
    ) -> Result<Self> {
        let outside = config.sign_ins.outside_issuer.as_ref();
        Ok(Self {
            tenants: tenant::Tenants::new(&app, config, vault)?,
            app,
            outside: outside.map(|issuer| Outside::new(engine.clone(), issuer)).transpose()?,
            cookies: Cookies::new(config),
            known: Known::default(),
            last_use: LastUse::start(engine, sign_ins.clone(), stop),
            sign_ins,
        })
    }

    /// Sign-ins: made, refreshed, ended.
    pub(crate) fn sign_ins(&self) -> &SignIns {
        &self.sign_ins
    }

    /// The cookies of browsers.
    pub(crate) fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 without a credential or with one that is not good; 403 when it may not be used for this; those of the choice
    /// of a tenant; the database's.
    pub(crate) async fn of(&self, parts: &Parts) -> Result<Actor> {
        Ok(self.with_credential(parts).await?.0)
    }

    /// The caller of a request, and what they showed.
    ///
    /// # Errors
    /// As [`Callers::of`].
    pub(crate) async fn with_credential(&self, parts: &Parts) -> Result<(Actor, Credential)> {
        let principal = self.principal(parts).await?;
        let credential = principal.credential;
        let actor = self.tenants.actor(principal, parts).await?;
        Span::current().record("tenant_id", display(actor.tenant));
        Ok((actor, credential))
    }

    /// The caller of a form of our own pages: its token is a field of the form, as forms cannot set headers.
    ///
    /// # Errors
    /// 401 without a cookie session; 403 when nothing shows that the form is meant; those of the choice of a tenant; the
    /// database's.
    pub(crate) async fn of_form(&self, parts: &Parts, csrf: &str) -> Result<Actor> {
        let cookie = self.cookies.session(&parts.headers);
        let cookie = cookie.ok_or_else(|| Shown::Cookie(SecretString::default()).unknown())?;
        self.cookies.must_be_own_page(parts)?;
        if !self.sign_ins.is_csrf_token(&cookie, csrf) {
            return Err(Error::new(Code::Forbidden, "the form is not of this session; open the page again"));
        }
        let found = self.by_cookie(&cookie).await?;
        let Some(Found { principal, .. }) = found else { return Err(Shown::Cookie(cookie).unknown()) };
        Span::current().record("user_id", display(principal.user));
        principal.scopes.must_have(scopes::wanted(parts))?;
        let actor = self.tenants.actor(principal, parts).await?;
        Span::current().record("tenant_id", display(actor.tenant));
        Ok(actor)
    }

    /// The person of a request.
    ///
    /// # Errors
    /// 401 without a credential or with one that is not good; 403 when it may not be used for this, or when nothing
    /// shows that a browser's request is meant; the database's.
    pub(crate) async fn principal(&self, parts: &Parts) -> Result<Principal> {
        let shown = shown(&parts.headers, &self.cookies)?;
        let credential = shown.secret().expose_secret().as_bytes();
        let found = self.known.find(shown.kind(), credential, self.look_up(&shown)).await;
        let found = found?.filter(|found| {
            let audience = found.audience.as_deref();
            audience.is_none_or(|audience| self.sign_ins.is_for(audience, parts.uri.path()))
        });
        let Some(Found { principal, .. }) = found else { return Err(shown.unknown()) };
        Span::current().record("user_id", display(principal.user));
        if let Shown::Cookie(cookie) = &shown {
            self.cookies.must_be_meant(parts, &self.sign_ins, cookie)?;
        }
        principal.scopes.must_have(scopes::wanted(parts))?;
        Ok(principal)
    }

    /// Believes the credentials no longer of whom `is_gone` says so.
    pub(crate) fn forget(&self, is_gone: impl Fn(&Principal) -> bool) {
        self.known.forget(is_gone);
    }

    /// Writes what was noted and not yet written.
    pub(crate) async fn finish(&self) {
        self.last_use.write().await;
    }

    async fn look_up(&self, shown: &Shown) -> Result<Option<Found>> {
        match shown {
            Shown::Bearer(token) => self.by_bearer(token).await,
            Shown::ApiKey(key) => self.by_key(key).await,
            Shown::Cookie(cookie) => self.by_cookie(cookie).await,
        }
    }

    async fn by_key(&self, key: &SecretString) -> Result<Option<Found>> {
        let found = identity::by_api_key(&self.app, &KeyHash::of(key)).await?;
        Ok(found.map(|(principal, good_for)| self.used(Found { principal, audience: None, good_for })))
    }

    async fn by_cookie(&self, cookie: &SecretString) -> Result<Option<Found>> {
        let principal = self.sign_ins.by_cookie(cookie).await?;
        Ok(principal.map(|principal| self.used(Found { principal, audience: None, good_for: None })))
    }

    async fn by_bearer(&self, token: &SecretString) -> Result<Option<Found>> {
        if let Some(outside) = self.outside.as_ref().filter(|outside| outside.is_named_by(token)) {
            let found = outside.by_token(token).await?;
            return Ok(found.map(|(principal, life)| Found {
                principal,
                audience: None,
                good_for: Some(life),
            }));
        }
        let found = self.sign_ins.by_access_token(token).await?;
        Ok(found.map(|(principal, claims)| {
            let good_for = Some(claims.good_for());
            self.used(Found { principal, audience: Some(claims.aud), good_for })
        }))
    }

    fn used(&self, found: Found) -> Found {
        self.last_use.note(found.principal.credential);
        found
    }
}
