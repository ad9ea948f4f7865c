//! SQL of connections, in the transaction of the person whose they are.

use chrono::{DateTime, Utc};

use super::{Connection, Sealed, Status};
use crate::{
    db::TenantTx,
    error::Result,
    ids::{ConnectionId, SessionId, UserId},
    oauth::Endpoints,
};

/// A connection as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) id: ConnectionId,
    pub(crate) user_id: UserId,
    pub(crate) provider: String,
    pub(crate) server_url: String,
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) endpoints: String,
    pub(crate) workspace_id: String,
    pub(crate) workspace_name: Option<String>,
    pub(crate) access_token_enc: Option<String>,
    pub(crate) refresh_token_enc: Option<String>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) status: String,
    pub(crate) status_reason: Option<String>,
    pub(crate) chosen: bool,
    pub(crate) token_version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    /// Seconds until the access token ends, by the database's clock.
    pub(crate) good_for: Option<f64>,
    /// Seconds that it was good for when it was issued.
    pub(crate) life: Option<f64>,
    /// Seconds for which somebody else may be refreshing it.
    pub(crate) held_for: Option<f64>,
    /// Seconds before the provider is asked again.
    pub(crate) pause: Option<f64>,
}

/// Tokens and what they are for, as they are written when somebody comes back with them.
pub(super) struct Connected<'a> {
    pub(super) provider: &'a str,
    pub(super) server_url: &'a str,
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) endpoints: &'a str,
    pub(super) workspace_id: &'a str,
    pub(super) workspace_name: Option<&'a str>,
    pub(super) scope: Option<&'a str>,
    pub(super) sealed: &'a Sealed,
    pub(super) expires_in: Option<i64>,
}

impl Row {
    pub(crate) fn is_active(&self) -> bool {
        self.status == "active"
    }

    pub(crate) fn endpoints(&self) -> Result<Endpoints> {
        Ok(serde_json::from_str(&self.endpoints)?)
    }

    pub(super) fn into_connection(self) -> Connection {
        Connection {
            status: if self.is_active() { Status::Active } else { Status::Invalid },
            id: self.id,
            server: self.provider,
            workspace_id: self.workspace_id,
            workspace_name: self.workspace_name,
            reason: self.status_reason,
            chosen: self.chosen,
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn list(tx: &mut TenantTx) -> Result<Vec<Row>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select *, extract(epoch from expires_at - clock_timestamp())::float8 as good_for,
                extract(epoch from expires_at - refreshed_at)::float8 as life,
                extract(epoch from lease_until - clock_timestamp())::float8 as held_for,
                extract(epoch from retry_at - clock_timestamp())::float8 as pause
         from connections where tenant_id = $1 and user_id = $2 order by provider, created_at, id",
    )
    .bind(tenant)
    .bind(user)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn by_id(tx: &mut TenantTx, id: ConnectionId) -> Result<Option<Row>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select *, extract(epoch from expires_at - clock_timestamp())::float8 as good_for,
                extract(epoch from expires_at - refreshed_at)::float8 as life,
                extract(epoch from lease_until - clock_timestamp())::float8 as held_for,
                extract(epoch from retry_at - clock_timestamp())::float8 as pause
         from connections where tenant_id = $1 and id = $2 and user_id = $3",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?)
}

/// The connection that tools use: that of the workspace, when one is named, or else the chosen one.
pub(super) async fn in_use(
    tx: &mut TenantTx,
    provider: &str,
    workspace: Option<&str>,
) -> Result<Option<Row>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select *, extract(epoch from expires_at - clock_timestamp())::float8 as good_for,
                extract(epoch from expires_at - refreshed_at)::float8 as life,
                extract(epoch from lease_until - clock_timestamp())::float8 as held_for,
                extract(epoch from retry_at - clock_timestamp())::float8 as pause
         from connections
         where tenant_id = $1 and user_id = $2 and provider = $3 and ($4::text is null or workspace_id = $4 or workspace_name = $4)
         order by (workspace_id = $4) desc nulls last, chosen desc, created_at, id limit 1",
    )
    .bind(tenant)
    .bind(user)
    .bind(provider)
    .bind(workspace)
    .fetch_optional(tx.connection())
    .await?)
}

/// The workspace that a session of the person has chosen.
pub(super) async fn workspace_of(tx: &mut TenantTx, session: SessionId) -> Result<Option<String>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let chosen: Option<Option<String>> = sqlx::query_scalar(
        "select active_notion_workspace from user_sessions where tenant_id = $1 and id = $2 and user_id = $3",
    )
    .bind(tenant)
    .bind(session)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?;
    Ok(chosen.flatten())
}

/// Stores what somebody came back with, over a former connection of the same workspace, and has tools use it.
pub(super) async fn connect(tx: &mut TenantTx, new: &Connected<'_>) -> Result<ConnectionId> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections set chosen = false
         where tenant_id = $1 and user_id = $2 and provider = $3 and chosen and workspace_id <> $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(new.provider)
    .bind(new.workspace_id)
    .execute(tx.connection())
    .await?;
    Ok(sqlx::query_scalar(
        "insert into connections (tenant_id, id, user_id, provider, server_url, issuer, client_id, endpoints, workspace_id,
                                  workspace_name, scope, access_token_enc, refresh_token_enc, expires_at, chosen)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                 clock_timestamp() + make_interval(secs => $14::float8), true)
         on conflict (tenant_id, user_id, provider, workspace_id) do update
           set server_url = excluded.server_url, issuer = excluded.issuer, client_id = excluded.client_id,
               endpoints = excluded.endpoints, workspace_name = excluded.workspace_name, scope = excluded.scope,
               access_token_enc = excluded.access_token_enc, refresh_token_enc = excluded.refresh_token_enc,
               expires_at = excluded.expires_at, chosen = true, status = 'active', status_reason = null,
               token_version = connections.token_version + 1, refreshed_at = clock_timestamp(), lease = null, lease_until = null,
               sent_at = null, doubted_at = null, failures = 0, retry_at = null, last_error = null, updated_at = now()
         returning id",
    )
    .bind(tenant)
    .bind(ConnectionId::generate())
    .bind(user)
    .bind(new.provider)
    .bind(new.server_url)
    .bind(new.issuer)
    .bind(new.client_id)
    .bind(new.endpoints)
    .bind(new.workspace_id)
    .bind(new.workspace_name)
    .bind(new.scope)
    .bind(&new.sealed.access)
    .bind(new.sealed.refresh.as_ref())
    .bind(new.expires_in.map(|seconds| seconds as f64))
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn choose(tx: &mut TenantTx, provider: &str, id: ConnectionId) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections set chosen = false
         where tenant_id = $1 and user_id = $2 and provider = $3 and chosen and id <> $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(provider)
    .bind(id)
    .execute(tx.connection())
    .await?;
    sqlx::query("update connections set chosen = true, updated_at = now() where tenant_id = $1 and user_id = $2 and id = $3")
        .bind(tenant)
        .bind(user)
        .bind(id)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// The oldest is chosen where none is.
pub(super) async fn choose_some(tx: &mut TenantTx, provider: &str) -> Result<()> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "update connections set chosen = true
         where tenant_id = $1 and id = (select c.id from connections c where c.tenant_id = $1 and c.user_id = $2 and c.provider = $3
                                        order by c.status, c.created_at, c.id limit 1)
           and not exists (select 1 from connections o where o.tenant_id = $1 and o.user_id = $2 and o.provider = $3 and o.chosen)",
    )
    .bind(tenant)
    .bind(user)
    .bind(provider)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut TenantTx, id: ConnectionId) -> Result<Option<Row>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "delete from connections where tenant_id = $1 and id = $2 and user_id = $3
         returning *, null::float8 as good_for, null::float8 as life, null::float8 as held_for, null::float8 as pause",
    )
    .bind(tenant)
    .bind(id)
    .bind(user)
    .fetch_optional(tx.connection())
    .await?)
}
