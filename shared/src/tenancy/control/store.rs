//! SQL of the control plane, as the engine.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{Change, HostName, NewTenant, Tenant};
use crate::{
    db::before_tenant,
    error::Result,
    identity::KeyHash,
    ids::{TenantId, UserId},
    tenancy::{invitations::Invitation, memberships::TenantState},
};

#[derive(sqlx::FromRow)]
struct Row {
    id: TenantId,
    name: String,
    state: String,
    state_since: DateTime<Utc>,
    created_at: DateTime<Utc>,
    external_id: Option<String>,
    running_turns: i64,
    hosts: Vec<String>,
}

impl From<Row> for Tenant {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            state: TenantState::from_word(&row.state),
            state_since: row.state_since,
            created_at: row.created_at,
            external_id: row.external_id,
            running_turns: row.running_turns,
            hosts: row.hosts,
        }
    }
}

pub(super) async fn insert(connection: &mut PgConnection, id: TenantId, new: &NewTenant) -> Result<()> {
    sqlx::query("insert into tenants (id, name, external_id, running_turns) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(&new.name)
        .bind(&new.external_id)
        .bind(new.running_turns)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether it was not there before.
pub(super) async fn ensure(connection: &mut PgConnection, id: TenantId) -> Result<bool> {
    let done =
        sqlx::query("insert into tenants (id, name) values ($1, 'default') on conflict (id) do nothing")
            .bind(id)
            .execute(connection)
            .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn resize(connection: &mut PgConnection, id: TenantId, slots: i64) -> Result<()> {
    sqlx::query("select tenant_slots_resize($1, $2)").bind(id).bind(slots).execute(connection).await?;
    Ok(())
}

pub(super) async fn set_hosts(connection: &mut PgConnection, id: TenantId, hosts: &[HostName]) -> Result<()> {
    let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    sqlx::query("delete from tenant_hosts where tenant_id = $1 and host <> all ($2)")
        .bind(id)
        .bind(&hosts)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into tenant_hosts (tenant_id, host) select distinct $1::uuid, h from unnest($2::text[]) h
         on conflict (tenant_id, host) do nothing",
    )
    .bind(id)
    .bind(&hosts)
    .execute(connection)
    .await?;
    Ok(())
}

/// The user whose address this is, where somebody whom we trust has checked that.
pub(super) async fn verified_user(connection: &mut PgConnection, email: &str) -> Result<Option<UserId>> {
    Ok(sqlx::query_scalar("select id from users where lower(email) = lower($1) and email_verified")
        .bind(email)
        .fetch_optional(connection)
        .await?)
}

/// An admin who needs no asking: an operator says so.
pub(super) async fn insert_admin(connection: &mut PgConnection, id: TenantId, user: UserId) -> Result<()> {
    sqlx::query("insert into memberships (tenant_id, user_id, role) values ($1, $2, 'admin')")
        .bind(id)
        .bind(user)
        .execute(connection)
        .await?;
    Ok(())
}

/// An admin of the tenant's own, whom an invitation is open for.
pub(super) async fn insert_invited_admin(
    connection: &mut PgConnection,
    id: TenantId,
    user: UserId,
    email: &str,
    invitation: &Invitation,
) -> Result<()> {
    sqlx::query("insert into users (id) values ($1)").bind(user).execute(&mut *connection).await?;
    sqlx::query(
        "insert into memberships (tenant_id, user_id, role, invited_email, invitation_hash, invitation_expires_at)
         values ($1, $2, 'admin', $3, $4, $5)",
    )
    .bind(id)
    .bind(user)
    .bind(email)
    .bind(invitation.hash().as_bytes())
    .bind(invitation.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_key(
    connection: &mut PgConnection,
    id: TenantId,
    user: UserId,
    key: KeyHash,
) -> Result<()> {
    sqlx::query(
        "insert into api_keys (tenant_id, id, user_id, key_hash, name) values ($1, $2, $3, $4, 'first admin')",
    )
    .bind(id)
    .bind(uuid::Uuid::now_v7())
    .bind(user)
    .bind(key.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn list(engine: &PgPool, after: Option<TenantId>, most: i64) -> Result<Vec<Tenant>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select t.id, t.name, t.state, t.state_since, t.created_at, t.external_id,
                coalesce(t.running_turns, (select count(*) from tenant_slots s where s.tenant_id = t.id)) as running_turns,
                array(select h.host from tenant_hosts h where h.tenant_id = t.id order by h.host) as hosts
         from tenants t
         where t.state <> 'deleted' and t.id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
         order by t.id limit $2",
    )
    .bind(after)
    .bind(most)
    .fetch_all(engine)
    .await?;
    Ok(rows.into_iter().map(Tenant::from).collect())
}

pub(super) async fn one(connection: &mut PgConnection, id: TenantId) -> Result<Option<Tenant>> {
    let row: Option<Row> = sqlx::query_as(
        "select t.id, t.name, t.state, t.state_since, t.created_at, t.external_id,
                coalesce(t.running_turns, (select count(*) from tenant_slots s where s.tenant_id = t.id)) as running_turns,
                array(select h.host from tenant_hosts h where h.tenant_id = t.id order by h.host) as hosts
         from tenants t where t.id = $1 and t.state <> 'deleted'",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Tenant::from))
}

pub(super) async fn lock(connection: &mut PgConnection, id: TenantId) -> Result<Option<TenantState>> {
    let state: Option<String> = sqlx::query_scalar(
        "select state from tenants where id = $1 and state <> 'deleted' for no key update",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(state.as_deref().map(TenantState::from_word))
}

pub(super) async fn update(connection: &mut PgConnection, id: TenantId, change: &Change) -> Result<()> {
    sqlx::query(
        "update tenants set name = coalesce($2, name), running_turns = coalesce($3, running_turns),
                external_id = case when $4 then $5 else external_id end
         where id = $1",
    )
    .bind(id)
    .bind(&change.name)
    .bind(change.running_turns)
    .bind(change.external_id.is_some())
    .bind(change.external_id.as_ref().and_then(Option::as_ref))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn set_state(connection: &mut PgConnection, id: TenantId, state: TenantState) -> Result<()> {
    sqlx::query("update tenants set state = $2, state_since = now() where id = $1")
        .bind(id)
        .bind(state.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Tenants whose data has to go: (tenant, whether all of it went once).
pub(super) async fn to_erase(engine: &PgPool) -> Result<Vec<(TenantId, bool)>> {
    Ok(sqlx::query_as(
        "select id, state = 'deleted' from tenants
         where state = 'deleting' or (state = 'deleted' and state_since > now() - interval '1 day') order by id",
    )
    .fetch_all(engine)
    .await?)
}

pub(super) async fn erase(engine: &PgPool, id: TenantId, chunk: i64) -> Result<i64> {
    Ok(sqlx::query_scalar("select tenant_erase($1, $2)").bind(id).bind(chunk).fetch_one(engine).await?)
}

pub(super) async fn mark_deleted(connection: &mut PgConnection, id: TenantId) -> Result<()> {
    sqlx::query(
        "update tenants set state = 'deleted', state_since = now(), name = 'deleted', system_prompt = null,
                external_id = null
         where id = $1 and state = 'deleting'",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn of_host(app: &PgPool, host: &HostName) -> Result<Option<TenantId>> {
    let mut tx = before_tenant(app).await?;
    let tenant =
        sqlx::query_scalar("select tenancy_of_host($1)").bind(host.as_str()).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(tenant)
}
