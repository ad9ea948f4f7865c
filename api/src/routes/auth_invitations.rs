//! Accepting an invitation into a tenant, with the code that an admin or an operator handed over.

use std::time::Instant;

use axum::{Json as JsonAnswer, extract::State};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use shared::ids::TenantId;
use utoipa::ToSchema;

use crate::{
    address::ClientAddress,
    auth::{
        Person,
        event::{About, Event, Outcome, note},
    },
    error::{Answer, ErrorBody},
    extract::Json,
    routes::admin::members::RoleView,
    state::App,
};

/// The code of an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptInvitation {
    #[schema(value_type = String, example = "inv_5f0c…")]
    code: SecretString,
}

/// What the person belongs to now.
#[derive(Serialize, ToSchema)]
pub(crate) struct JoinedView {
    /// For the header X-Tenant-ID, where the person belongs to several.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    organization_name: String,
    role: RoleView,
}

/// Accepts an invitation for the credential's user, whatever address it was sent to. A code is good once.
#[utoipa::path(
    post, path = "/api/v1/auth/invitations/accept", tag = "auth", security(("apiKey" = [])),
    request_body = AcceptInvitation,
    responses(
        (status = 200, description = "The tenant that the user belongs to now", body = JoinedView),
        (status = 403, description = "The credential lacks the scope admin, or under cookies the CSRF token", body = ErrorBody),
        (status = 409, description = "The user belongs to the tenant already; the code stays good", body = ErrorBody),
        (status = 422, description = "The code is unknown, was used or taken back, or has ended", body = ErrorBody),
        (status = 429, description = "Too many attempts; Retry-After says when", body = ErrorBody),
    )
)]
pub(crate) async fn accept(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    Person(principal): Person,
    Json(body): Json<AcceptInvitation>,
) -> Answer<JsonAnswer<JoinedView>> {
    let since = Instant::now();
    let about = About { address: Some(address), user: Some(principal.user), sign_in: None };
    match app.callers.sign_ins().accept_invitation(address, principal.user, &body.code).await {
        Ok(joined) => {
            app.callers.tenants.directory.forget(principal.user);
            note(Event::InvitationAccepted, Outcome::Success, since, about);
            let (tenant_id, role) = (joined.tenant, joined.role.into());
            Ok(JsonAnswer(JoinedView { tenant_id, organization_name: joined.name, role }))
        }
        Err(error) => {
            note(Event::InvitationAccepted, Outcome::of(&error), since, about);
            Err(error.into())
        }
    }
}
