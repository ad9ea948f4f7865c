//! SQL of the tool cache. Content as the app, under row-level security; counting, retention and what admins see as the
//! engine, which has no right on content.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{
    CachedTool,
    counts::{Pending, Tally},
    place::Place,
    tier::Slot,
};
use crate::{db::TenantTx, error::Result, ids::TenantId};

/// What Postgres has for a key.
pub(super) struct Look {
    /// Of the place's part that belongs to the server.
    pub(super) generation: i64,
    /// A write is under way there.
    pub(super) writing: bool,
    pub(super) at: DateTime<Utc>,
    pub(super) found: Option<Found>,
}

pub(super) struct Found {
    pub(super) content: String,
    pub(super) content_hash: String,
    pub(super) ttl: Duration,
}

pub(super) async fn look(tx: &mut TenantTx, slot: &Slot, server: &str) -> Result<Look> {
    let row = sqlx::query(
        "select clock_timestamp() as at, coalesce(g.generation, 0) as generation,
                coalesce(g.writing_until > clock_timestamp(), false) as writing, c.content, c.content_hash,
                extract(epoch from c.expires_at - clock_timestamp())::float8 as ttl
         from (select 1) one
         left join agent_cache_generations g
           on g.tenant_id = $1 and g.scope = $2 and g.owner_id = $3 and g.server = $4
         left join agent_cache c
           on c.tenant_id = $1 and c.scope = $2 and c.owner_id = $3 and c.cache_key = $5
              and c.generation = coalesce(g.generation, 0) and c.expires_at > clock_timestamp()",
    )
    .bind(slot.place.tenant)
    .bind(slot.place.scope.as_str())
    .bind(slot.place.owner)
    .bind(server)
    .bind(&*slot.key)
    .fetch_one(tx.connection())
    .await?;
    let found = match row.try_get::<Option<String>, _>("content")? {
        Some(content) => Some(Found {
            content,
            content_hash: row.try_get("content_hash")?,
            ttl: Duration::try_from_secs_f64(row.try_get::<f64, _>("ttl")?).unwrap_or_default(),
        }),
        None => None,
    };
    Ok(Look {
        generation: row.try_get("generation")?,
        writing: row.try_get("writing")?,
        at: row.try_get("at")?,
        found,
    })
}

/// Takes the flight for this key, unless another process has it. A crash may lose it, which costs a second call.
pub(super) async fn take_flight(
    tx: &mut TenantTx,
    slot: &Slot,
    holder: Uuid,
    generation: i64,
    lease: Duration,
) -> Result<bool> {
    let done = sqlx::query(
        "with quick as materialized (select set_config('synchronous_commit', 'off', true))
         insert into agent_cache_flights (tenant_id, scope, owner_id, cache_key, holder, generation, expires_at)
         select $1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7) from quick
         on conflict (tenant_id, scope, owner_id, cache_key) do update
           set holder = excluded.holder, generation = excluded.generation, expires_at = excluded.expires_at
           where agent_cache_flights.expires_at < clock_timestamp()
              or agent_cache_flights.generation < excluded.generation",
    )
    .bind(slot.place.tenant)
    .bind(slot.place.scope.as_str())
    .bind(slot.place.owner)
    .bind(&*slot.key)
    .bind(holder)
    .bind(generation)
    .bind(lease.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Holds the flight for longer.
pub(super) async fn renew_flight(
    tx: &mut TenantTx,
    slot: &Slot,
    holder: Uuid,
    lease: Duration,
) -> Result<()> {
    sqlx::query(
        "with quick as materialized (select set_config('synchronous_commit', 'off', true))
         update agent_cache_flights set expires_at = clock_timestamp() + make_interval(secs => $6) from quick
         where tenant_id = $1 and scope = $2 and owner_id = $3 and cache_key = $4 and holder = $5",
    )
    .bind(slot.place.tenant)
    .bind(slot.place.scope.as_str())
    .bind(slot.place.owner)
    .bind(&*slot.key)
    .bind(holder)
    .bind(lease.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Lets others have the flight.
pub(super) async fn end_flight(tx: &mut TenantTx, slot: &Slot, holder: Uuid) -> Result<()> {
    sqlx::query(
        "with quick as materialized (select set_config('synchronous_commit', 'off', true))
         delete from agent_cache_flights using quick
         where tenant_id = $1 and scope = $2 and owner_id = $3 and cache_key = $4 and holder = $5",
    )
    .bind(slot.place.tenant)
    .bind(slot.place.scope.as_str())
    .bind(slot.place.owner)
    .bind(&*slot.key)
    .bind(holder)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// An answer to be kept.
pub(super) struct NewRow<'a> {
    pub(super) slot: &'a Slot,
    pub(super) server: &'a str,
    pub(super) tool: &'a str,
    pub(super) content: &'a str,
    pub(super) content_hash: &'a str,
    pub(super) generation: i64,
    /// When the read began.
    pub(super) read_at: DateTime<Utc>,
    pub(super) ttl: Duration,
}

/// Keeps an answer, unless what is there was read later or the place has moved on. A crash may lose it, which costs a
/// call. Answers whether it was kept.
pub(super) async fn keep(tx: &mut TenantTx, row: &NewRow<'_>) -> Result<bool> {
    let done = sqlx::query(
        "with quick as materialized (select set_config('synchronous_commit', 'off', true))
         insert into agent_cache as c (tenant_id, scope, owner_id, cache_key, server, tool, content, content_hash, generation,
                                       read_at, expires_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() + make_interval(secs => $11) from quick
         where coalesce((select g.generation from agent_cache_generations g
                         where g.tenant_id = $1 and g.scope = $2 and g.owner_id = $3 and g.server = $5), 0) = $9
         on conflict (tenant_id, scope, owner_id, cache_key) do update
           set content = excluded.content, content_hash = excluded.content_hash, generation = excluded.generation,
               read_at = excluded.read_at, expires_at = excluded.expires_at, updated_at = clock_timestamp()
           where c.generation <= excluded.generation and c.read_at <= excluded.read_at",
    )
    .bind(row.slot.place.tenant)
    .bind(row.slot.place.scope.as_str())
    .bind(row.slot.place.owner)
    .bind(&*row.slot.key)
    .bind(row.server)
    .bind(row.tool)
    .bind(row.content)
    .bind(row.content_hash)
    .bind(row.generation)
    .bind(row.read_at)
    .bind(row.ttl.as_secs_f64())
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Outdates what is kept of a server in this place, and keeps nothing new for at most so long. Answers the generation.
pub(super) async fn begin_write(
    tx: &mut TenantTx,
    place: Place,
    server: &str,
    most: Duration,
) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "insert into agent_cache_generations as g (tenant_id, scope, owner_id, server, generation, writing_until)
         values ($1, $2, $3, $4, 1, clock_timestamp() + make_interval(secs => $5))
         on conflict (tenant_id, scope, owner_id, server) do update
           set generation = g.generation + 1, writing_until = greatest(g.writing_until, excluded.writing_until)
         returning generation",
    )
    .bind(place.tenant)
    .bind(place.scope.as_str())
    .bind(place.owner)
    .bind(server)
    .bind(most.as_secs_f64())
    .fetch_one(tx.connection())
    .await?)
}

/// Outdates what was read during the write. Another write that began meanwhile keeps the place closed.
pub(super) async fn end_write(tx: &mut TenantTx, place: Place, server: &str, began: i64) -> Result<()> {
    sqlx::query(
        "update agent_cache_generations
         set generation = generation + 1,
             writing_until = case when generation = $5 then clock_timestamp() else writing_until end
         where tenant_id = $1 and scope = $2 and owner_id = $3 and server = $4",
    )
    .bind(place.tenant)
    .bind(place.scope.as_str())
    .bind(place.owner)
    .bind(server)
    .bind(began)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Removes what is kept of a server in this place, for good.
pub(super) async fn drop_server(tx: &mut TenantTx, place: Place, server: &str) -> Result<u64> {
    begin_write(tx, place, server, Duration::ZERO).await?;
    let done = sqlx::query(
        "delete from agent_cache where tenant_id = $1 and scope = $2 and owner_id = $3 and server = $4",
    )
    .bind(place.tenant)
    .bind(place.scope.as_str())
    .bind(place.owner)
    .bind(server)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// Adds what was counted.
pub(super) async fn count(engine: &PgPool, pending: &Pending) -> Result<()> {
    // Sorted, so that two processes that count the same rows cannot lock each other out.
    let mut rows: Vec<(&Slot, i64)> = pending.rows.iter().map(|(slot, hits)| (slot, *hits)).collect();
    rows.sort_unstable_by(|one, other| {
        let by =
            |slot: &Slot| (slot.place.tenant, slot.place.scope.as_str(), slot.place.owner, slot.key.clone());
        by(one.0).cmp(&by(other.0))
    });
    let mut tools: Vec<(&(TenantId, String, String), &Tally)> = pending.tools.iter().collect();
    tools.sort_unstable_by_key(|(name, _)| *name);
    sqlx::query(
        "with hit as (
           update agent_cache c set hit_count = c.hit_count + h.hits, last_accessed = clock_timestamp()
           from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::bigint[]) h (tenant_id, scope, owner_id, cache_key, hits)
           where c.tenant_id = h.tenant_id and c.scope = h.scope and c.owner_id = h.owner_id and c.cache_key = h.cache_key
         )
         insert into agent_cache_days as d (tenant_id, day, server, tool, hits, misses, refreshes, passed_by)
         select t.tenant_id, date_trunc('day', now(), 'UTC'), t.server, t.tool, t.hits, t.misses, t.refreshes, t.passed_by
         from unnest($6::uuid[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
              t (tenant_id, server, tool, hits, misses, refreshes, passed_by)
         on conflict (tenant_id, day, server, tool) do update
           set hits = d.hits + excluded.hits, misses = d.misses + excluded.misses,
               refreshes = d.refreshes + excluded.refreshes, passed_by = d.passed_by + excluded.passed_by",
    )
    .bind(rows.iter().map(|(slot, _)| slot.place.tenant).collect::<Vec<_>>())
    .bind(rows.iter().map(|(slot, _)| slot.place.scope.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(slot, _)| slot.place.owner).collect::<Vec<_>>())
    .bind(rows.iter().map(|(slot, _)| &*slot.key).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, hits)| *hits).collect::<Vec<_>>())
    .bind(tools.iter().map(|((tenant, ..), _)| *tenant).collect::<Vec<_>>())
    .bind(tools.iter().map(|((_, server, _), _)| server.as_str()).collect::<Vec<_>>())
    .bind(tools.iter().map(|((.., tool), _)| tool.as_str()).collect::<Vec<_>>())
    .bind(tools.iter().map(|(_, tally)| tally.hits).collect::<Vec<_>>())
    .bind(tools.iter().map(|(_, tally)| tally.misses).collect::<Vec<_>>())
    .bind(tools.iter().map(|(_, tally)| tally.refreshes).collect::<Vec<_>>())
    .bind(tools.iter().map(|(_, tally)| tally.passed_by).collect::<Vec<_>>())
    .execute(engine)
    .await?;
    Ok(())
}

/// What the tenant's tools got out of the cache in the last days, and what of each is in it now.
pub(super) async fn tools(engine: &PgPool, tenant: TenantId, days: i32) -> Result<Vec<CachedTool>> {
    let rows = sqlx::query(
        "select coalesce(d.server, c.server) as server, coalesce(d.tool, c.tool) as tool, coalesce(d.hits, 0) as hits,
                coalesce(d.misses, 0) as misses, coalesce(d.refreshes, 0) as refreshes, coalesce(d.passed_by, 0) as passed_by,
                coalesce(c.entries, 0) as entries, coalesce(c.hit_count, 0) as hit_count, c.last_accessed
         from (select server, tool, sum(hits)::bigint as hits, sum(misses)::bigint as misses,
                      sum(refreshes)::bigint as refreshes, sum(passed_by)::bigint as passed_by
               from agent_cache_days where tenant_id = $1 and day > now() - make_interval(days => $2) group by 1, 2) d
         full join (select server, tool, count(*) as entries, sum(hit_count)::bigint as hit_count,
                           max(last_accessed) as last_accessed
                    from agent_cache where tenant_id = $1 and expires_at > now() group by 1, 2) c
           on c.server = d.server and c.tool = d.tool
         order by 1, 2",
    )
    .bind(tenant)
    .bind(days)
    .fetch_all(engine)
    .await?;
    let tools = rows.iter().map(|row| {
        Ok(CachedTool {
            server: row.try_get("server")?,
            tool: row.try_get("tool")?,
            hits: row.try_get("hits")?,
            misses: row.try_get("misses")?,
            refreshes: row.try_get("refreshes")?,
            passed_by: row.try_get("passed_by")?,
            entries: row.try_get("entries")?,
            entry_hits: row.try_get("hit_count")?,
            last_accessed: row.try_get("last_accessed")?,
        })
    });
    Ok(tools.collect::<Result<_, sqlx::Error>>()?)
}

/// Removes the tenant's rows, of one server or one tool if they are named.
pub(super) async fn purge(
    engine: &PgPool,
    tenant: TenantId,
    server: Option<&str>,
    tool: Option<&str>,
) -> Result<u64> {
    let done = sqlx::query(
        "delete from agent_cache
         where tenant_id = $1 and ($2::text is null or server = $2) and ($3::text is null or tool = $3)",
    )
    .bind(tenant)
    .bind(server)
    .bind(tool)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}
