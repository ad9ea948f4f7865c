//! SQL of what a turn starts from.

use sqlx::{Row, types::Json};

use super::HistoryMessage;
use crate::{
    db::TenantTx,
    error::{Error, Result},
    tenancy::Policies,
    turns::{Claimed, history},
};

/// Settings of the tenant and the user that a turn runs with.
pub(super) struct TurnSettingsRow {
    pub(super) policies: Policies,
    pub(super) system_prompt: Option<String>,
    pub(super) timezone: String,
    pub(super) local_time: String,
}

pub(super) async fn turn_settings(tx: &mut TenantTx) -> Result<TurnSettingsRow> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let row = sqlx::query(
        "select t.system_prompt, u.timezone,
                to_char(now() at time zone u.timezone, 'YYYY-MM-DD HH24:MI FMDay') as local_time,
                (select jsonb_object_agg(p.tool, p.policy) from tool_policies p where p.tenant_id = t.id) as policies
         from tenants t, users u where t.id = $1 and u.id = $2",
    )
    .bind(tenant)
    .bind(user)
    .fetch_one(tx.connection())
    .await?;
    let policies: Option<Json<Policies>> = row.try_get("policies")?;
    Ok(TurnSettingsRow {
        policies: policies.map(|policies| policies.0).unwrap_or_default(),
        system_prompt: row.try_get("system_prompt")?,
        timezone: row.try_get("timezone")?,
        local_time: row.try_get("local_time")?,
    })
}

/// Messages before this turn's own steps, oldest first.
pub(super) async fn history(tx: &mut TenantTx, claimed: &Claimed, limit: i64) -> Result<Vec<HistoryMessage>> {
    let rows: Vec<(Json<HistoryMessage>,)> = sqlx::query_as(
        "select payload from items
         where tenant_id = $1 and kind = 'chat_message' and parent_uid = $2 and ordinal < $3 and deleted_at is null
         order by ordinal desc limit $4",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, 1, 0))
    .bind(limit)
    .fetch_all(tx.connection())
    .await
    .map_err(Error::from)?;
    Ok(rows.into_iter().rev().map(|(message,)| message.0).collect())
}
