//! Callers who have a role, checked before the request's body is looked at.

use axum::extract::FromRequestParts;
use http::request::Parts;
use shared::{
    error::Result as Outcome,
    identity::Actor,
    queues::Viewer,
    tenancy::{AdminActor, OperatorActor},
};

use super::Caller;
use crate::{error::Failure, extract::RequestId, state::App};

/// An admin of the tenant that the request acts in.
pub(crate) struct Admin(pub(crate) AdminActor);

impl FromRequestParts<App> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Caller(actor) = Caller::from_request_parts(parts, app).await?;
        let RequestId(id) = RequestId::from_request_parts(parts, app).await?;
        Ok(Self(AdminActor::of(actor)?.during(&id)))
    }
}

/// Somebody who administers the tenant that the request acts in, or operates the deployment.
pub(crate) struct Steward {
    actor: Actor,
    request_id: String,
}

impl Steward {
    /// The actor.
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// As somebody who looks at queues: an operator sees more.
    ///
    /// # Errors
    /// 403 when they are neither; this was checked before.
    pub(crate) fn viewer(&self) -> Outcome<Viewer> {
        Ok(if self.actor.operator {
            Viewer::Operator(self.operator()?)
        } else {
            Viewer::Admin(self.admin()?)
        })
    }

    /// As an admin of the tenant.
    ///
    /// # Errors
    /// 403 when they are none.
    pub(crate) fn admin(&self) -> Outcome<AdminActor> {
        Ok(AdminActor::of(self.actor.clone())?.during(&self.request_id))
    }

    /// As an operator.
    ///
    /// # Errors
    /// 403 when they are none.
    pub(crate) fn operator(&self) -> Outcome<OperatorActor> {
        Ok(OperatorActor::of(self.actor.clone())?.during(&self.request_id))
    }
}

impl FromRequestParts<App> for Steward {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Caller(actor) = Caller::from_request_parts(parts, app).await?;
        let RequestId(request_id) = RequestId::from_request_parts(parts, app).await?;
        if !actor.operator {
            AdminActor::of(actor.clone())?;
        }
        Ok(Self { actor, request_id })
    }
}

/// An operator of the deployment.
pub(crate) struct Operator(pub(crate) OperatorActor);

impl FromRequestParts<App> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Caller(actor) = Caller::from_request_parts(parts, app).await?;
        let RequestId(id) = RequestId::from_request_parts(parts, app).await?;
        Ok(Self(OperatorActor::of(actor)?.during(&id)))
    }
}
