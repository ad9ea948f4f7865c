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
    /// What stands for the turns before those messages.
    pub(super) summary: Option<String>,
    /// Messages before this turn's own steps, oldest first.
    pub(super) history: Vec<HistoryMessage>,
}

/// One statement, because a turn's time is the number of its round trips.
pub(super) async fn beginning(tx: &mut TenantTx, claimed: &Claimed, limit: i64) -> Result<Beginning> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let row = sqlx::query(
        "select t.system_prompt, z.timezone,
                to_char(now() at time zone z.timezone, 'YYYY-MM-DD HH24:MI FMDay') as local_time,
                (select jsonb_object_agg(p.tool, p.policy) from tool_policies p where p.tenant_id = t.id) as policies,
                array(select payload from items
                      where tenant_id = $1 and kind = 'chat_message' and parent_uid = $3 and ordinal < $4
                        and ordinal >= coalesce((s.up_to_turn + 1) << 20, 0) and deleted_at is null
                      order by ordinal desc limit $5) as history, s.summary
         from tenants t cross join users u
         left join user_contexts k on k.tenant_id = t.id and k.user_id = u.id
         cross join lateral known_zone(coalesce(k.context_data #>> '{preferences,timezone}', u.timezone)) z (timezone)
         left join conversation_summaries s on s.tenant_id = t.id and s.conversation_id = $6 and s.up_to_turn > 0
         where t.id = $1 and u.id = $2",
    )
    .bind(tenant)
    .bind(user)
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, 1, 0))
    .bind(limit)
    .bind(claimed.conversation)
    .fetch_one(tx.connection())
    .await?;
    let policies: Option<Json<Policies>> = row.try_get("policies")?;
    let newest_first: Vec<Json<HistoryMessage>> = row.try_get("history")?;
    Ok(Beginning {
        policies: policies.map(|policies| policies.0).unwrap_or_default(),
        system_prompt: row.try_get("system_prompt")?,
        timezone: row.try_get("timezone")?,
        local_time: row.try_get("local_time")?,
        summary: row.try_get("summary")?,
        history: newest_first.into_iter().rev().map(|message| message.0).collect(),
    })
}
