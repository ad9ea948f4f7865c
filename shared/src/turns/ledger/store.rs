//! SQL of the ledger of model calls. As the engine: settling is not fenced and crosses tenants.

use sqlx::PgPool;

use super::{Opened, Settled};
use crate::{
    error::Result,
    ids::{ModelCallId, TenantId, TurnId},
};

/// Writes down calls that are about to be sent and settles others, in one statement and one commit. May run twice.
pub(super) async fn write(
    engine: &PgPool,
    opened: &[Opened],
    settled: &[(TenantId, ModelCallId, Settled)],
) -> Result<()> {
    sqlx::query(
        "with opened as (
           insert into model_calls (tenant_id, id, turn_id, user_id, provider, model, input_tokens, estimated)
           select c.*, true from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bigint[]) c
           on conflict (tenant_id, id) do nothing
         )
         update model_calls m set settled_at = clock_timestamp(), outcome = c.outcome, estimated = c.estimated,
                input_tokens = c.input, output_tokens = c.output, cache_read_tokens = c.cache_read,
                cache_write_tokens = c.cache_write, cost_micros = c.cost
         from unnest($8::uuid[], $9::uuid[], $10::text[], $11::bool[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
                     $16::bigint[]) c (tenant_id, id, outcome, estimated, input, output, cache_read, cache_write, cost)
         where m.tenant_id = c.tenant_id and m.id = c.id",
    )
    .bind(opened.iter().map(|call| call.tenant).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.id).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.turn).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.user).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.provider.as_str()).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.model.as_str()).collect::<Vec<_>>())
    .bind(opened.iter().map(|call| call.input_tokens).collect::<Vec<_>>())
    .bind(settled.iter().map(|(tenant, _, _)| *tenant).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, id, _)| *id).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.outcome).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.estimated).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.usage.input).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.usage.output).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.usage.cache_read).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.usage.cache_write).collect::<Vec<_>>())
    .bind(settled.iter().map(|(_, _, settled)| settled.cost_micros).collect::<Vec<_>>())
    .execute(engine)
    .await?;
    Ok(())
}

/// Makes the totals of an ended turn, and through it of its session, those of its calls.
pub(super) async fn correct(engine: &PgPool, tenant: TenantId, turn: TurnId) -> Result<()> {
    let mut tx = crate::db::begin(engine).await?;
    let ended: Option<bool> = sqlx::query_scalar(
        "select true from turns where tenant_id = $1 and id = $2 and finished_at is not null for no key update",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(&mut *tx)
    .await?;
    // A statement of its own: what was settled while we waited for the lock must be seen.
    if ended.is_some() {
        sqlx::query(
            "with said as (
               select t.session_id, c.input, c.output, c.input + c.output - t.input_tokens - t.output_tokens as more
               from turns t,
                    (select sum(input_tokens)::bigint as input, sum(output_tokens)::bigint as output
                     from model_calls where tenant_id = $1 and turn_id = $2) c
               where t.tenant_id = $1 and t.id = $2 and (c.input, c.output) <> (t.input_tokens, t.output_tokens)
             ), turn as (
               update turns t set input_tokens = said.input, output_tokens = said.output,
                      session_tokens = t.session_tokens + said.more
               from said where t.tenant_id = $1 and t.id = $2
             )
             update user_sessions s set tokens_total = s.tokens_total + said.more
             from said where s.tenant_id = $1 and s.id = said.session_id",
        )
        .bind(tenant)
        .bind(turn)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}
