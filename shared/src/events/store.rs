//! The SQL of the event log. Written as the engine, except for rows that ride in a request's transaction.

use std::{str::FromStr, sync::Arc};

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::log::{OpenTurn, Row};
use crate::{
    error::Result,
    events::{Event, EventKind, Lease},
    ids::{ConversationId, TenantId, TurnId},
};

/// Inserts rows of one turn in the caller's transaction.
pub(super) async fn insert(
    connection: &mut PgConnection,
    tenant: TenantId,
    turn: TurnId,
    rows: &[(i64, EventKind, String)],
) -> Result<()> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.0).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let data: Vec<&str> = rows.iter().map(|row| row.2.as_str()).collect();
    sqlx::query(
        "insert into turn_events (tenant_id, turn_id, seq, kind, data) \
         select $1, $2, u.seq, u.kind, u.data from unnest($3::int8[], $4::text[], $5::text[]) u(seq, kind, data)",
    )
    .bind(tenant)
    .bind(turn)
    .bind(seqs)
    .bind(kinds)
    .bind(data)
    .execute(connection)
    .await?;
    Ok(())
}

/// Tenants, turns and tokens of leases, as columns.
fn columns(leases: impl Iterator<Item = Lease>) -> (Vec<Uuid>, Vec<Uuid>, Vec<Uuid>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for lease in leases {
        columns.0.push(lease.tenant.0);
        columns.1.push(lease.turn.0);
        columns.2.push(lease.token);
    }
    columns
}

/// Appends rows of many turns. The share lock fences: a WHERE would let a paused statement commit after a takeover,
/// the lock makes the takeover wait for it or drops the turn from it. Answers the turns (by position from 1) whose
/// lease held and that nobody had locked, and whether cancel was asked.
pub(super) async fn append(
    engine: &mut PgConnection,
    batch: &[(Arc<OpenTurn>, Vec<Row>)],
) -> Result<Vec<(i64, bool)>> {
    let (tenants, turns, tokens) = columns(batch.iter().map(|(turn, _)| turn.lease));
    let rows: usize = batch.iter().map(|(_, rows)| rows.len()).sum();
    let (mut positions, mut seqs) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut kinds, mut data) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for (position, (_, rows)) in (1_i64..).zip(batch) {
        for row in rows {
            positions.push(position);
            seqs.push(row.seq);
            kinds.push(row.kind.as_str());
            data.push(row.data.as_str());
        }
    }
    let kept = sqlx::query_as(
        "with ok as materialized ( \
           select l.n, t.tenant_id, t.id, t.cancel_requested_at is not null as cancelled \
           from unnest($1::uuid[], $2::uuid[], $3::uuid[]) with ordinality l(tenant_id, id, lease, n) \
           join turns t on t.tenant_id = l.tenant_id and t.id = l.id and t.lease = l.lease \
           for share of t skip locked), \
         written as ( \
           insert into turn_events (tenant_id, turn_id, seq, kind, data) \
           select ok.tenant_id, ok.id, u.seq, u.kind, u.data \
           from unnest($4::int8[], $5::int8[], $6::text[], $7::text[]) u(n, seq, kind, data) join ok on ok.n = u.n \
           on conflict (tenant_id, turn_id, seq) do nothing) \
         select n, cancelled from ok",
    )
    .bind(tenants)
    .bind(turns)
    .bind(tokens)
    .bind(positions)
    .bind(seqs)
    .bind(kinds)
    .bind(data)
    .fetch_all(engine)
    .await?;
    Ok(kept)
}

/// Which of these leases (by position from 1) still stand, and whether cancel was asked of their turns.
pub(super) async fn held(engine: &PgPool, leases: &[Lease]) -> Result<Vec<(i64, bool)>> {
    let (tenants, turns, tokens) = columns(leases.iter().copied());
    let held = sqlx::query_as(
        "select l.n, t.cancel_requested_at is not null \
         from unnest($1::uuid[], $2::uuid[], $3::uuid[]) with ordinality l(tenant_id, id, lease, n) \
         join turns t on t.tenant_id = l.tenant_id and t.id = l.id and t.lease = l.lease",
    )
    .bind(tenants)
    .bind(turns)
    .bind(tokens)
    .fetch_all(engine)
    .await?;
    Ok(held)
}

/// What to read of one turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) tenant: TenantId,
    pub(super) turn: TurnId,
    /// Events after this id.
    pub(super) after: i64,
}

/// Tenants and turns as columns, and the least and the greatest turn: bounds that Postgres can see before it looks at
/// any row, so that it leaves the other days' partitions alone.
fn wanted_columns(wanted: &[Wanted]) -> (Vec<Uuid>, Vec<Uuid>, Uuid, Uuid) {
    let tenants = wanted.iter().map(|wanted| wanted.tenant.0).collect();
    let turns: Vec<Uuid> = wanted.iter().map(|wanted| wanted.turn.0).collect();
    let least = turns.iter().min().copied().unwrap_or_default();
    let greatest = turns.iter().max().copied().unwrap_or_default();
    (tenants, turns, least, greatest)
}

/// The next events of many turns, at most `limit` of each, with the position (from 0) of what they answer.
pub(super) async fn read(
    engine: impl PgExecutor<'_>,
    wanted: &[Wanted],
    limit: i64,
) -> Result<Vec<(usize, Event)>> {
    let (tenants, turns, least, greatest) = wanted_columns(wanted);
    let afters: Vec<i64> = wanted.iter().map(|wanted| wanted.after).collect();
    // The rows of a turn come in the order of its lateral read.
    let rows: Vec<(i64, i64, String, String)> = sqlx::query_as(
        "select w.n, e.seq, e.kind, e.data \
         from unnest($1::uuid[], $2::uuid[], $3::int8[]) with ordinality w(tenant_id, turn_id, after, n) \
         cross join lateral ( \
           select seq, kind, data from turn_events \
           where tenant_id = w.tenant_id and turn_id = w.turn_id and turn_id between $5 and $6 and seq > w.after \
           order by seq limit $4) e",
    )
    .bind(tenants)
    .bind(turns)
    .bind(afters)
    .bind(limit)
    .bind(least)
    .bind(greatest)
    .fetch_all(engine)
    .await?;
    let event = |(position, seq, kind, data): (i64, i64, String, String)| {
        // An unknown kind comes from a later version; its turn's followers go on without it (as past any gap).
        let kind = EventKind::from_str(&kind).ok()?;
        Some((usize::try_from(position - 1).ok()?, Event::new(seq, kind, data)))
    };
    Ok(rows.into_iter().filter_map(event).collect())
}

/// Ids of the last events of turns, in their order; 0 where there is none.
pub(super) async fn tails(engine: &PgPool, wanted: &[Wanted]) -> Result<Vec<i64>> {
    let (tenants, turns, least, greatest) = wanted_columns(wanted);
    let tails = sqlx::query_scalar(
        "select coalesce(( \
           select max(seq) from turn_events \
           where tenant_id = w.tenant_id and turn_id = w.turn_id and turn_id between $3 and $4), 0) \
         from unnest($1::uuid[], $2::uuid[]) with ordinality w(tenant_id, turn_id, n) \
         order by w.n",
    )
    .bind(tenants)
    .bind(turns)
    .bind(least)
    .bind(greatest)
    .fetch_all(engine)
    .await?;
    Ok(tails)
}

/// The latest turn number of each conversation that has one.
pub(super) async fn latest_turns(
    engine: &PgPool,
    conversations: &[(TenantId, ConversationId)],
) -> Result<Vec<(TenantId, ConversationId, i64)>> {
    let tenants: Vec<Uuid> = conversations.iter().map(|(tenant, _)| tenant.0).collect();
    let ids: Vec<i64> = conversations.iter().map(|(_, conversation)| conversation.0).collect();
    let latest = sqlx::query_as(
        "select w.tenant_id, w.conversation_id, t.turn_no \
         from unnest($1::uuid[], $2::int8[]) w(tenant_id, conversation_id) \
         cross join lateral ( \
           select turn_no from turns \
           where tenant_id = w.tenant_id and conversation_id = w.conversation_id \
           order by turn_no desc limit 1) t",
    )
    .bind(tenants)
    .bind(ids)
    .fetch_all(engine)
    .await?;
    Ok(latest)
}
