//! Who calls. A request's credential proves a [`Principal`]; with the request's headers it becomes an [`Actor`], who acts
//! in a tenant. Routes on tenant data take a [`Caller`]; the few that are about the person alone take a [`Person`].
//!
//! Invariant: what a route may be used for is data (`scopes`), so no handler can forget to ask.

mod key;
mod scopes;
mod tenant;

use axum::extract::{FromRequestParts, MatchedPath};
use http::request::Parts;
use shared::{
    error::{Code, Error, Result},
    identity::{Actor, Principal},
};
use sqlx::PgPool;
use tracing::{Span, field::display};

use self::key::Keys;
use crate::{error::Failure, state::App};

/// An authenticated caller, acting in a tenant.
pub(crate) struct Caller(pub(crate) Actor);

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        note_route(parts);
        Ok(Self(app.callers.of(parts).await?))
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
    keys: Keys,
    tenants: tenant::Tenants,
}

impl Callers {
    /// Over the pool of the app role.
    pub(crate) fn new(app: PgPool, default_tenant: shared::ids::TenantId) -> Self {
        Self { keys: Keys::new(app), tenants: tenant::Tenants::new(default_tenant) }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 without a credential or with one that is not good; 403 when it may not be used for this; those of the choice
    /// of a tenant; the database's.
    pub(crate) async fn of(&self, parts: &Parts) -> Result<Actor> {
        let principal = self.principal(parts).await?;
        let actor = self.tenants.actor(principal, &parts.headers).await?;
        Span::current().record("tenant_id", display(actor.tenant));
        Ok(actor)
    }

    /// The person of a request.
    ///
    /// # Errors
    /// 401 without a credential or with one that is not good; 403 when it may not be used for this; the database's.
    pub(crate) async fn principal(&self, parts: &Parts) -> Result<Principal> {
        let Some(key) = parts.headers.get("x-api-key") else {
            return Err(Error::new(Code::Auth, "a credential is required: send the header X-API-Key"));
        };
        let principal = self.keys.principal(key).await?;
        Span::current().record("user_id", display(principal.user));
        principal.scopes.must_have(scopes::wanted(parts))?;
        Ok(principal)
    }
}
