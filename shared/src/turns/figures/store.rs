//! SQL of figures. Each part of a statement reads one partial index, so that finished turns cost nothing.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{DURATION_BOUNDS, EndedTurns, UsedTokens};
use crate::{error::Result, turns::Status};

pub(super) async fn now(engine: &PgPool) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(engine).await?)
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

/// By the ends of turns and not of calls: an index on when calls were settled would cost every call more than its own row does.
pub(super) async fn tokens(
    engine: &PgPool,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<UsedTokens>> {
    Ok(sqlx::query_as(
        "select c.provider, sum(c.input_tokens)::bigint as input, sum(c.output_tokens)::bigint as output,
                sum(c.cache_read_tokens)::bigint as cache_read, sum(c.cache_write_tokens)::bigint as cache_write
         from turns t join model_calls c on c.tenant_id = t.tenant_id and c.turn_id = t.id
         where t.finished_at > $1 and t.finished_at <= $2 group by c.provider",
    )
    .bind(after)
    .bind(until)
    .fetch_all(engine)
    .await?)
}
