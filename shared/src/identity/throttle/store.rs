//! SQL of the buckets. Their commits wait for no flush, which `set_config` arranges within each statement: a crash that
//! forgets the last drops makes room for a few attempts more.

use sqlx::PgPool;

use super::{Bucket, Key};
use crate::error::Result;

/// Adds a drop to each bucket that has room; answers the buckets, and the seconds until those have room that have none.
/// Buckets are taken in the order of their keys, so that two attempts never wait for each other.
pub(super) async fn drip(
    engine: &PgPool,
    buckets: &[(Key, Bucket)],
    unless_known: Option<(Key, Key)>,
) -> Result<Vec<(Key, Option<f64>)>> {
    let keys: Vec<&[u8]> = buckets.iter().map(|(key, _)| key.as_slice()).collect();
    let capacities: Vec<f64> = buckets.iter().map(|(_, bucket)| bucket.capacity).collect();
    let leaks: Vec<f64> = buckets.iter().map(|(_, bucket)| bucket.leak_per_second).collect();
    let (unless, known) = unless_known.unzip();
    let rows: Vec<(Vec<u8>, Option<f64>)> = sqlx::query_as(
        "insert into sign_in_buckets as b (key, level, capacity, leak_per_second, at)
         select key, 1, capacity, leak, clock_timestamp()
         from unnest($1::bytea[], $2::float8[], $3::float8[]) as n (key, capacity, leak),
              (select set_config('synchronous_commit', 'off', true)) as relaxed
         where $4::bytea is null or key <> $4
            or not exists (select from sign_in_buckets k where k.key = $5 and k.at > clock_timestamp() - interval '90 days')
         order by key
         on conflict (key) do update set
           capacity = excluded.capacity,
           leak_per_second = excluded.leak_per_second,
           at = excluded.at,
           level = greatest(0, b.level - extract(epoch from excluded.at - b.at)::float8 * excluded.leak_per_second)
             + case when greatest(0, b.level - extract(epoch from excluded.at - b.at)::float8 * excluded.leak_per_second)
                         + 1 <= excluded.capacity then 1 else 0 end,
           full_until = case
             when greatest(0, b.level - extract(epoch from excluded.at - b.at)::float8 * excluded.leak_per_second) + 1
                  <= excluded.capacity then null
             else excluded.at + make_interval(secs =>
               (greatest(0, b.level - extract(epoch from excluded.at - b.at)::float8 * excluded.leak_per_second) + 1
                - excluded.capacity) / excluded.leak_per_second) end
         returning key, extract(epoch from full_until - at)::float8",
    )
    .bind(keys)
    .bind(capacities)
    .bind(leaks)
    .bind(unless.as_ref().map(Key::as_slice))
    .bind(known.as_ref().map(Key::as_slice))
    .fetch_all(engine)
    .await?;
    Ok(rows.into_iter().filter_map(|(key, wait)| Some((key.try_into().ok()?, wait))).collect())
}

/// Takes the drop out again of buckets that took one, when another bucket refused.
pub(super) async fn take_back(engine: &PgPool, keys: &[Key]) -> Result<()> {
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_slice).collect();
    sqlx::query(
        "with locked as (select key from sign_in_buckets where key = any($1) order by key for no key update)
         update sign_in_buckets b set level = greatest(0, level - 1)
         from locked, (select set_config('synchronous_commit', 'off', true)) as relaxed where b.key = locked.key",
    )
    .bind(keys)
    .execute(engine)
    .await?;
    Ok(())
}

/// Takes the drop out again and notes that the account was signed in to from there.
pub(super) async fn give_back(engine: &PgPool, keys: &[Key], known: &Key) -> Result<()> {
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_slice).collect();
    sqlx::query(
        "with locked as (select key from sign_in_buckets where key = any($1) order by key for no key update),
              given as (update sign_in_buckets b set level = greatest(0, level - 1) from locked where b.key = locked.key)
         insert into sign_in_buckets as b (key, level, capacity, leak_per_second, at)
         select $2::bytea, 0, 0, 0, clock_timestamp() from (select set_config('synchronous_commit', 'off', true)) as relaxed
         on conflict (key) do update set at = excluded.at where b.at < excluded.at - interval '1 day'",
    )
    .bind(keys)
    .bind(known.as_slice())
    .execute(engine)
    .await?;
    Ok(())
}

/// Every bucket is empty after an hour and a half at most; known places are kept for as long as they count.
pub(super) async fn tidy(engine: &PgPool) -> Result<()> {
    sqlx::query(
        "delete from sign_in_buckets where at < clock_timestamp() - interval '2 hours'
           and (capacity > 0 or at < clock_timestamp() - interval '90 days')",
    )
    .execute(engine)
    .await?;
    Ok(())
}
