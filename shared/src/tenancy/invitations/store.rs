//! SQL of invitations, on the engine's pool: whoever shows a code belongs to no tenant yet.

use sqlx::PgConnection;

use super::Open;
use crate::{
    error::Result,
    identity::{KeyHash, Role},
    ids::{TenantId, UserId},
};

type Row = (TenantId, String, String, UserId, bool, bool);

pub(super) async fn open(connection: &mut PgConnection, code: KeyHash) -> Result<Option<Open>> {
    let row: Option<Row> = sqlx::query_as(
        "select m.tenant_id, t.name, m.role, m.user_id, u.email is null, m.accepted_at is not null
         from memberships m join tenants t on t.id = m.tenant_id join users u on u.id = m.user_id
         where m.invitation_hash = $1 and m.invitation_expires_at > now() and t.state = 'active'
         for no key update of m",
    )
    .bind(code.as_bytes())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(tenant, name, role, user, is_nobody, is_accepted)| Open {
        tenant,
        name,
        role: Role::from_word(&role).unwrap_or(Role::Member),
        user,
        is_nobody,
        is_accepted,
    }))
}

pub(super) async fn accept(connection: &mut PgConnection, open: &Open) -> Result<()> {
    sqlx::query(
        "update memberships
         set accepted_at = coalesce(accepted_at, now()), invited_email = null, invitation_hash = null, invitation_expires_at = null
         where tenant_id = $1 and user_id = $2",
    )
    .bind(open.tenant)
    .bind(open.user)
    .execute(connection)
    .await?;
    Ok(())
}

/// False when they belong already. An invitation of their own that is open too gives way to this one.
pub(super) async fn join(connection: &mut PgConnection, open: &Open, user: UserId) -> Result<bool> {
    let done = sqlx::query(
        "insert into memberships as m (tenant_id, user_id, role) values ($1, $2, $3)
         on conflict (tenant_id, user_id) do update
           set role = excluded.role, accepted_at = now(), invited_email = null, invitation_hash = null,
               invitation_expires_at = null
           where m.accepted_at is null",
    )
    .bind(open.tenant)
    .bind(user)
    .bind(open.role.as_str())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn close(connection: &mut PgConnection, open: &Open) -> Result<()> {
    sqlx::query(
        "update memberships set invited_email = null, invitation_hash = null, invitation_expires_at = null
         where tenant_id = $1 and user_id = $2",
    )
    .bind(open.tenant)
    .bind(open.user)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn delete(connection: &mut PgConnection, open: &Open) -> Result<()> {
    sqlx::query("delete from memberships where tenant_id = $1 and user_id = $2 and accepted_at is null")
        .bind(open.tenant)
        .bind(open.user)
        .execute(connection)
        .await?;
    Ok(())
}
