//! SQL of the Redis stream's position, and of what comes after it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::Result;

/// An event's place in the order of transactions.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Place {
    /// A transaction id, as Postgres writes it.
    written_in: String,
    event_id: Uuid,
}

/// An event.
#[derive(sqlx::FromRow)]
pub(super) struct Event {
    #[sqlx(flatten)]
    pub(super) place: Place,
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) event_type: String,
    pub(super) event_data: serde_json::Value,
    pub(super) correlation_id: Option<String>,
    pub(super) created_at: DateTime<Utc>,
}

/// Takes the stream for this process; none when another has it. A stream that is filled for the first time begins now, and so
/// does one whose place is of another cluster, which a dump was taken from: it is ahead of every transaction here.
pub(super) async fn take(
    engine: &PgPool,
    stream: &str,
    lease: Uuid,
    length: Duration,
) -> Result<Option<Place>> {
    Ok(sqlx::query_as(
        "insert into redis_stream_positions as p (stream, written_in, event_id, lease, leased_until)
         values ($1, pg_snapshot_xmin(pg_current_snapshot()), '00000000-0000-0000-0000-000000000000', $2,
                 clock_timestamp() + make_interval(secs => $3))
         on conflict (stream) do update set lease = excluded.lease, leased_until = excluded.leased_until,
           written_in = least(p.written_in, excluded.written_in),
           event_id = case when p.written_in > excluded.written_in then excluded.event_id else p.event_id end
           where p.leased_until <= clock_timestamp()
         returning p.written_in::text, p.event_id",
    )
    .bind(stream)
    .bind(lease)
    .bind(length.as_secs_f64())
    .fetch_optional(engine)
    .await?)
}

/// Events after this place that nothing can come before any more.
pub(super) async fn after(engine: &PgPool, place: &Place, most: i64) -> Result<Vec<Event>> {
    Ok(sqlx::query_as(
        "select written_in::text, id as event_id, id, tenant_id, user_id, event_type, event_data, correlation_id, created_at
         from authentication_events e
         where (e.written_in, e.id) > ($1::text::xid8, $2) and e.written_in < pg_snapshot_xmin(pg_current_snapshot())
         order by e.written_in, e.id limit $3",
    )
    .bind(&place.written_in)
    .bind(place.event_id)
    .bind(most)
    .fetch_all(engine)
    .await?)
}

/// Notes that the stream is filled up to here; false when the lease ran out and somebody else has it.
pub(super) async fn moved(
    engine: &PgPool,
    stream: &str,
    lease: Uuid,
    to: &Place,
    length: Duration,
) -> Result<bool> {
    let done = sqlx::query(
        "update redis_stream_positions
           set written_in = $3::text::xid8, event_id = $4, leased_until = clock_timestamp() + make_interval(secs => $5)
         where stream = $1 and lease = $2",
    )
    .bind(stream)
    .bind(lease)
    .bind(&to.written_in)
    .bind(to.event_id)
    .bind(length.as_secs_f64())
    .execute(engine)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets others have it.
pub(super) async fn give_back(engine: &PgPool, stream: &str, lease: Uuid) -> Result<()> {
    sqlx::query(
        "update redis_stream_positions set lease = null, leased_until = clock_timestamp() where stream = $1 and lease = $2",
    )
    .bind(stream)
    .bind(lease)
    .execute(engine)
    .await?;
    Ok(())
}
