//! SQL of the step journal.
//!
//! Every write of a running turn is one statement that locks the turn's row by its lease first and writes from that
//! row, so a lost lease writes nothing, even when this transaction was paused for longer than the lease.

use serde_json::Value;
use sqlx::{PgPool, Row, postgres::PgRow};

use super::{CallRecord, ModelStep, OpenApproval, Parking, Place, StoredStep, ToolStep};
use crate::{
    db::TenantTx,
    error::Result,
    ids::{ItemUid, TurnId},
    turns::{Claimed, NewEvent, columns, history},
};

pub(super) async fn model_step(
    tx: &mut TenantTx,
    claimed: &Claimed,
    step: &ModelStep,
    events: &[NewEvent],
    message_id: i64,
) -> Result<bool> {
    let (seqs, kinds, datas) = columns(events);
    let done = sqlx::query(
        "with turn as materialized (
           select tenant_id, id, user_id, takeovers from turns
           where tenant_id = $1 and id = $2 and lease = $3 for no key update
         ), calm as (
           update turns t set takeovers = 0 from turn where t.tenant_id = $1 and t.id = $2 and turn.takeovers > 0
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data)
           select turn.tenant_id, turn.id, e.* from turn, unnest($4::bigint[], $5::text[], $6::text[]) e
         ), message as (
           insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
           select turn.tenant_id, 'chat_message', $7, $8, turn.user_id, $9, $10, $11, turn.id from turn
         )
         insert into turn_steps (tenant_id, turn_id, step, kind, view, content, provider, event_seq, finished_at)
         select turn.tenant_id, turn.id, $12, 'model', $13, $14, $15, $16, clock_timestamp() from turn",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(claimed.lease.token)
    .bind(&seqs)
    .bind(&kinds)
    .bind(&datas)
    .bind(ItemUid::generate())
    .bind(message_id)
    .bind(history::assistant_payload(claimed, &step.text, &step.calls, false))
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, step.step, 0))
    .bind(step.step)
    .bind(serde_json::to_string(step)?)
    .bind(&step.blocks)
    .bind(&step.provider)
    .bind(seqs.last())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn intent(
    tx: &mut TenantTx,
    claimed: &Claimed,
    step: i64,
    call: &CallRecord,
) -> Result<bool> {
    let done = sqlx::query(
        "with turn as materialized (
           select tenant_id, id from turns where tenant_id = $1 and id = $2 and lease = $3 for no key update
         )
         insert into turn_steps (tenant_id, turn_id, step, call_id, kind, view)
         select turn.tenant_id, turn.id, $4, $5, 'tool', $6 from turn",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(claimed.lease.token)
    .bind(step)
    .bind(&call.id)
    .bind(serde_json::to_string(call)?)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn tool_step(
    tx: &mut TenantTx,
    claimed: &Claimed,
    step: &ToolStep<'_>,
    events: &[NewEvent],
    message_id: i64,
) -> Result<bool> {
    let (seqs, kinds, datas) = columns(events);
    let done = sqlx::query(
        "with turn as materialized (
           select tenant_id, id, user_id, takeovers from turns
           where tenant_id = $1 and id = $2 and lease = $3 for no key update
         ), calm as (
           update turns t set takeovers = 0 from turn where t.tenant_id = $1 and t.id = $2 and turn.takeovers > 0
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data)
           select turn.tenant_id, turn.id, e.* from turn, unnest($4::bigint[], $5::text[], $6::text[]) e
         ), message as (
           insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
           select turn.tenant_id, 'chat_message', $7, $8, turn.user_id, $9, $10, $11, turn.id from turn
         )
         insert into turn_steps (tenant_id, turn_id, step, call_id, kind, view, content, is_error, elapsed_ms, event_seq,
                                 cache_key, cache_hit, cache_ttl, finished_at)
         select turn.tenant_id, turn.id, $12, $13, 'tool', $14, $15, $16, $17, $18, $19, $20, $21, clock_timestamp() from turn
         on conflict (tenant_id, turn_id, step, call_id) do update
           set content = excluded.content, is_error = excluded.is_error, elapsed_ms = excluded.elapsed_ms,
               event_seq = excluded.event_seq, cache_key = excluded.cache_key, cache_hit = excluded.cache_hit,
               cache_ttl = excluded.cache_ttl, finished_at = excluded.finished_at
           where turn_steps.finished_at is null",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(claimed.lease.token)
    .bind(&seqs)
    .bind(&kinds)
    .bind(&datas)
    .bind(ItemUid::generate())
    .bind(message_id)
    .bind(history::tool_payload(claimed.chat, claimed.turn_no, step))
    .bind(claimed.chat)
    .bind(history::ordinal(claimed.turn_no, step.step, step.index + 1))
    .bind(step.step)
    .bind(&step.call.id)
    .bind(serde_json::to_string(step.call)?)
    .bind(step.result)
    .bind(step.is_error)
    .bind(step.elapsed_ms)
    .bind(seqs.last())
    .bind(step.cache.map(|facts| facts.key.as_str()))
    .bind(step.cache.is_some_and(|facts| facts.hit))
    .bind(step.cache.map(|facts| facts.ttl_remaining))
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn park(tx: &mut TenantTx, claimed: &Claimed, parking: &Parking<'_>) -> Result<bool> {
    let (seqs, kinds, datas) = columns(&parking.events);
    let calls: Vec<&str> = parking.calls.iter().map(|call| call.id.as_str()).collect();
    let tools: Vec<&str> = parking.calls.iter().map(|call| call.tool.as_str()).collect();
    let arguments: Vec<String> = parking
        .calls
        .iter()
        .map(|call| call.arguments.as_ref().unwrap_or(&Value::Null).to_string())
        .collect();
    let done = sqlx::query(
        "with turn as (
           update turns set state = 'awaiting_approval', slot = null, lease = null, process_id = null
           where tenant_id = $1 and id = $2 and lease = $3 and state = 'running' returning tenant_id, id
         ), event as (
           insert into turn_events (tenant_id, turn_id, seq, kind, data)
           select turn.tenant_id, turn.id, e.* from turn, unnest($4::bigint[], $5::text[], $6::text[]) e
         ), step as (
           update turn_steps s set event_seq = $11 from turn
           where s.tenant_id = turn.tenant_id and s.turn_id = turn.id and s.step = $12 and s.call_id = ''
         )
         insert into approvals (tenant_id, turn_id, call_id, tool, arguments, expires_at)
         select turn.tenant_id, turn.id, a.*, $10
         from turn, unnest($7::text[], $8::text[], $9::text[]) a",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(claimed.lease.token)
    .bind(&seqs)
    .bind(&kinds)
    .bind(&datas)
    .bind(&calls)
    .bind(&tools)
    .bind(&arguments)
    .bind(parking.expires_at)
    .bind(seqs.last())
    .bind(parking.step)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The steps of a turn in order, and the last event id that belongs to a finished one.
pub(in crate::turns) async fn steps(
    tx: &mut TenantTx,
    claimed: &Claimed,
) -> Result<(Vec<StoredStep>, Option<i64>)> {
    let rows = sqlx::query(
        "select step, call_id, kind, view, content, provider, is_error, event_seq, finished_at is not null as finished
         from turn_steps where tenant_id = $1 and turn_id = $2 order by step, kind, call_id",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .fetch_all(tx.connection())
    .await?;
    let mut steps = Vec::with_capacity(rows.len());
    let mut last = None;
    for row in &rows {
        let (step, seq) = stored(row)?;
        last = last.max(seq);
        steps.push(step);
    }
    Ok((steps, last))
}

fn stored(row: &PgRow) -> Result<(StoredStep, Option<i64>)> {
    let (kind, finished): (String, bool) = (row.try_get("kind")?, row.try_get("finished")?);
    let content: Option<String> = row.try_get("content")?;
    let step: i64 = row.try_get("step")?;
    let seq: Option<i64> = row.try_get("event_seq")?;
    if kind == "model" {
        let mut model: ModelStep = serde_json::from_str(&row.try_get::<String, _>("view")?)?;
        model.step = step;
        model.provider = row.try_get::<Option<String>, _>("provider")?.unwrap_or_default();
        model.blocks = content.unwrap_or_default();
        return Ok((StoredStep::Model(model), seq));
    }
    let result = if finished { Some(content.unwrap_or_default()) } else { None };
    Ok((
        StoredStep::Tool {
            step,
            call_id: row.try_get("call_id")?,
            result,
            is_error: row.try_get("is_error")?,
        },
        seq,
    ))
}

pub(in crate::turns) async fn approvals(tx: &mut TenantTx, claimed: &Claimed) -> Result<Vec<OpenApproval>> {
    let rows: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "select call_id, decision, reason from approvals where tenant_id = $1 and turn_id = $2",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|(call_id, decision, reason)| OpenApproval { call_id, decision, reason })
        .collect())
}

pub(super) async fn exists(engine: &PgPool, claimed: &Claimed, step: i64, call_id: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from turn_steps where tenant_id = $1 and turn_id = $2 and step = $3 and call_id = $4)",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(step)
    .bind(call_id)
    .fetch_one(engine)
    .await?)
}

pub(super) async fn is_finished(
    engine: &PgPool,
    claimed: &Claimed,
    step: i64,
    call_id: &str,
) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from turn_steps where tenant_id = $1 and turn_id = $2 and step = $3 and call_id = $4
                        and finished_at is not null)",
    )
    .bind(claimed.lease.tenant)
    .bind(claimed.lease.turn)
    .bind(step)
    .bind(call_id)
    .fetch_one(engine)
    .await?)
}

/// The calls of a turn's newest reply that have no result.
pub(in crate::turns) async fn unanswered(
    tx: &mut TenantTx,
    turn: TurnId,
) -> Result<Vec<(i64, i64, CallRecord)>> {
    let tenant = tx.actor().tenant;
    let newest: Option<(i64, String)> = sqlx::query_as(
        "select step, view from turn_steps where tenant_id = $1 and turn_id = $2 and kind = 'model' order by step desc limit 1",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(tx.connection())
    .await?;
    let Some((step, view)) = newest else { return Ok(Vec::new()) };
    let reply: ModelStep = serde_json::from_str(&view)?;
    if reply.calls.is_empty() {
        return Ok(Vec::new());
    }
    let answered: Vec<String> = sqlx::query_scalar(
        "select call_id from turn_steps
         where tenant_id = $1 and turn_id = $2 and step = $3 and kind = 'tool' and finished_at is not null",
    )
    .bind(tenant)
    .bind(turn)
    .bind(step)
    .fetch_all(tx.connection())
    .await?;
    let open = (0_i64..).zip(reply.calls).filter(|(_, call)| !answered.contains(&call.id));
    Ok(open.map(|(index, call)| (step, index, call)).collect())
}

/// The result of a call that its turn did not live to see, as step and message.
pub(in crate::turns) async fn answer(
    tx: &mut TenantTx,
    turn: TurnId,
    place: &Place,
    step: &ToolStep<'_>,
    message_id: i64,
) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "with step as (
           insert into turn_steps (tenant_id, turn_id, step, call_id, kind, view, content, is_error, finished_at)
           values ($1, $2, $3, $4, 'tool', $5, $6, true, clock_timestamp())
           on conflict (tenant_id, turn_id, step, call_id) do update
             set content = excluded.content, is_error = true, finished_at = excluded.finished_at
         )
         insert into items (tenant_id, kind, uid, id, user_id, payload, parent_uid, ordinal, turn_id)
         values ($1, 'chat_message', $7, $8, $9, $10, $11, $12, $2)",
    )
    .bind(tenant)
    .bind(turn)
    .bind(step.step)
    .bind(&step.call.id)
    .bind(serde_json::to_string(step.call)?)
    .bind(step.result)
    .bind(ItemUid::generate())
    .bind(message_id)
    .bind(place.user)
    .bind(history::tool_payload(place.chat, place.turn_no, step))
    .bind(place.chat)
    .bind(history::ordinal(place.turn_no, step.step, step.index + 1))
    .execute(tx.connection())
    .await?;
    Ok(())
}
