//! SQL of figures. Each part of a statement reads one partial index, so that finished turns cost nothing.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{DURATION_BOUNDS, EndedTurns, QueueFigures};
use crate::{
    error::Result,
    jobs::{CHAT_TURNS, EMBEDDINGS, MAINTENANCE},
    turns::Status,
};

pub(super) async fn queues(engine: &PgPool) -> Result<(DateTime<Utc>, Vec<QueueFigures>)> {
    type Figures = (DateTime<Utc>, i64, f64, i64, f64, i64, f64);
    let (now, turns, oldest_turn, maintenance, oldest_maintenance, items, oldest_item): Figures =
        sqlx::query_as(
            "with line as (
               select created_at from turns where state = 'queued'
               union all select created_at from turns where state = 'waiting'
               union all select created_at from turns where state = 'ready'
             ), due as (
               select run_at from apalis.jobs
               where job_type = $1 and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                 and run_at <= clock_timestamp()
             )
             select clock_timestamp(),
                    (select count(*) from line),
                    (select coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 from line),
                    (select count(*) from due),
                    (select coalesce(extract(epoch from clock_timestamp() - min(run_at)), 0)::float8 from due),
                    (select count(*) from embedding_outbox),
                    (select coalesce(extract(epoch from clock_timestamp() - min(due_at)), 0)::float8 from embedding_outbox)",
        )
        .bind(MAINTENANCE)
        .fetch_one(engine)
        .await?;
    let queue = |queue, depth, oldest_seconds: f64| QueueFigures {
        queue,
        depth,
        oldest_seconds: oldest_seconds.max(0.0),
    };
    Ok((
        now,
        vec![
            queue(CHAT_TURNS, turns, oldest_turn),
            queue(EMBEDDINGS, items, oldest_item),
            queue(MAINTENANCE, maintenance, oldest_maintenance),
        ],
    ))
}

pub(super) async fn active_sessions(engine: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from user_sessions where expires_at > clock_timestamp()")
        .fetch_one(engine)
        .await?)
}

pub(super) async fn ended(
    engine: &PgPool,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<EndedTurns>> {
    let rows: Vec<(String, i32, i64, f64)> = sqlx::query_as(
        "select state, class, count(*), sum(seconds) from (
           select state, seconds, (select count(*) from unnest($3::float8[]) bound where bound < seconds)::int as class
           from (select state, extract(epoch from finished_at - created_at)::float8 as seconds
                 from turns where finished_at > $1 and finished_at <= $2) ended
         ) classed
         group by state, class",
    )
    .bind(after)
    .bind(until)
    .bind(DURATION_BOUNDS.as_slice())
    .fetch_all(engine)
    .await?;
    let ended = |(state, class, count, seconds): (String, i32, i64, f64)| EndedTurns {
        status: Status::of_state(&state),
        class: usize::try_from(class).unwrap_or(0),
        count,
        seconds,
    };
    Ok(rows.into_iter().map(ended).collect())
}
