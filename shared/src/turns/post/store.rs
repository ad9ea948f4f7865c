//! SQL of posting.

use serde_json::json;
use sqlx::types::Json;

use super::Posting;
use crate::{
    db::TenantTx,
    error::Result,
    ids::{ConversationId, ItemUid, SessionId, TurnId, UserId},
    turns::Warning,
};

/// Whether the conversation's chat was deleted, as a column of a statement on `conversations c` whose `$1` is the tenant.
macro_rules! is_deleted {
    () => {
        "exists (select from items i where i.tenant_id = $1 and i.kind = 'chat' and i.uid = c.chat_uid
                 and i.deleted_at is not null)"
    };
}

/// Locks the conversation and takes its next turn number; also tells whether its chat was deleted.
pub(super) async fn next_turn_no(
    tx: &mut TenantTx,
    conversation: ConversationId,
) -> Result<(i64, ItemUid, bool)> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(concat!(
        "update conversations c set next_turn_no = next_turn_no + 1 where tenant_id = $1 and id = $2
         returning next_turn_no - 1, chat_uid, ",
        is_deleted!()
    ))
    .bind(tenant)
    .bind(conversation)
    .fetch_one(tx.connection())
    .await?)
}

/// The caller's session of this token, with its conversation locked and the next turn number taken.
#[derive(sqlx::FromRow)]
pub(super) struct TakenNumber {
    pub(super) session_id: SessionId,
    pub(super) conversation_id: ConversationId,
    pub(super) turn_no: i64,
    pub(super) chat_uid: ItemUid,
    pub(super) is_deleted: bool,
}

/// Finds the session, locks its conversation and takes the next turn number. None: no such session, or it has expired.
pub(super) async fn next_turn_no_of_session(
    tx: &mut TenantTx,
    token_hash: &[u8; 32],
) -> Result<Option<TakenNumber>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(concat!(
        "update conversations c set next_turn_no = next_turn_no + 1
         from user_sessions s
         where s.tenant_id = $1 and s.token_hash = $2 and s.user_id = $3 and s.expires_at > now()
           and c.tenant_id = $1 and c.id = s.conversation_id
         returning s.id as session_id, c.id as conversation_id, c.next_turn_no - 1 as turn_no, c.chat_uid, ",
        is_deleted!(),
        " as is_deleted"
    ))
    .bind(tenant)
    .bind(token_hash.as_slice())
    .bind(user)
    .fetch_optional(tx.connection())
    .await?)
}

/// The conversation's unfinished turns in order.
pub(super) async fn line(tx: &mut TenantTx, conversation: ConversationId) -> Result<Vec<(TurnId, String)>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select id, state from turns where tenant_id = $1 and conversation_id = $2
           and state in ('queued', 'waiting', 'ready', 'running', 'awaiting_approval') order by turn_no",
    )
    .bind(tenant)
    .bind(conversation)
    .fetch_all(tx.connection())
    .await?)
}

/// Writes messages, turn and first event, and takes a slot unless the turn stands behind another. Answers the state.
///
/// Unless the caller has looked already, the statement itself looks whether the conversation is busy. It begins after
/// the conversation was locked, so it sees what the lock's former holder wrote.
pub(super) async fn insert_turn(tx: &mut TenantTx, new: &Posting<'_>) -> Result<String> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let uids: Vec<ItemUid> = new.messages.iter().map(|_| ItemUid::generate()).collect();
    let ids: Vec<i64> = new.messages.iter().map(|message| message.id).collect();
    let payloads: Vec<_> = new
        .messages
        .iter()
        .map(|message| {
            let sender = if message.role == "user" { user.to_string() } else { "assistant".to_owned() };
            Json(json!({
                "chatUid": new.chat, "role": message.role, "content": message.content, "sender": sender,
                "messageType": "text", "turnNo": new.turn_no,
            }))
        })
        .collect();
    Ok(sqlx::query_scalar(
        "with line as materialized (
           select coalesce($8,
             exists (select 1 from turns where tenant_id = $1 and conversation_id = $4
                     and state in ('waiting', 'ready', 'running', 'awaiting_approval'))
             or exists (select 1 from turns where tenant_id = $1 and conversation_id = $4 and state = 'queued')) as behind
         ), slot as (
           update tenant_slots set turn_id = $2
           where tenant_id = $1 and not (select behind from line)
             and n = (select n from tenant_slots where tenant_id = $1 and turn_id is null order by n limit 1 for update skip locked)
           returning n
         ), message as (
           insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
           select $1, 'chat_message', m.uid, m.id, $3, m.payload, $6, ($7::bigint << 20) + m.ord - 1, $2
           from unnest($9::uuid[], $10::bigint[], $11::jsonb[]) with ordinality m (uid, id, payload, ord)
         ), chat as (
           update items set updated_at = now() where tenant_id = $1 and kind = 'chat' and uid = $6
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data) values ($1, $2, 1, 'queued', $12)
         )
         insert into turns (tenant_id, id, conversation_id, session_id, user_id, turn_no, state, slot, priority, ready_at,
                            force_refresh, request_id, retry_of, max_attempts)
         select $1, $2, $4, $5, $3, $7,
                case when (select behind from line) then 'queued' when exists (select 1 from slot) then 'ready' else 'waiting' end,
                (select n from slot), coalesce(-(select n from slot), 0),
                case when exists (select 1 from slot) then clock_timestamp() end, $13, $14, $15, $16
         returning state",
    )
    .bind(tenant)
    .bind(new.id)
    .bind(user)
    .bind(new.conversation)
    .bind(new.session)
    .bind(new.chat)
    .bind(new.turn_no)
    .bind(new.behind)
    .bind(&uids)
    .bind(&ids)
    .bind(&payloads)
    .bind(&new.first_event)
    .bind(new.force_refresh)
    .bind(new.request_id)
    .bind(new.retry_of)
    .bind(new.max_attempts)
    .fetch_one(tx.connection())
    .await?)
}

/// Gives a turn that was just written its warnings.
pub(super) async fn warn(tx: &mut TenantTx, turn: TurnId, warnings: &[Warning]) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query("update turns set warnings = $3 where tenant_id = $1 and id = $2")
        .bind(tenant)
        .bind(turn)
        .bind(Json(warnings))
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// What a post of a stored turn is answered with.
#[derive(sqlx::FromRow)]
pub(super) struct AcceptedRow {
    pub(super) turn_no: i64,
    pub(super) session_id: SessionId,
    pub(super) conversation_id: ConversationId,
    pub(super) state: String,
    pub(super) warnings: Json<Vec<Warning>>,
    pub(super) retry_of: Option<TurnId>,
}

pub(super) async fn accepted(tx: &mut TenantTx, turn: TurnId) -> Result<Option<AcceptedRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select turn_no, session_id, conversation_id, state, warnings, retry_of from turns where tenant_id = $1 and id = $2",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn turn_for_retry(
    tx: &mut TenantTx,
    turn: TurnId,
) -> Result<Option<(String, UserId, SessionId, ConversationId, String)>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select t.state, t.user_id, t.session_id, t.conversation_id, i.payload ->> 'content'
         from turns t
         join conversations c on c.tenant_id = t.tenant_id and c.id = t.conversation_id
         join items i on i.tenant_id = t.tenant_id and i.kind = 'chat_message' and i.parent_uid = c.chat_uid
         where t.tenant_id = $1 and t.id = $2 and i.turn_id = t.id
           and i.ordinal >= (t.turn_no << 20) and i.ordinal < (t.turn_no << 20) + 256
         order by i.ordinal desc limit 1",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(tx.connection())
    .await?)
}
