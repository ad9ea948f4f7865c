//! SQL of what a turn starts from.

use sqlx::{Row, types::Json};

use super::HistoryMessage;
use crate::{
    db::TenantTx,
    error::Result,
    tenancy::Policies,
    turns::{Claimed, history},
};

/// What every turn starts from: the tenant's and the user's settings, and the conversation so far.
pub(super) struct Beginning {
    pub(super) policies: Policies,
    pub(super) system_prompt: Option<String>,
    pub(super) timezone: String,
    pub(super) local_time: String,
    /// Messages before this turn's own steps, oldest first.
    pub(super) history: Vec<HistoryMessage>,
}

/// One statement, because a turn's time is the number of its round trips.
pub(super) async fn beginning(tx: &mut TenantTx, claimed: &Claimed, limit: i64) -> Result<Beginning> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let row = sqlx::query(
        "select t.system_prompt, u.timezone,
                to_char(now() at time zone u.timezone, 'YYYY-MM-DD HH24:MI FMDay') as local_time,
                (select jsonb_object_agg(p.tool, p.policy) from tool_policies p where p.tenant_id = t.id) as policies,
                array(select payload from items
                      where tenant_id = $1 and kind = 'chat_message' and parent_uid = $3 and ordinal < $4 and deleted_at is null
                      order by ordinal desc limit $5) as history
         from tenants t, users u where t.id = $1 and u.id = $2",
    )
    .bind(tenant)
    .bind(user)
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, 1, 0))
    .bind(limit)
    .fetch_one(tx.connection())
    .await?;
    let policies: Option<Json<Policies>> = row.try_get("policies")?;
    let newest_first: Vec<Json<HistoryMessage>> = row.try_get("history")?;
    Ok(Beginning {
        policies: policies.map(|policies| policies.0).unwrap_or_default(),
        system_prompt: row.try_get("system_prompt")?,
        timezone: row.try_get("timezone")?,
        local_time: row.try_get("local_time")?,
        history: newest_first.into_iter().rev().map(|message| message.0).collect(),
    })
}
