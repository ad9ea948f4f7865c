//! SQL of turns: idempotency keys, locks, ending and slots.

use serde_json::json;
use sqlx::{PgPool, types::Json};

use super::{
    Claimed, Ending, FinishedTurn, FinishedUsage, IdempotencyKey, NewEvent, Warning, columns, history,
};
use crate::{
    db::TenantTx,
    error::Result,
    events::{Event, Lease},
    ids::{ConversationId, ItemUid, SessionId, TenantId, TurnId, UserId},
};

/// The step number under which a turn's last message sorts, after every real step.
const LAST_MESSAGE: i64 = 4000;

pub(super) async fn claim_key(tx: &mut TenantTx, key: &IdempotencyKey, turn: TurnId) -> Result<bool> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let done = sqlx::query(
        "insert into idempotency_keys (tenant_id, user_id, route, key, body_hash, turn_id) values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, user_id, route, key) do nothing",
    )
    .bind(tenant)
    .bind(user)
    .bind(&key.route)
    .bind(&key.key)
    .bind(key.body_hash.as_slice())
    .bind(turn)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn key_owner(tx: &mut TenantTx, key: &IdempotencyKey) -> Result<Option<(TurnId, Vec<u8>)>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_as(
        "select turn_id, body_hash from idempotency_keys where tenant_id = $1 and user_id = $2 and route = $3 and key = $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(&key.route)
    .bind(&key.key)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn request_cancel(tx: &mut TenantTx, turn: TurnId, reason: &str) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update turns set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
                cancel_reason = coalesce(cancel_reason, $3)
         where tenant_id = $1 and id = $2 and state = 'running'",
    )
    .bind(tenant)
    .bind(turn)
    .bind(reason)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn conversation_of(tx: &mut TenantTx, turn: TurnId) -> Result<Option<ConversationId>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select conversation_id from turns where tenant_id = $1 and id = $2")
        .bind(tenant)
        .bind(turn)
        .fetch_optional(tx.connection())
        .await?)
}

pub(super) async fn lock_conversation(tx: &mut TenantTx, conversation: ConversationId) -> Result<ItemUid> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "select chat_uid from conversations where tenant_id = $1 and id = $2 for no key update",
    )
    .bind(tenant)
    .bind(conversation)
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn lock_state(tx: &mut TenantTx, turn: TurnId) -> Result<Option<String>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar("select state from turns where tenant_id = $1 and id = $2 for no key update")
        .bind(tenant)
        .bind(turn)
        .fetch_optional(tx.connection())
        .await?)
}

/// A turn whose lease was taken to end it.
#[derive(sqlx::FromRow)]
pub(super) struct Held {
    pub(super) id: TurnId,
    pub(super) user_id: UserId,
    pub(super) session_id: SessionId,
    #[sqlx(rename = "conversation_id")]
    pub(super) conversation: ConversationId,
    pub(super) turn_no: i64,
    pub(super) slot: Option<i64>,
    pub(super) was_leased: bool,
    pub(super) elapsed_ms: i64,
    pub(super) request_id: String,
    #[sqlx(skip)]
    pub(super) last_step_seq: i64,
    #[sqlx(skip)]
    pub(super) input_tokens: i64,
    #[sqlx(skip)]
    pub(super) output_tokens: i64,
}

/// Locks an unfinished turn and takes its lease, which fences whoever had it. None: it has ended.
pub(super) async fn take_lease(tx: &mut TenantTx, turn: TurnId) -> Result<Option<Held>> {
    let tenant = tx.actor().tenant;
    let held: Option<Held> = sqlx::query_as(
        "with held as materialized (
           select tenant_id, id, lease from turns
           where tenant_id = $1 and id = $2 and finished_at is null for no key update
         )
         update turns t set lease = gen_random_uuid() from held where t.tenant_id = held.tenant_id and t.id = held.id
         returning t.id, t.user_id, t.session_id, t.conversation_id, t.turn_no, t.slot, t.request_id,
                   held.lease is not null as was_leased,
                   (extract(epoch from clock_timestamp() - t.created_at) * 1000)::bigint as elapsed_ms",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(tx.connection())
    .await?;
    let Some(mut held) = held else { return Ok(None) };
    // A statement of its own: what was committed while we waited for the lock must be seen.
    let last: Option<i64> =
        sqlx::query_scalar("select max(event_seq) from turn_steps where tenant_id = $1 and turn_id = $2")
            .bind(tenant)
            .bind(turn)
            .fetch_one(tx.connection())
            .await?;
    held.last_step_seq = last.unwrap_or(1);
    let (used, _) = used(tx, turn).await?;
    (held.input_tokens, held.output_tokens) = (used.input, used.output);
    Ok(Some(held))
}

/// The whole log of a turn.
pub(super) async fn events(tx: &mut TenantTx, turn: TurnId) -> Result<Vec<Event>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "select seq, kind, data from turn_events where tenant_id = $1 and turn_id = $2 order by seq",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(|(seq, kind, data)| Ok(Event::new(seq, kind.parse()?, data))).collect()
}

/// What the model calls of a turn have used and cost so far.
pub(super) async fn used(tx: &mut TenantTx, turn: TurnId) -> Result<(FinishedUsage, i64)> {
    let tenant = tx.actor().tenant;
    let (input, output, cost): (i64, i64, i64) = sqlx::query_as(
        "select coalesce(sum(input_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint,
                coalesce(sum(cost_micros), 0)::bigint
         from model_calls where tenant_id = $1 and turn_id = $2",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_one(tx.connection())
    .await?;
    Ok((FinishedUsage { input, output }, cost))
}

/// Ends a turn whose lease was just taken.
pub(super) async fn end(
    tx: &mut TenantTx,
    held: &Held,
    ending: &Ending,
    reply: &str,
    message: &str,
    message_id: i64,
    events: &[NewEvent],
) -> Result<()> {
    let tenant = tx.actor().tenant;
    let (seqs, kinds, datas) = columns(events);
    let payload = json!({
        "role": "assistant", "content": message, "sender": "assistant", "messageType": "text", "turnNo": held.turn_no,
        "cutShort": true,
    });
    sqlx::query(
        "with session as (
           update user_sessions set tokens_total = tokens_total + $10 + $11 where tenant_id = $1 and id = $3 returning tokens_total
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data)
           select $1, $2, e.* from unnest($4::bigint[], $5::text[], $6::text[]) e
         ), message as (
           insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
           select $1, 'chat_message', $15, $16, $17, $18::jsonb || jsonb_build_object('chatUid', c.chat_uid), c.chat_uid, $19, $2
           from conversations c where c.tenant_id = $1 and c.id = $14 and $20 <> ''
         )
         update turns set state = $7, slot = null, process_id = null, reply = $8, error = $9, input_tokens = $10,
                output_tokens = $11, cancel_reason = coalesce($12, cancel_reason), session_tokens = (select tokens_total from session),
                model = (select c.provider || ':' || c.model from model_calls c where c.tenant_id = $1 and c.turn_id = $2
                         order by c.sent_at desc limit 1),
                warnings = warnings || $13, finished_at = clock_timestamp()
         where tenant_id = $1 and id = $2",
    )
    .bind(tenant)
    .bind(held.id)
    .bind(held.session_id)
    .bind(&seqs)
    .bind(&kinds)
    .bind(&datas)
    .bind(ending.status.as_str())
    .bind(reply)
    .bind(ending.error.as_ref().map(Json))
    .bind(held.input_tokens)
    .bind(held.output_tokens)
    .bind(ending.cancel_reason.as_deref())
    .bind(Json(Vec::<Warning>::new()))
    .bind(held.conversation)
    .bind(ItemUid::generate())
    .bind(message_id)
    .bind(held.user_id)
    .bind(Json(payload))
    .bind(history::ordinal(held.turn_no, LAST_MESSAGE, 0))
    .bind(message)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Ends a running turn under its lease and hands its place and slot on, in one statement that locks the conversation
/// first. The hand-over is a volatile function, so each of its statements sees what this one has done to the turn. None:
/// the lease is lost and nothing was written.
pub(super) async fn finish(
    tx: &mut TenantTx,
    claimed: &Claimed,
    finished: &FinishedTurn,
    message_id: i64,
) -> Result<Option<HandedOver>> {
    let (seqs, kinds, datas) = columns(&finished.events);
    let step = finished.last_step.as_ref();
    Ok(sqlx::query_as(
        "with conversation as materialized (
           select id from conversations where tenant_id = $1 and id = $27 for no key update
         ), turn as (
           update turns t set state = $7, slot = null, process_id = null, reply = $8, error = $9, model = $10, input_tokens = $11,
                  output_tokens = $12, cancel_reason = coalesce($13, t.cancel_reason), warnings = t.warnings || $14,
                  session_tokens = (select tokens_total + $11 + $12 from user_sessions where tenant_id = $1 and id = $15),
                  finished_at = clock_timestamp()
           from conversation c
           where t.tenant_id = $1 and t.id = $2 and t.lease = $3 and t.state = 'running'
           returning t.tenant_id, t.id, t.user_id, c.id as conversation_id
         ), session as (
           update user_sessions s set tokens_total = s.tokens_total + $11 + $12 from turn where s.tenant_id = $1 and s.id = $15
         ), step as (
           insert into turn_steps (tenant_id, turn_id, step, kind, view, content, provider, event_seq, finished_at)
           select turn.tenant_id, turn.id, $16::bigint, 'model', $17, $18, $19, $20, clock_timestamp() from turn where $16 is not null
         ), message as (
           insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
           select turn.tenant_id, 'chat_message', $21, $22, turn.user_id, $23, $24, $25, turn.id from turn where $26
         ), chat as (
           update items i set updated_at = now() from turn where i.tenant_id = $1 and i.kind = 'chat' and i.uid = $24
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data)
           select turn.tenant_id, turn.id, e.* from turn, unnest($4::bigint[], $5::text[], $6::text[]) e
         )
         select next.ready_turn, next.freed from turn, turns_hand_over(turn.conversation_id, $28) next",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(claimed.lease.token)
    .bind(&seqs)
    .bind(&kinds)
    .bind(&datas)
    .bind(finished.ending.status.as_str())
    .bind(&finished.reply)
    .bind(finished.ending.error.as_ref().map(Json))
    .bind(&finished.model)
    .bind(finished.usage.input)
    .bind(finished.usage.output)
    .bind(finished.ending.cancel_reason.as_deref())
    .bind(Json(&finished.warnings))
    .bind(claimed.session)
    .bind(step.map(|step| step.step))
    .bind(step.map(serde_json::to_string).transpose()?)
    .bind(step.map(|step| step.blocks.as_str()))
    .bind(step.map(|step| step.provider.as_str()))
    .bind(seqs.last())
    .bind(ItemUid::generate())
    .bind(message_id)
    .bind(history::assistant_payload(claimed, &finished.message, &[], finished.cut_short))
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, LAST_MESSAGE, 0))
    .bind(!finished.message.is_empty())
    .bind(claimed.conversation)
    .bind(claimed.slot)
    .fetch_optional(tx.connection())
    .await?)
}

/// What followed when a turn left the head of its conversation.
#[derive(sqlx::FromRow)]
pub(super) struct HandedOver {
    pub(super) ready_turn: Option<TurnId>,
    pub(super) freed: bool,
}

pub(super) async fn hand_over(
    tx: &mut TenantTx,
    conversation: ConversationId,
    slot: Option<i64>,
) -> Result<HandedOver> {
    Ok(sqlx::query_as("select ready_turn, freed from turns_hand_over($1, $2)")
        .bind(conversation)
        .bind(slot)
        .fetch_one(tx.connection())
        .await?)
}

/// Those of the tenants that have a turn without a slot.
pub(super) async fn with_waiting(engine: &PgPool, tenants: &[TenantId]) -> Result<Vec<TenantId>> {
    Ok(sqlx::query_scalar(
        "select distinct tenant_id from turns where state = 'waiting' and tenant_id = any($1)",
    )
    .bind(tenants)
    .fetch_all(engine)
    .await?)
}

pub(super) async fn admit_waiting(tx: &mut TenantTx) -> Result<Vec<TurnId>> {
    Ok(sqlx::query_scalar("select * from turns_admit_waiting()").fetch_all(tx.connection()).await?)
}

pub(super) async fn status_by_lease(engine: &PgPool, lease: &Lease) -> Result<Option<String>> {
    Ok(sqlx::query_scalar("select state from turns where tenant_id = $1 and id = $2 and lease = $3")
        .bind(lease.tenant)
        .bind(lease.turn)
        .bind(lease.token)
        .fetch_optional(engine)
        .await?)
}
