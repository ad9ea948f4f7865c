//! SQL of approvals.

use super::Decided;
use crate::{db::TenantTx, error::Result, ids::TurnId};

/// An approval as the person who decides finds it.
#[derive(sqlx::FromRow)]
pub(super) struct ApprovalRow {
    pub(super) decision: Option<String>,
    pub(super) expired: bool,
}

pub(super) async fn approval(tx: &mut TenantTx, turn: TurnId, call_id: &str) -> Result<Option<ApprovalRow>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select decision, expires_at < clock_timestamp() as expired from approvals
         where tenant_id = $1 and turn_id = $2 and call_id = $3",
    )
    .bind(tenant)
    .bind(turn)
    .bind(call_id)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn decide(
    tx: &mut TenantTx,
    turn: TurnId,
    call_id: &str,
    decided: &Decided<'_>,
) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update approvals set decision = $4, reason = $5, decided_by = $6, decided_at = clock_timestamp()
         where tenant_id = $1 and turn_id = $2 and call_id = $3 and decision is null",
    )
    .bind(tenant)
    .bind(turn)
    .bind(call_id)
    .bind(decided.decision.as_str())
    .bind(decided.reason)
    .bind(decided.by)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn decide_all(tx: &mut TenantTx, turn: TurnId, decided: &Decided<'_>) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update approvals set decision = $3, reason = $4, decided_by = $5, decided_at = clock_timestamp()
         where tenant_id = $1 and turn_id = $2 and decision is null",
    )
    .bind(tenant)
    .bind(turn)
    .bind(decided.decision.as_str())
    .bind(decided.reason)
    .bind(decided.by)
    .execute(tx.connection())
    .await?;
    Ok(())
}

pub(super) async fn expire(tx: &mut TenantTx, turn: TurnId) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "update approvals set decision = 'expired', decided_at = clock_timestamp()
         where tenant_id = $1 and turn_id = $2 and decision is null and expires_at < clock_timestamp()",
    )
    .bind(tenant)
    .bind(turn)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Lets a parked turn without open approvals go on, in a slot if there is one. Answers its new state.
pub(super) async fn unpark(tx: &mut TenantTx, turn: TurnId) -> Result<Option<String>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "with still_open as (
           select 1 from approvals where tenant_id = $1 and turn_id = $2 and decision is null limit 1
         ), slot as (
           update tenant_slots set turn_id = $2
           where tenant_id = $1 and not exists (select 1 from still_open)
             and n = (select n from tenant_slots where tenant_id = $1 and turn_id is null order by n limit 1 for update skip locked)
           returning n
         )
         update turns set state = case when exists (select 1 from slot) then 'ready' else 'waiting' end,
                slot = (select n from slot), priority = coalesce(-(select n from slot), 0), ready_at = clock_timestamp()
         where tenant_id = $1 and id = $2 and state = 'awaiting_approval' and not exists (select 1 from still_open)
         returning state",
    )
    .bind(tenant)
    .bind(turn)
    .fetch_optional(tx.connection())
    .await?)
}
