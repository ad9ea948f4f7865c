//! Which tenants a person can choose from.

use axum::{Json as JsonAnswer, extract::State};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use shared::{
    error::{Code, Invalid, Result},
    identity::{Actor, Principal},
    ids::TenantId,
    tenancy::{
        self,
        memberships::{Chosen, Membership, TenantState},
        people,
    },
};
use utoipa::ToSchema;

use crate::{
    auth::{Caller, Person},
    error::{Answer, ErrorBody},
    routes::admin::members::must_be_ours,
    state::App,
};

/// The tenant of the person's requests or, when they have to choose, those to choose from.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TenantOfPerson {
    Chosen {
        #[schema(value_type = Uuid)]
        tenant_id: TenantId,
        organization_name: String,
        /// false
        requires_selection: bool,
        /// Tenants that the person was asked into by an address that an outside issuer vouched for; naming one in X-Tenant-ID
        /// accepts. Left out when there is none.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        invitations: Vec<Organization>,
    },
    Open {
        organizations: Vec<Organization>,
        /// true
        requires_selection: bool,
        /// Tenants that the person was asked into by an address that an outside issuer vouched for; naming one in X-Tenant-ID
        /// accepts. Left out when there is none.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        invitations: Vec<Organization>,
    },
}

/// A tenant to choose.
#[derive(Serialize, ToSchema)]
pub(crate) struct Organization {
    #[schema(value_type = Uuid)]
    id: TenantId,
    name: String,
}

/// Tells in which tenant the caller acts, or among which they have to choose with X-Tenant-ID.
#[utoipa::path(
    get, path = "/v1/auth/tenant", tag = "tenants", security(("apiKey" = [])),
    responses(
        (status = 200, description = "The tenant, or those to choose from", body = TenantOfPerson),
        (status = 400, description = "An unreadable header", body = ErrorBody),
        (status = 403, description = "The tenant is suspended", body = ErrorBody),
        (status = 404, description = "A tenant is named that the caller does not belong to", body = ErrorBody),
    )
)]
pub(crate) async fn get_own_tenant(
    State(app): State<App>,
    Person(person): Person,
    headers: HeaderMap,
) -> Answer<JsonAnswer<TenantOfPerson>> {
    let standing = app.callers.tenants.standing(&person, &headers).await?;
    let invitations = organizations(&standing.memberships, false);
    let answer = match standing.chosen {
        Ok(chosen) => TenantOfPerson::Chosen {
            tenant_id: chosen.tenant,
            organization_name: name(&app, person, &standing.memberships, chosen).await?,
            requires_selection: false,
            invitations,
        },
        Err(error) if error.code == Code::Malformed && error.invalid == Invalid::Unreadable => {
            let organizations = organizations(&standing.memberships, true);
            TenantOfPerson::Open { organizations, requires_selection: true, invitations }
        }
        Err(error) => return Err(error.into()),
    };
    Ok(JsonAnswer(answer))
}

/// Leaves the tenant that the request names, or the only one that the caller belongs to, with their keys and connections
/// there. What they made stays the tenant's.
#[utoipa::path(
    delete, path = "/v1/auth/tenant", tag = "tenants", security(("apiKey" = [])),
    responses(
        (status = 204, description = "The caller belongs to it no more"),
        (status = 400, description = "The caller belongs to several, and named none", body = ErrorBody),
        (status = 403, description = "The credential lacks the scope admin, or the tenant is suspended", body = ErrorBody),
        (status = 404, description = "The caller belongs to no such tenant", body = ErrorBody),
        (status = 409, description = "The caller is the last admin, or WorkOS says who belongs", body = ErrorBody),
    )
)]
pub(crate) async fn leave_tenant(State(app): State<App>, Caller(actor): Caller) -> Answer<StatusCode> {
    let mut tx = app.tenants.begin(&actor).await?;
    must_be_ours(&app, &mut tx).await?;
    people::leave(&mut tx).await?;
    tx.commit().await?;
    app.callers.tenants.directory.forget(actor.user);
    Ok(StatusCode::NO_CONTENT)
}

fn organizations(memberships: &[Membership], accepted: bool) -> Vec<Organization> {
    memberships
        .iter()
        .filter(|membership| membership.accepted == accepted && membership.state != TenantState::Deleting)
        .map(|membership| Organization { id: membership.tenant, name: membership.name.clone() })
        .collect()
}

async fn name(app: &App, person: Principal, memberships: &[Membership], chosen: Chosen) -> Result<String> {
    if let Some(membership) = memberships.iter().find(|membership| membership.tenant == chosen.tenant) {
        return Ok(membership.name.clone());
    }
    // The shared tenant, whose name no membership tells.
    let actor = Actor {
        tenant: chosen.tenant,
        user: person.user,
        role: chosen.role,
        operator: false,
        scopes: person.scopes,
        timezone: person.timezone,
    };
    let mut tx = app.tenants.begin(&actor).await?;
    let name = tenancy::name(&mut tx).await?;
    tx.commit().await?;
    Ok(name.unwrap_or_else(|| "default".to_owned()))
}
