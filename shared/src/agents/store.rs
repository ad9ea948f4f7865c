//! SQL of the registry of agents.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    AgentName,
    condition::Condition,
    permissions::{Granted, Level, Permissions},
    side::Hashes,
};
use crate::{db::TenantTx, error::Result, ids::TenantId};

/// What an agent may, as it is stored.
#[derive(sqlx::FromRow)]
pub(super) struct MatrixRow {
    permission_level: String,
    permissions_required: Vec<String>,
    permissions_optional: Vec<String>,
    permissions_forbidden: Vec<String>,
}

impl MatrixRow {
    /// A level of tomorrow is none today.
    pub(super) fn level(&self) -> Level {
        Level::from_word(&self.permission_level).unwrap_or(Level::Restricted)
    }

    pub(super) fn permissions(&self) -> Permissions {
        permissions_of(&self.permissions_required, &self.permissions_optional, &self.permissions_forbidden)
    }

    pub(super) fn granted(&self) -> Granted {
        self.permissions().granted(self.level())
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct AgentRow {
    pub(super) name: AgentName,
    pub(super) endpoint: String,
    pub(super) capabilities: Vec<String>,
    pub(super) event_types: Vec<String>,
    #[sqlx(flatten)]
    pub(super) matrix: MatrixRow,
    pub(super) condition: Option<Value>,
    pub(super) accepts_batches: bool,
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
    pub(super) permission_level: Option<&'static str>,
    pub(super) permissions: Option<Permissions>,
    pub(super) condition: Option<Option<Condition>>,
    pub(super) accepts_batches: Option<bool>,
    pub(super) enabled: Option<bool>,
}

impl Write<'_> {
    /// Required, optional and forbidden words.
    fn permission_words(&self) -> [Option<Vec<String>>; 3] {
        let sets = |permissions: &Permissions| {
            [&permissions.required, &permissions.optional, &permissions.forbidden]
                .map(|set| Some(set.iter().map(ToString::to_string).collect()))
        };
        self.permissions.as_ref().map(sets).unwrap_or_default()
    }

    fn condition_value(&self) -> Result<Option<Value>> {
        Ok(self.condition.as_ref().and_then(Option::as_ref).map(serde_json::to_value).transpose()?)
    }
}

/// The matrix of these words; a word of tomorrow grants nothing today.
pub(super) fn permissions_of(required: &[String], optional: &[String], forbidden: &[String]) -> Permissions {
    let set = |words: &[String]| words.iter().filter_map(|word| word.parse().ok()).collect();
    Permissions { required: set(required), optional: set(optional), forbidden: set(forbidden) }
}

/// How many agents the tenant has, beside those of the environment. Whoever counts is alone with that until its transaction ends.
pub(super) async fn count(tx: &mut TenantTx) -> Result<i64> {
    let tenant = tx.actor().tenant;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('agents:' || $1::text, 0))")
        .bind(tenant)
        .execute(tx.connection())
        .await?;
    Ok(sqlx::query_scalar("select count(*) from agents where tenant_id = $1 and not configured")
        .bind(tenant)
        .fetch_one(tx.connection())
        .await?)
}

/// False when the name is taken.
pub(super) async fn insert(tx: &mut TenantTx, name: &AgentName, new: &Write<'_>) -> Result<bool> {
    let tenant = tx.actor().tenant;
    let [required, optional, forbidden] = new.permission_words();
    let done = sqlx::query(
        "insert into agents (tenant_id, name, endpoint, capabilities, event_types, enabled, permission_level,
                             permissions_required, permissions_optional, permissions_forbidden, condition,
                             accepts_batches)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing",
    )
    .bind(tenant)
    .bind(name)
    .bind(new.endpoint)
    .bind(new.capabilities)
    .bind(&new.event_types)
    .bind(new.enabled)
    .bind(new.permission_level)
    .bind(required)
    .bind(optional)
    .bind(forbidden)
    .bind(new.condition_value()?)
    .bind(new.accepts_batches)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn list(tx: &mut TenantTx, capability: Option<&str>) -> Result<Vec<AgentRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select name, endpoint, capabilities, event_types, permission_level, permissions_required, permissions_optional,
                permissions_forbidden, condition, accepts_batches, enabled, disabled_because, configured, created_at,
                updated_at
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
        "select name, endpoint, capabilities, event_types, permission_level, permissions_required, permissions_optional,
                permissions_forbidden, condition, accepts_batches, enabled, disabled_because, configured, created_at,
                updated_at
         from agents where tenant_id = $1 and name = $2",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn update(tx: &mut TenantTx, name: &AgentName, change: &Write<'_>) -> Result<()> {
    let tenant = tx.actor().tenant;
    let [required, optional, forbidden] = change.permission_words();
    sqlx::query(
        "update agents set endpoint = coalesce($3, endpoint), capabilities = coalesce($4, capabilities),
                event_types = coalesce($5, event_types), enabled = coalesce($6, enabled),
                disabled_because = case when $6 is null then disabled_because end,
                permission_level = coalesce($7, permission_level),
                permissions_required = coalesce($8, permissions_required),
                permissions_optional = coalesce($9, permissions_optional),
                permissions_forbidden = coalesce($10, permissions_forbidden),
                condition = case when $11 then $12 else condition end,
                accepts_batches = coalesce($13, accepts_batches), updated_at = now()
         where tenant_id = $1 and name = $2",
    )
    .bind(tenant)
    .bind(name)
    .bind(change.endpoint)
    .bind(change.capabilities)
    .bind(&change.event_types)
    .bind(change.enabled)
    .bind(change.permission_level)
    .bind(required)
    .bind(optional)
    .bind(forbidden)
    .bind(change.condition.is_some())
    .bind(change.condition_value()?)
    .bind(change.accepts_batches)
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

pub(super) async fn replace_credentials(tx: &mut TenantTx, name: &AgentName, hashes: &Hashes) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "insert into agent_credentials (tenant_id, agent, api_key_hash, client_secret_hash) values ($1, $2, $3, $4)
         on conflict (tenant_id, agent) do update
           set api_key_hash = excluded.api_key_hash, client_secret_hash = excluded.client_secret_hash, created_at = now()",
    )
    .bind(tenant)
    .bind(name)
    .bind(&hashes.api_key)
    .bind(&hashes.client_secret)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn end_sessions(tx: &mut TenantTx, name: &AgentName) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update agent_sessions set is_active = false where tenant_id = $1 and agent_name = $2 and is_active",
    )
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

/// The agents that the environment configures are exactly these; those it no longer names stay, disabled. What else is given of
/// an agent holds for a new one: its admins decide it from then on. Answers those that have no secret yet.
pub(super) async fn configure(engine: &PgPool, tenant: TenantId, given: &Value) -> Result<Vec<AgentName>> {
    Ok(sqlx::query_scalar(
        "with given as (
           select * from jsonb_to_recordset($2) g (name text, endpoint text, level text, required text[], optional text[],
                                                   forbidden text[])
         ), gone as (
           update agents a set enabled = false, disabled_because = 'it is no longer in the environment', updated_at = now()
           where a.tenant_id = $1 and a.configured and a.enabled and a.name not in (select name from given)
           returning a.tenant_id, a.name
         ), ended as (
           update agent_sessions s set is_active = false
           from gone g where s.tenant_id = g.tenant_id and s.agent_name = g.name and s.is_active
         ), made as (
           insert into agents (tenant_id, name, endpoint, capabilities, configured, permission_level, permissions_required,
                               permissions_optional, permissions_forbidden)
           select $1, name, endpoint, array[name], true, level, required, optional, forbidden from given
           on conflict (tenant_id, name) do update
             set endpoint = excluded.endpoint, configured = true, updated_at = now(),
                 enabled = agents.enabled or agents.disabled_because is not distinct from 'it is no longer in the environment',
                 disabled_because = nullif(agents.disabled_because, 'it is no longer in the environment')
             where (agents.endpoint, agents.configured) is distinct from (excluded.endpoint, true)
                or agents.disabled_because = 'it is no longer in the environment'
         )
         select name from given g where not exists
           (select from agent_secrets s where s.tenant_id = $1 and s.agent = g.name)",
    )
    .bind(tenant)
    .bind(given)
    .fetch_all(engine)
    .await?)
}
