//! Which tenants a person can choose from.

use axum::{Json as JsonAnswer, extract::State};
use http::HeaderMap;
use serde::Serialize;
use shared::{
    error::{Code, Invalid, Result},
    identity::{Actor, Principal},
    ids::TenantId,
    tenancy::{
        self,
        memberships::{Chosen, Membership, TenantState},
    },
};
use utoipa::ToSchema;

use crate::{
    auth::Person,
    error::{Answer, ErrorBody},
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
pub(crate) async fn get_tenant(
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
