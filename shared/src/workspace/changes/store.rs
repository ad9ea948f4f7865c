//! SQL of the change feed.

use chrono::{DateTime, Utc};
use sqlx::{FromRow as _, PgConnection, PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::cursor::{Epoch, Place};
use crate::{
    db::TenantTx,
    error::{Error, Result},
    identity::Role,
    ids::{ItemUid, TenantId, UserId},
    workspace::items::Item,
};

/// What a snapshot says of the feed as a whole.
#[derive(sqlx::FromRow)]
pub(super) struct State {
    epoch: String,
    settled: String,
    dropped_xid: String,
    dropped_seq: i64,
}

impl State {
    pub(super) fn epoch(&self) -> Result<Epoch> {
        let number = u64::from_str_radix(&self.epoch, 16).map_err(Error::internal)?;
        Ok(number.to_be_bytes())
    }

    /// Everything before this place has ended, and so will never change.
    pub(super) fn settled(&self) -> Result<Place> {
        Ok(Place::before(number(&self.settled)?))
    }

    /// The last change that retention has deleted.
    pub(super) fn dropped(&self) -> Result<Place> {
        Ok(Place { xid: number(&self.dropped_xid)?, seq: self.dropped_seq })
    }
}

/// Postgres writes a transaction id as text; no type of ours stands for it.
fn number(xid: &str) -> Result<u64> {
    xid.parse().map_err(Error::internal)
}

/// A change.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) kind: String,
    pub(super) uid: ItemUid,
    pub(super) version: i64,
    pub(super) change: String,
    pub(super) user_id: UserId,
    pub(super) at: DateTime<Utc>,
    pub(super) item: Option<Item>,
}

pub(super) async fn state(tx: &mut TenantTx) -> Result<State> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select change_epoch($1) as epoch, pg_snapshot_xmin(pg_current_snapshot())::text as settled,
                coalesce(f.dropped_xid, '0')::text as dropped_xid, coalesce(f.dropped_seq, 0) as dropped_seq
         from (values ($1::uuid)) t (id) left join change_feeds f on f.tenant_id = t.id",
    )
    .bind(tenant)
    .fetch_one(tx.connection())
    .await?)
}

/// The changes after a place and the feed's state, of one snapshot.
pub(super) async fn page(
    tx: &mut TenantTx,
    after: Place,
    most: i64,
    items: bool,
) -> Result<(State, Vec<Row>)> {
    // The state comes with every row, and alone when there is none.
    macro_rules! page {
        ($whose:literal) => {
            concat!(
                "select change_epoch($1) as epoch, pg_snapshot_xmin(pg_current_snapshot())::text as settled,
                   coalesce(f.dropped_xid, '0')::text as dropped_xid, coalesce(f.dropped_seq, 0) as dropped_seq,
                   c.xid::text as xid, c.seq, c.kind, c.uid as changed, c.version as made, c.change, c.user_id, c.at,
                   i.uid, i.id, i.version, i.created_at, i.updated_at, i.deleted_at, i.payload
                 from (values ($1::uuid)) t (id)
                 left join change_feeds f on f.tenant_id = t.id
                 left join lateral (
                   select * from changes
                   where tenant_id = $1 and (xid, seq) > ($2::text::xid8, $3::bigint)
                     and xid < pg_snapshot_xmin(pg_current_snapshot())",
                $whose,
                "  order by xid, seq limit $4
                 ) c on true
                 left join items i on $5 and i.tenant_id = $1 and i.kind = c.kind and i.uid = c.uid
                 order by c.xid, c.seq"
            )
        };
    }
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let admin = tx.actor().role == Role::Admin;
    let query = sqlx::query(if admin { page!("") } else { page!(" and user_id = $6") })
        .bind(tenant)
        .bind(after.xid.to_string())
        .bind(after.seq)
        .bind(most)
        .bind(items);
    let query = if admin { query } else { query.bind(user) };
    let rows = query.fetch_all(tx.connection()).await?;
    let state = match rows.first() {
        Some(row) => State::from_row(row)?,
        None => return Err(Error::internal("a feed has a state")),
    };
    let changes = rows.iter().filter_map(|row| change(row).transpose()).collect::<Result<_>>()?;
    Ok((state, changes))
}

fn change(row: &PgRow) -> Result<Option<Row>> {
    let Some(xid) = row.try_get::<Option<String>, _>("xid")? else { return Ok(None) };
    let item = match row.try_get::<Option<Uuid>, _>("uid")? {
        Some(_) => Some(Item::from_row(row)?),
        None => None,
    };
    Ok(Some(Row {
        place: Place { xid: number(&xid)?, seq: row.try_get("seq")? },
        kind: row.try_get("kind")?,
        uid: row.try_get("changed")?,
        version: row.try_get("made")?,
        change: row.try_get("change")?,
        user_id: row.try_get("user_id")?,
        at: row.try_get("at")?,
        item,
    }))
}

/// What is new in a tenant's feed.
pub(super) struct News {
    pub(super) tenant: TenantId,
    /// Whose items changed.
    pub(super) users: Vec<UserId>,
    /// Look from here the next time.
    pub(super) place: Place,
    /// There is more than was looked at.
    pub(super) more: bool,
    /// Changes were committed that an older transaction, still running, holds up.
    pub(super) held: bool,
}

/// The most changes of one tenant that are looked at together.
const LOOK: i64 = 1000;

/// Whose items changed since each tenant's place; without a place, where the feed stands now.
pub(super) async fn news(
    engine: &mut PgConnection,
    tenants: &[(TenantId, Option<Place>)],
) -> Result<Vec<News>> {
    let ids: Vec<Uuid> = tenants.iter().map(|(tenant, _)| tenant.0).collect();
    let xids: Vec<Option<String>> =
        tenants.iter().map(|(_, place)| place.map(|place| place.xid.to_string())).collect();
    let seqs: Vec<Option<i64>> = tenants.iter().map(|(_, place)| place.map(|place| place.seq)).collect();
    let rows = sqlx::query(
        "select w.tenant_id, s.settled::text as settled, l.users, l.found, l.xid, l.seq,
                exists (select from changes h where h.tenant_id = w.tenant_id and h.xid >= s.settled) as held
         from unnest($1::uuid[], $2::text[], $3::bigint[]) w (tenant_id, xid, seq)
         cross join (select pg_snapshot_xmin(pg_current_snapshot()) as settled) s
         cross join lateral (
           select array_agg(distinct c.user_id) as users, count(*) as found,
                  (array_agg(c.xid::text order by c.xid desc, c.seq desc))[1] as xid,
                  (array_agg(c.seq order by c.xid desc, c.seq desc))[1] as seq
           from (select xid, seq, user_id from changes
                 where tenant_id = w.tenant_id and (xid, seq) > (w.xid::xid8, w.seq) and xid < s.settled
                 order by xid, seq limit $4) c
         ) l",
    )
    .bind(ids)
    .bind(xids)
    .bind(seqs)
    .bind(LOOK)
    .fetch_all(engine)
    .await?;
    rows.iter()
        .map(|row| {
            let more = row.try_get::<i64, _>("found")? >= LOOK;
            let settled = Place::before(number(&row.try_get::<String, _>("settled")?)?);
            let last = match row.try_get::<Option<String>, _>("xid")? {
                Some(xid) => Place { xid: number(&xid)?, seq: row.try_get("seq")? },
                None => settled,
            };
            Ok(News {
                tenant: row.try_get("tenant_id")?,
                users: row.try_get::<Option<Vec<UserId>>, _>("users")?.unwrap_or_default(),
                place: if more { last } else { last.max(settled) },
                more,
                held: row.try_get("held")?,
            })
        })
        .collect()
}

/// How long the change that waits longest has waited for an older transaction to end; nothing is told past it.
pub(super) async fn lag_seconds(engine: &PgPool) -> Result<f64> {
    Ok(sqlx::query_scalar(
        "select coalesce(greatest(extract(epoch from clock_timestamp() - min(h.at)), 0), 0)::float8
         from (select pg_snapshot_xmin(pg_current_snapshot()) as settled) s
         cross join tenants t
         cross join lateral (
           select at from changes where tenant_id = t.id and xid >= s.settled order by xid, seq limit 1) h",
    )
    .fetch_one(engine)
    .await?)
}

/// How far a deletion reached is remembered with it, so that no page ever has a hole.
pub(super) async fn forget(engine: &PgPool, before: DateTime<Utc>, most: i64) -> Result<u64> {
    let done = sqlx::query(
        "with old as materialized (
           select tenant_id, xid, seq from changes where at < $1 limit $2
         ), reached as (
           insert into change_feeds (tenant_id, dropped_xid, dropped_seq)
           select distinct on (tenant_id) tenant_id, xid, seq from old order by tenant_id, xid desc, seq desc
           on conflict (tenant_id) do update set dropped_xid = excluded.dropped_xid, dropped_seq = excluded.dropped_seq
           where (excluded.dropped_xid, excluded.dropped_seq) > (change_feeds.dropped_xid, change_feeds.dropped_seq)
         )
         delete from changes c using old where c.tenant_id = old.tenant_id and c.xid = old.xid and c.seq = old.seq",
    )
    .bind(before)
    .bind(most)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}
