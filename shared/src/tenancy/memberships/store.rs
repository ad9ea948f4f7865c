//! SQL of memberships, through functions that answer about one person before any tenant is known.

use std::sync::Arc;

use sqlx::PgPool;

use super::{Membership, TenantState};
use crate::{
    db::before_tenant,
    error::Result,
    identity::Role,
    ids::{TenantId, UserId},
    tenancy::workos::Place,
};

type Row = (TenantId, String, Option<String>, String, String, bool);

pub(super) async fn of_user(app: &PgPool, user: UserId) -> Result<Arc<[Membership]>> {
    let mut tx = before_tenant(app).await?;
    let rows: Vec<Row> =
        sqlx::query_as("select tenant_id, name, external_id, state, role, accepted from tenancy_of_user($1)")
            .bind(user)
            .fetch_all(&mut *tx)
            .await?;
    tx.commit().await?;
    let membership = |(tenant, name, external_id, state, role, accepted): Row| Membership {
        tenant,
        name,
        external_id,
        state: TenantState::from_word(&state),
        role: Role::from_word(&role).unwrap_or(Role::Member),
        accepted,
    };
    Ok(rows.into_iter().map(membership).collect())
}

pub(super) async fn accept(app: &PgPool, tenant: TenantId, user: UserId) -> Result<()> {
    let mut tx = before_tenant(app).await?;
    sqlx::query("select membership_accept($1, $2)").bind(tenant).bind(user).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn outside_subject(app: &PgPool, user: UserId) -> Result<Option<String>> {
    let mut tx = before_tenant(app).await?;
    let subject =
        sqlx::query_scalar("select tenancy_outside_subject($1)").bind(user).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(subject)
}

pub(super) async fn mirror(app: &PgPool, user: UserId, places: &[Place]) -> Result<()> {
    let organizations: Vec<&str> = places.iter().map(|place| place.organization.as_str()).collect();
    let roles: Vec<&str> = places.iter().map(|place| place.role.as_str()).collect();
    let mut tx = before_tenant(app).await?;
    sqlx::query("select memberships_mirror($1, $2, $3)")
        .bind(user)
        .bind(organizations)
        .bind(roles)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}
