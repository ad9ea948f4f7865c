//! SQL of agents' own requests, as the engine: before a user is known, and about sessions, which belong to none.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Hashes, Session, SessionFilter};
use crate::{
    agents::{AgentName, store::MatrixRow},
    db::TenantTx,
    error::Result,
    ids::{TenantId, UserId},
};

/// An agent that has credentials.
pub(super) struct KnownAgent {
    pub(super) hashes: Hashes,
    /// The agent is enabled, its tenant active.
    pub(super) is_on: bool,
    pub(super) matrix: MatrixRow,
}

#[derive(sqlx::FromRow)]
struct KnownRow {
    api_key_hash: Vec<u8>,
    client_secret_hash: Vec<u8>,
    is_on: bool,
    #[sqlx(flatten)]
    matrix: MatrixRow,
}

pub(super) async fn credentials(
    engine: &PgPool,
    tenant: TenantId,
    agent: &str,
) -> Result<Option<KnownAgent>> {
    let row: Option<KnownRow> = sqlx::query_as(
        "select c.api_key_hash, c.client_secret_hash, a.enabled and t.state = 'active' as is_on, a.permission_level,
                a.permissions_required, agent_optional_permissions(a) as permissions_optional, a.permissions_forbidden
         from agent_credentials c
         join agents a on a.tenant_id = c.tenant_id and a.name = c.agent
         join tenants t on t.id = c.tenant_id
         where c.tenant_id = $1 and c.agent = $2",
    )
    .bind(tenant)
    .bind(agent.replace('\0', "\u{fffd}"))
    .fetch_optional(engine)
    .await?;
    Ok(row.map(|row| KnownAgent {
        hashes: Hashes { api_key: row.api_key_hash, client_secret: row.client_secret_hash },
        is_on: row.is_on,
        matrix: row.matrix,
    }))
}

pub(super) struct NewSession {
    pub(super) id: Uuid,
    pub(super) token_hash: Vec<u8>,
    pub(super) permissions: Vec<String>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) address: String,
}

/// Begins a session while the credentials still are these and the agent is on. Whoever changes that waits for it, and then ends
/// it with the others.
pub(super) async fn insert_session(
    connection: &mut PgConnection,
    tenant: TenantId,
    agent: &str,
    shown: &Hashes,
    new: &NewSession,
) -> Result<Option<Session>> {
    let begun: Vec<Session> = sqlx::query_as(
        "insert into agent_sessions (tenant_id, id, agent_name, session_token_hash, permissions, expires_at, ip_address)
         select a.tenant_id, $2, a.name, $4, $5, $6, $7
         from agents a join agent_credentials c on c.tenant_id = a.tenant_id and c.agent = a.name
         where a.tenant_id = $1 and a.name = $3 and a.enabled and c.api_key_hash = $8 and c.client_secret_hash = $9
         for share of a, c
         returning id, agent_name, permissions, created_at, expires_at, last_accessed, ip_address, is_active",
    )
    .bind(tenant)
    .bind(new.id)
    .bind(agent)
    .bind(&new.token_hash)
    .bind(&new.permissions)
    .bind(new.expires_at)
    .bind(&new.address)
    .bind(&shown.api_key)
    .bind(&shown.client_secret)
    .fetch_all(connection)
    .await?;
    Ok(begun.into_iter().next())
}

/// A session that is good now, and what its agent may do now.
pub(super) struct LiveSession {
    pub(super) agent: AgentName,
    pub(super) token_hash: Vec<u8>,
    pub(super) permissions: Vec<String>,
    pub(super) matrix: MatrixRow,
}

#[derive(sqlx::FromRow)]
struct LiveRow {
    agent_name: AgentName,
    session_token_hash: Vec<u8>,
    permissions: Vec<String>,
    #[sqlx(flatten)]
    matrix: MatrixRow,
}

/// Notes in passing that the session is used, at most every ten seconds.
pub(super) async fn live_session(
    engine: &PgPool,
    tenant: TenantId,
    id: Uuid,
    agent: &str,
) -> Result<Option<LiveSession>> {
    let row: Option<LiveRow> = sqlx::query_as(
        "with used as (
           update agent_sessions set last_accessed = clock_timestamp()
           where tenant_id = $1 and id = $2 and agent_name = $3 and is_active and expires_at > clock_timestamp()
             and last_accessed < clock_timestamp() - interval '10 seconds'
         )
         select s.agent_name, s.session_token_hash, s.permissions, a.permission_level, a.permissions_required,
                agent_optional_permissions(a) as permissions_optional, a.permissions_forbidden
         from agent_sessions s
         join agents a on a.tenant_id = s.tenant_id and a.name = s.agent_name
         join tenants t on t.id = s.tenant_id
         where s.tenant_id = $1 and s.id = $2 and s.agent_name = $3 and s.is_active
           and s.expires_at > clock_timestamp() and a.enabled and t.state = 'active'",
    )
    .bind(tenant)
    .bind(id)
    .bind(agent)
    .fetch_optional(engine)
    .await?;
    Ok(row.map(|row| LiveSession {
        agent: row.agent_name,
        token_hash: row.session_token_hash,
        permissions: row.permissions,
        matrix: row.matrix,
    }))
}

pub(super) async fn sessions_of(
    engine: &PgPool,
    tenant: TenantId,
    agent: &AgentName,
    only: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Session>> {
    Ok(sqlx::query_as(
        "select id, agent_name, permissions, created_at, expires_at, last_accessed, ip_address, is_active from agent_sessions
         where tenant_id = $1 and agent_name = $2 and ($3::uuid is null or id = $3) and ($4::uuid is null or id < $4)
         order by id desc limit $5",
    )
    .bind(tenant)
    .bind(agent)
    .bind(only)
    .bind(before)
    .bind(limit)
    .fetch_all(engine)
    .await?)
}

pub(super) async fn session_of(
    engine: &PgPool,
    tenant: TenantId,
    agent: &AgentName,
    id: Uuid,
) -> Result<Option<Session>> {
    Ok(sqlx::query_as(
        "select id, agent_name, permissions, created_at, expires_at, last_accessed, ip_address, is_active
         from agent_sessions where tenant_id = $1 and agent_name = $2 and id = $3",
    )
    .bind(tenant)
    .bind(agent)
    .bind(id)
    .fetch_optional(engine)
    .await?)
}

pub(super) async fn end_session(
    connection: &mut PgConnection,
    tenant: TenantId,
    agent: &AgentName,
    id: Uuid,
) -> Result<()> {
    sqlx::query(
        "update agent_sessions set is_active = false where tenant_id = $1 and agent_name = $2 and id = $3",
    )
    .bind(tenant)
    .bind(agent)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the tenant's agents may know of a user: one who belongs to it.
pub(super) async fn knows(
    engine: &PgPool,
    tenant: TenantId,
    user: UserId,
    default_tenant: TenantId,
) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from users u where u.id = $2) and belongs($1, $2, $3)")
        .bind(tenant)
        .bind(user)
        .bind(default_tenant)
        .fetch_one(engine)
        .await?)
}

/// When the agent acknowledged the event first; none when it was not told of it. It has it, whatever we believed. The lease stays:
/// who acknowledges before answering is in the midst of an exchange, which is settled afterwards.
pub(super) async fn acknowledge(
    connection: &mut PgConnection,
    tenant: TenantId,
    agent: &AgentName,
    event: Uuid,
) -> Result<Option<DateTime<Utc>>> {
    let rows: Vec<(DateTime<Utc>,)> = sqlx::query_as(
        "update agent_notification_events
           set acknowledged_at = coalesce(acknowledged_at, clock_timestamp()), status = 'delivered',
               processed_at = coalesce(processed_at, clock_timestamp())
         where tenant_id = $1 and event_id = $2 and target_agent = $3 returning acknowledged_at",
    )
    .bind(tenant)
    .bind(event)
    .bind(agent)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().next().map(|(at,)| at))
}

pub(super) async fn list(
    tx: &mut TenantTx,
    filter: &SessionFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Session>> {
    let tenant = tx.actor().tenant;
    // A plan for each, because one that fits both reads all sessions for those few that are live.
    let statement = match filter.live {
        true => {
            "with live as materialized (
               select id, agent_name, permissions, created_at, expires_at, last_accessed, ip_address, is_active from agent_sessions
               where tenant_id = $1 and is_active and expires_at > now() and ($2::text is null or agent_name = $2)
             )
             select * from live where $3::uuid is null or id < $3 order by id desc limit $4"
        }
        false => {
            "select id, agent_name, permissions, created_at, expires_at, last_accessed, ip_address, is_active from agent_sessions
             where tenant_id = $1 and ($2::text is null or agent_name = $2)
               and id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
             order by id desc limit $4"
        }
    };
    Ok(sqlx::query_as(statement)
        .bind(tenant)
        .bind(filter.agent.as_ref().map(AgentName::as_str))
        .bind(before)
        .bind(limit)
        .fetch_all(tx.connection())
        .await?)
}

/// Whose session it is; none when there is none.
pub(super) async fn revoke(tx: &mut TenantTx, id: Uuid) -> Result<Option<AgentName>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<(AgentName,)> = sqlx::query_as(
        "update agent_sessions set is_active = false where tenant_id = $1 and id = $2 returning agent_name",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().next().map(|(agent,)| agent))
}
