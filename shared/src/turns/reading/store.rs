//! SQL of reading turns.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Row, postgres::PgRow, types::Json};

use super::StreamStart;
use crate::{
    db::TenantTx,
    error::Result,
    ids::{ConversationId, TurnId},
    turns::{Status, ToolCallView, Turn, WaitingFor, journal::ModelStep, types::WaitingApproval},
};

pub(super) async fn turn(tx: &mut TenantTx, id: TurnId) -> Result<Option<Turn>> {
    let tenant = tx.actor().tenant;
    let row = sqlx::query(
        "select id, turn_no, conversation_id, session_id, state, max_attempts,
                -- A run that has not failed is an attempt too.
                attempts + (started_at is not null and state in ('running', 'awaiting_approval', 'succeeded', 'failed', 'cancelled'))::int
                  as attempts, created_at, started_at, finished_at,
                reply, error, retry_of, ready_at, model, input_tokens, output_tokens, session_tokens, warnings, request_id,
                cancel_reason
         from turns where tenant_id = $1 and id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state: String = row.try_get("state")?;
    let mut turn = plain(&row, &state)?;
    turn.tool_calls = tool_calls(tx, id).await?;
    turn.waiting_for = waiting_for(tx, &turn, &state, row.try_get("ready_at")?).await?;
    Ok(Some(turn))
}

fn plain(row: &PgRow, state: &str) -> Result<Turn, sqlx::Error> {
    Ok(Turn {
        id: row.try_get("id")?,
        turn_no: row.try_get("turn_no")?,
        conversation: row.try_get("conversation_id")?,
        session: row.try_get("session_id")?,
        status: Status::of_state(state),
        attempts: row.try_get("attempts")?,
        max_attempts: row.try_get("max_attempts")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        reply: row.try_get("reply")?,
        tool_calls: Vec::new(),
        error: row.try_get::<Option<Json<_>>, _>("error")?.map(|error| error.0),
        retry_of: row.try_get("retry_of")?,
        waiting_for: None,
        model: row.try_get("model")?,
        input_tokens: row.try_get("input_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        session_tokens: row.try_get("session_tokens")?,
        warnings: row.try_get::<Json<_>, _>("warnings")?.0,
        request_id: row.try_get("request_id")?,
        cancel_reason: row.try_get("cancel_reason")?,
    })
}

type StepRow = (String, String, String, Option<String>, bool, Option<i64>, bool, bool, Option<i64>);

async fn tool_calls(tx: &mut TenantTx, id: TurnId) -> Result<Vec<ToolCallView>> {
    let tenant = tx.actor().tenant;
    let rows: Vec<StepRow> = sqlx::query_as(
        "select call_id, kind, view, content, is_error, elapsed_ms, finished_at is not null, cache_hit, cache_ttl
         from turn_steps where tenant_id = $1 and turn_id = $2 order by step, kind, call_id",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(tx.connection())
    .await?;
    let mut calls: Vec<ToolCallView> = Vec::new();
    for (call_id, kind, view, content, is_error, elapsed_ms, finished, cache_hit, cache_ttl) in rows {
        if kind == "model" {
            let step: ModelStep = serde_json::from_str(&view)?;
            calls.extend(step.calls.into_iter().map(|call| ToolCallView {
                args: call.arguments.or(call.malformed.map(Value::String)).unwrap_or(Value::Null),
                id: call.id,
                tool: call.tool,
                result: None,
                is_error: false,
                elapsed_ms: None,
                cache_hit: false,
                cache_ttl: None,
            }));
        } else if let Some(call) = calls.iter_mut().find(|call| call.id == call_id)
            && finished
        {
            let text = content.unwrap_or_default();
            call.result = Some(serde_json::from_str(&text).unwrap_or(Value::String(text)));
            call.is_error = is_error;
            call.elapsed_ms = elapsed_ms;
            call.cache_hit = cache_hit;
            call.cache_ttl = cache_ttl.filter(|_| cache_hit);
        }
    }
    Ok(calls)
}

async fn waiting_for(
    tx: &mut TenantTx,
    turn: &Turn,
    state: &str,
    ready_at: Option<DateTime<Utc>>,
) -> Result<Option<WaitingFor>> {
    let tenant = tx.actor().tenant;
    Ok(match state {
        "queued" => sqlx::query_scalar(
            "select id from turns where tenant_id = $1 and conversation_id = $2 and turn_no < $3
               and state in ('queued', 'waiting', 'ready', 'running', 'awaiting_approval')
             order by turn_no desc limit 1",
        )
        .bind(tenant)
        .bind(turn.conversation)
        .bind(turn.turn_no)
        .fetch_optional(tx.connection())
        .await?
        .map(|job_id| WaitingFor::Turn { job_id }),
        "waiting" => Some(WaitingFor::Slot),
        "ready" => match ready_at {
            Some(at) if at > Utc::now() => Some(WaitingFor::Retry { at }),
            _ => Some(WaitingFor::Worker),
        },
        "awaiting_approval" => {
            let rows: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
                "select call_id, tool, arguments, expires_at from approvals
                 where tenant_id = $1 and turn_id = $2 and decision is null order by call_id",
            )
            .bind(tenant)
            .bind(turn.id)
            .fetch_all(tx.connection())
            .await?;
            let approvals = rows.into_iter().map(|(call_id, tool, arguments, expires_at)| WaitingApproval {
                call_id,
                tool,
                args: serde_json::from_str(&arguments).unwrap_or(Value::String(arguments)),
                expires_at,
            });
            Some(WaitingFor::Approval { approvals: approvals.collect() })
        }
        _ => None,
    })
}

pub(super) async fn stream_start(tx: &mut TenantTx, id: TurnId) -> Result<Option<StreamStart>> {
    let tenant = tx.actor().tenant;
    // The turn's id as a parameter lets Postgres leave the other days' partitions alone.
    let row = sqlx::query(
        "select t.id, t.turn_no, t.state, coalesce(t.finished_at < clock_timestamp() - interval '24 hours', false) as past,
                (select max(e.seq) from turn_events e where e.tenant_id = $1 and e.turn_id = $2) as last_seq
         from turns t where t.tenant_id = $1 and t.id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.as_ref().map(start).transpose()?)
}

pub(super) async fn stream_of(
    tx: &mut TenantTx,
    conversation: ConversationId,
    turn_no: Option<i64>,
) -> Result<Option<StreamStart>> {
    let tenant = tx.actor().tenant;
    let row = sqlx::query(
        "select t.id, t.turn_no, t.state, coalesce(t.finished_at < clock_timestamp() - interval '24 hours', false) as past,
                (select max(e.seq) from turn_events e where e.tenant_id = t.tenant_id and e.turn_id = t.id) as last_seq
         from turns t
         where t.tenant_id = $1 and t.conversation_id = $2
           and case when $3::bigint is null
                    then t.state in ('queued', 'waiting', 'ready', 'running', 'awaiting_approval') else t.turn_no = $3 end
         order by t.turn_no limit 1",
    )
    .bind(tenant)
    .bind(conversation)
    .bind(turn_no)
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.as_ref().map(start).transpose()?)
}

fn start(row: &PgRow) -> Result<StreamStart, sqlx::Error> {
    Ok(StreamStart {
        turn: row.try_get("id")?,
        turn_no: row.try_get("turn_no")?,
        status: Status::of_state(&row.try_get::<String, _>("state")?),
        past_retention: row.try_get("past")?,
        last_seq: row.try_get::<Option<i64>, _>("last_seq")?.unwrap_or(0),
    })
}

pub(super) async fn newest_turn_no(tx: &mut TenantTx, conversation: ConversationId) -> Result<i64> {
    let tenant = tx.actor().tenant;
    let newest: Option<i64> =
        sqlx::query_scalar("select max(turn_no) from turns where tenant_id = $1 and conversation_id = $2")
            .bind(tenant)
            .bind(conversation)
            .fetch_one(tx.connection())
            .await?;
    Ok(newest.unwrap_or(0))
}
