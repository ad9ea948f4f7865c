//! The floor's SQL: the least that a durable turn needs, in as few statements as it takes.

use anyhow::Result;
use sqlx::PgPool;
use uuid::Uuid;

/// One row of the log.
pub(super) struct Row {
    pub(super) turn: Uuid,
    pub(super) seq: i64,
    pub(super) kind: &'static str,
    pub(super) data: String,
}

pub(super) async fn make_tables(pool: &PgPool) -> Result<()> {
    for statement in [
        "create table message (conversation uuid not null, turn uuid not null, content text not null, primary key (conversation, turn))",
        "create table turn (id uuid primary key, conversation uuid not null, state text not null, created_at timestamptz not null default now()) with (fillfactor = 70)",
        "create index turn_ready on turn (created_at) where state = 'ready'",
        "create table event (turn uuid not null, seq bigint not null, kind text not null, data text not null, at timestamptz not null default clock_timestamp(), primary key (turn, seq))",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

/// Message, turn and first event in one transaction.
pub(super) async fn accept(pool: &PgPool, turn: Uuid, conversation: Uuid, content: &str) -> Result<()> {
    sqlx::query(
        "with m as (insert into message (conversation, turn, content) values ($2, $1, $3)),
              t as (insert into turn (id, conversation, state) values ($1, $2, 'ready'))
         insert into event (turn, seq, kind, data) values ($1, 1, 'queued', '{}')",
    )
    .bind(turn)
    .bind(conversation)
    .bind(content)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn claim(pool: &PgPool, free: i64) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "update turn set state = 'running'
         where id in (select id from turn where state = 'ready' order by created_at limit $1 for update skip locked)
         returning id",
    )
    .bind(free)
    .fetch_all(pool)
    .await?)
}

pub(super) async fn append(pool: &PgPool, rows: &[Row]) -> Result<()> {
    let turns: Vec<Uuid> = rows.iter().map(|row| row.turn).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind).collect();
    let data: Vec<&str> = rows.iter().map(|row| row.data.as_str()).collect();
    sqlx::query(
        "insert into event (turn, seq, kind, data)
         select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[])",
    )
    .bind(turns)
    .bind(seqs)
    .bind(kinds)
    .bind(data)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn finish(pool: &PgPool, turn: Uuid, seq: i64) -> Result<()> {
    sqlx::query(
        "with t as (update turn set state = 'succeeded' where id = $1)
         insert into event (turn, seq, kind, data) values ($1, $2, 'done', '{}')",
    )
    .bind(turn)
    .bind(seq)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn ring(pool: &PgPool, payload: &str) -> Result<()> {
    sqlx::query("select pg_notify('floor', $1)").bind(payload).execute(pool).await?;
    Ok(())
}

/// The events of these turns after these numbers.
pub(super) async fn read(pool: &PgPool, wanted: &[(Uuid, i64)]) -> Result<Vec<(Uuid, i64, String, String)>> {
    let turns: Vec<Uuid> = wanted.iter().map(|wanted| wanted.0).collect();
    let afters: Vec<i64> = wanted.iter().map(|wanted| wanted.1).collect();
    Ok(sqlx::query_as(
        "select e.turn, e.seq, e.kind, e.data
         from unnest($1::uuid[], $2::bigint[]) w(turn, after)
         join lateral (select * from event where event.turn = w.turn and event.seq > w.after order by seq) e on true",
    )
    .bind(turns)
    .bind(afters)
    .fetch_all(pool)
    .await?)
}
