//! SQL of compaction.

use std::time::Duration;

use sqlx::types::Json;

use crate::{
    db::TenantTx,
    error::Result,
    ids::ConversationId,
    turns::{HistoryMessage, history},
};

/// Claims the conversation's summary; answers what it says and up to which turn, or none when somebody else has it.
pub(super) async fn claim(
    tx: &mut TenantTx,
    conversation: ConversationId,
    patience: Duration,
) -> Result<Option<(String, i64)>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "insert into conversation_summaries as s (tenant_id, conversation_id, user_id, claimed_until)
         select c.tenant_id, c.id, c.user_id, clock_timestamp() + make_interval(secs => $4)
         from conversations c where c.tenant_id = $1 and c.id = $2 and c.user_id = $3
         on conflict (tenant_id, conversation_id) do update set claimed_until = excluded.claimed_until
           where s.claimed_until is null or s.claimed_until < clock_timestamp()
         returning summary, up_to_turn",
    )
    .bind(tenant)
    .bind(conversation)
    .bind(user)
    .bind(patience.as_secs_f64())
    .fetch_optional(tx.connection())
    .await?)
}

/// Messages of turns after that one, without the newest turns, oldest first, each with the number of its turn.
pub(super) async fn messages(
    tx: &mut TenantTx,
    conversation: ConversationId,
    after: i64,
    kept: i64,
    limit: i64,
) -> Result<Vec<(i64, HistoryMessage)>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<(i64, Json<HistoryMessage>)> = sqlx::query_as(
        "select i.ordinal >> 20, i.payload from conversations c
         join items i on i.tenant_id = c.tenant_id and i.kind = 'chat_message' and i.parent_uid = c.chat_uid
         where c.tenant_id = $1 and c.id = $2 and i.deleted_at is null
           and i.ordinal >= $3 and i.ordinal < (c.next_turn_no - $4) << 20
         order by i.ordinal limit $5",
    )
    .bind(tenant)
    .bind(conversation)
    .bind(if after == 0 { 0 } else { history::ordinal(after + 1, 0, 0) })
    .bind(kept)
    .bind(limit)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|(turn, message)| (turn, message.0)).collect())
}

pub(super) async fn finish(
    tx: &mut TenantTx,
    conversation: ConversationId,
    up_to_turn: i64,
    summary: &str,
) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update conversation_summaries
         set summary = $3, up_to_turn = $4, claimed_until = null, updated_at = clock_timestamp()
         where tenant_id = $1 and conversation_id = $2 and up_to_turn < $4",
    )
    .bind(tenant)
    .bind(conversation)
    .bind(summary)
    .bind(up_to_turn)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn abandon(tx: &mut TenantTx, conversation: ConversationId) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update conversation_summaries set claimed_until = null where tenant_id = $1 and conversation_id = $2",
    )
    .bind(tenant)
    .bind(conversation)
    .execute(tx.connection())
    .await?;
    Ok(())
}
