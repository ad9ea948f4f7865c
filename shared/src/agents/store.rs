//! SQL of the registry of agents.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::AgentName;
use crate::{db::TenantTx, error::Result, ids::TenantId};

#[derive(sqlx::FromRow)]
pub(super) struct AgentRow {
    pub(super) name: AgentName,
    pub(super) endpoint: String,
    pub(super) capabilities: Vec<String>,
    pub(super) event_types: Vec<String>,
    pub(super) enabled: bool,
    pub(super) disabled_because: Option<String>,
    pub(super) configured: bool,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// What is none stays as it is.
pub(super) struct Write<'a> {
    pub(super) endpoint: Option<&'a str>,
    pub(super) capabilities: Option<&'a [String]>,
    pub(super) event_types: Option<Vec<&'static str>>,
    pub(super) enabled: Option<bool>,
}

/// False when the name is taken.
pub(super) async fn insert(tx: &mut TenantTx, name: &AgentName, new: &Write<'_>) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let done = sqlx::query(
        "insert into agents (tenant_id, name, endpoint, capabilities, event_types, enabled)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
    )
    .bind(tenant)
    .bind(name)
    .bind(new.endpoint)
    .bind(new.capabilities)
    .bind(&new.event_types)
    .bind(new.enabled)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn list(tx: &mut TenantTx, capability: Option<&str>) -> Result<Vec<AgentRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select name, endpoint, capabilities, event_types, enabled, disabled_because, configured, created_at, updated_at
         from agents where tenant_id = $1 and ($2::text is null or $2 = any (capabilities)) order by name",
    )
    .bind(tenant)
    .bind(capability)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn one(tx: &mut TenantTx, name: &AgentName) -> Result<Option<AgentRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select name, endpoint, capabilities, event_types, enabled, disabled_because, configured, created_at, updated_at
         from agents where tenant_id = $1 and name = $2",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn update(tx: &mut TenantTx, name: &AgentName, change: &Write<'_>) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update agents set endpoint = coalesce($3, endpoint), capabilities = coalesce($4, capabilities),
                event_types = coalesce($5, event_types), enabled = coalesce($6, enabled),
                disabled_because = case when $6 is null then disabled_because end, updated_at = now()
         where tenant_id = $1 and name = $2",
    )
    .bind(tenant)
    .bind(name)
    .bind(change.endpoint)
    .bind(change.capabilities)
    .bind(&change.event_types)
    .bind(change.enabled)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn forget_breaker(tx: &mut TenantTx, name: &AgentName) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("delete from agent_breakers where tenant_id = $1 and agent = $2")
        .bind(tenant)
        .bind(name)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Removes the agent; what it was not told is dead.
pub(super) async fn delete(tx: &mut TenantTx, name: &AgentName) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "with dead as (
           update agent_notification_events set status = 'failed', error_message = 'the agent was removed', processed_at = now()
           where tenant_id = $1 and target_agent = $2 and status in ('pending', 'retry'))
         delete from agents where tenant_id = $1 and name = $2",
    )
    .bind(tenant)
    .bind(name)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The newest secret goes on for so long; those before it end. Answers until when.
pub(super) async fn end_secrets(
    connection: &mut PgConnection,
    tenant: TenantId,
    agent: &AgentName,
    hours: i64,
) -> Result<Option<DateTime<Utc>>> {
    let ends: Vec<(DateTime<Utc>,)> = sqlx::query_as(
        "with newest as (
           select id from agent_secrets where tenant_id = $1 and agent = $2 and expires_at is null order by id desc limit 1 for update
         ), ended as (
           delete from agent_secrets s where s.tenant_id = $1 and s.agent = $2 and s.id not in (select id from newest)
         )
         update agent_secrets s set expires_at = now() + make_interval(hours => $3::integer)
         from newest where s.tenant_id = $1 and s.agent = $2 and s.id = newest.id returning s.expires_at",
    )
    .bind(tenant)
    .bind(agent)
    .bind(hours)
    .fetch_all(connection)
    .await?;
    Ok(ends.into_iter().next().map(|(end,)| end))
}

pub(super) async fn insert_secret(
    connection: &mut PgConnection,
    tenant: TenantId,
    agent: &AgentName,
    id: Uuid,
    sealed: &str,
) -> Result<()> {
    sqlx::query("insert into agent_secrets (tenant_id, agent, id, secret_enc) values ($1, $2, $3, $4)")
        .bind(tenant)
        .bind(agent)
        .bind(id)
        .bind(sealed)
        .execute(connection)
        .await?;
    Ok(())
}

/// The agents that the environment configures are exactly these; those it no longer names stay, disabled. Answers those that
/// are new, which have no secret yet.
pub(super) async fn configure(
    engine: &PgPool,
    tenant: TenantId,
    names: &[&str],
    endpoints: &[&str],
    capabilities: &[&str],
) -> Result<Vec<AgentName>> {
    Ok(sqlx::query_scalar(
        "with given as (
           select * from unnest($2::text[], $3::text[], $4::text[]) g (name, endpoint, capability)
         ), gone as (
           update agents a set enabled = false, disabled_because = 'it is no longer in the environment', updated_at = now()
           where a.tenant_id = $1 and a.configured and a.enabled and a.name not in (select name from given)
         ), made as (
           insert into agents (tenant_id, name, endpoint, capabilities, configured)
           select $1, name, endpoint, array[capability], true from given
           on conflict (tenant_id, name) do update
             set endpoint = excluded.endpoint, configured = true, updated_at = now(),
                 enabled = agents.enabled or agents.disabled_because = 'it is no longer in the environment',
                 disabled_because = nullif(agents.disabled_because, 'it is no longer in the environment')
             where (agents.endpoint, agents.configured) is distinct from (excluded.endpoint, true)
                or agents.disabled_because = 'it is no longer in the environment'
         )
         select name from given g where not exists
           (select from agent_secrets s where s.tenant_id = $1 and s.agent = g.name)",
    )
    .bind(tenant)
    .bind(names)
    .bind(endpoints)
    .bind(capabilities)
    .fetch_all(engine)
    .await?)
}
