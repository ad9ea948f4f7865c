//! SQL of a tenant's people.

use chrono::{DateTime, Utc};

use super::Member;
use crate::{db::TenantTx, error::Result, identity::Role, ids::UserId, tenancy::invitations::Invitation};

type Row = (UserId, Option<String>, String, Option<DateTime<Utc>>, DateTime<Utc>);

fn member((user, email, role, accepted_at, created_at): Row) -> Member {
    Member { user, email, role: Role::from_word(&role).unwrap_or(Role::Member), accepted_at, created_at }
}

pub(super) async fn list(tx: &mut TenantTx, after: Option<UserId>, most: i64) -> Result<Vec<Member>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<Row> = sqlx::query_as(
        "select m.user_id, coalesce(u.email, m.invited_email), m.role, m.accepted_at, m.created_at
         from memberships m join users u on u.id = m.user_id
         where m.tenant_id = $1 and m.user_id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
         order by m.user_id limit $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(most)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(member).collect())
}

pub(super) async fn one(tx: &mut TenantTx, user: UserId) -> Result<Option<Member>> {
    let tenant = tx.actor().tenant;
    let row: Option<Row> = sqlx::query_as(
        "select m.user_id, coalesce(u.email, m.invited_email), m.role, m.accepted_at, m.created_at
         from memberships m join users u on u.id = m.user_id where m.tenant_id = $1 and m.user_id = $2",
    )
    .bind(tenant)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(member))
}

/// Who was asked in; none when they belong already, or were asked in before.
pub(super) async fn invite(
    tx: &mut TenantTx,
    new: UserId,
    email: &str,
    role: Role,
    invitation: &Invitation,
) -> Result<Option<UserId>> {
    let (invited, is_new): (Option<UserId>, bool) =
        sqlx::query_as("select invited, is_new from membership_invite($1, $2, $3, $4, $5)")
            .bind(new)
            .bind(email)
            .bind(role.as_str())
            .bind(invitation.hash().as_bytes())
            .bind(invitation.expires_at)
            .fetch_one(tx.connection())
            .await?;
    Ok(invited.filter(|_| is_new))
}

/// Locks the tenant's admins and this member, so that two admins cannot remove each other; answers the member's role.
pub(super) async fn lock_admins_and(tx: &mut TenantTx, user: UserId) -> Result<Option<Role>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<(UserId, String)> = sqlx::query_as(
        "select user_id, role from memberships where tenant_id = $1 and (user_id = $2 or role = 'admin')
         order by user_id for no key update",
    )
    .bind(tenant)
    .bind(user)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().find(|(id, _)| *id == user).and_then(|(_, role)| Role::from_word(&role)))
}

pub(super) async fn other_admins(tx: &mut TenantTx, user: UserId) -> Result<i64> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "select count(*) from memberships
         where tenant_id = $1 and user_id <> $2 and role = 'admin' and accepted_at is not null",
    )
    .bind(tenant)
    .bind(user)
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn set_role(tx: &mut TenantTx, user: UserId, role: Role) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("update memberships set role = $3 where tenant_id = $1 and user_id = $2")
        .bind(tenant)
        .bind(user)
        .bind(role.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}

pub(super) async fn remove(tx: &mut TenantTx, user: UserId) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("delete from api_keys where tenant_id = $1 and user_id = $2")
        .bind(tenant)
        .bind(user)
        .execute(tx.connection())
        .await?;
    // Their accounts at other services are theirs, not even an admin's: a function deletes them unseen.
    sqlx::query("select connections_forget($1)").bind(user).execute(tx.connection()).await?;
    sqlx::query("delete from memberships where tenant_id = $1 and user_id = $2")
        .bind(tenant)
        .bind(user)
        .execute(tx.connection())
        .await?;
    Ok(())
}

pub(super) async fn leave(tx: &mut TenantTx) -> Result<String> {
    Ok(sqlx::query_scalar("select membership_leave()").fetch_one(tx.connection()).await?)
}

pub(super) async fn has_organisation(tx: &mut TenantTx) -> Result<bool> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select external_id is not null from tenants where id = $1")
        .bind(tenant)
        .fetch_one(tx.connection())
        .await?)
}
