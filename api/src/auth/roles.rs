//! Callers who have a role, checked before the request's body is looked at.

use axum::extract::FromRequestParts;
use http::request::Parts;
use shared::tenancy::{AdminActor, OperatorActor};

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
