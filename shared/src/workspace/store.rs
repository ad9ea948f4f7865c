//! SQL of items.
//!
//! Filters compare plain columns of types whose operators are leakproof, never the payload: under row-level security
//! no other operator may use an index.

use sqlx::{Postgres, SqlSafeStr, postgres::PgArguments, query::QueryAs};
use uuid::Uuid;

use super::{
    definition::Prepared,
    items::{Item, ItemRef},
};
use crate::{db::TenantTx, error::Result, ids::ItemUid};

macro_rules! columns {
    () => {
        "uid, id, version, created_at, updated_at, deleted_at, payload"
    };
}

/// The same statement for both ways to name an item; `$1` is the name, `$2` the tenant, `$3` the kind.
macro_rules! by_reference {
    ($($part:expr),+; $and:expr) => {
        ByReference {
            uid: concat!($($part),+, " where uid = $1 and tenant_id = $2 and kind = $3", $and),
            id: concat!($($part),+, " where id = $1 and tenant_id = $2 and kind = $3", $and),
        }
    };
}

struct ByReference {
    uid: &'static str,
    id: &'static str,
}

impl ByReference {
    fn query<'q, Row>(
        &self,
        tx: &TenantTx,
        kind: &'static str,
        item: ItemRef,
    ) -> QueryAs<'q, Postgres, Row, PgArguments>
    where
        Row: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let query = match item {
            ItemRef::Uid(uid) => sqlx::query_as(self.uid.into_sql_str()).bind(uid),
            ItemRef::Id(id) => sqlx::query_as(self.id.into_sql_str()).bind(id),
        };
        query.bind(tx.actor().tenant).bind(kind)
    }
}

/// An item as a writer finds it.
#[derive(sqlx::FromRow)]
pub(super) struct Found {
    #[sqlx(flatten)]
    pub(super) item: Item,
    pub(super) written_by_turn: bool,
}

pub(super) async fn insert(
    tx: &mut TenantTx,
    kind: &'static str,
    (uid, id): (ItemUid, i64),
    prepared: &Prepared,
) -> Result<Item> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let columns = &prepared.projection;
    Ok(sqlx::query_as(concat!(
        "insert into items (tenant_id, kind, uid, id, user_id, payload, status, parent_uid, due_at, pinned, archived, ordinal)
         values ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12)
         returning ",
        columns!()
    ))
    .bind(tenant)
    .bind(kind)
    .bind(uid)
    .bind(id)
    .bind(user)
    .bind(prepared.text.as_str())
    .bind(columns.status)
    .bind(columns.parent_uid)
    .bind(columns.due_at)
    .bind(columns.pinned)
    .bind(columns.archived)
    .bind(columns.ordinal)
    .fetch_one(tx.connection())
    .await?)
}

pub(super) async fn find(tx: &mut TenantTx, kind: &'static str, item: ItemRef) -> Result<Option<Found>> {
    const FIND: ByReference =
        by_reference!("select ", columns!(), ", turn_id is not null as written_by_turn from items"; "");
    Ok(FIND.query(tx, kind, item).fetch_optional(tx.connection()).await?)
}

/// The same, and nobody else changes it before this transaction ends.
pub(super) async fn lock(tx: &mut TenantTx, kind: &'static str, item: ItemRef) -> Result<Option<Found>> {
    const LOCK: ByReference = by_reference!(
        "select ", columns!(), ", turn_id is not null as written_by_turn from items"; " for no key update"
    );
    Ok(LOCK.query(tx, kind, item).fetch_optional(tx.connection()).await?)
}

/// Replaces the payload of an item that a person may change and that has this version, if one is given.
pub(super) async fn replace(
    tx: &mut TenantTx,
    kind: &'static str,
    item: ItemRef,
    version: Option<i64>,
    prepared: &Prepared,
) -> Result<Option<Item>> {
    const REPLACE: ByReference = by_reference!(
        "update items set payload = $5::text::jsonb, status = $6, parent_uid = $7, due_at = $8, pinned = $9,
           archived = $10, ordinal = coalesce($11, ordinal), version = version + 1, updated_at = now()";
        concat!(
            " and deleted_at is null and turn_id is null and ($4::bigint is null or version = $4) returning ",
            columns!()
        )
    );
    let columns = &prepared.projection;
    Ok(REPLACE
        .query(tx, kind, item)
        .bind(version)
        .bind(prepared.text.as_str())
        .bind(columns.status)
        .bind(columns.parent_uid)
        .bind(columns.due_at)
        .bind(columns.pinned)
        .bind(columns.archived)
        .bind(columns.ordinal)
        .fetch_optional(tx.connection())
        .await?)
}

/// Stores the changed payload of an item that this transaction has locked.
pub(super) async fn write(
    tx: &mut TenantTx,
    kind: &'static str,
    uid: ItemUid,
    prepared: &Prepared,
) -> Result<Item> {
    let tenant = tx.actor().tenant;
    let columns = &prepared.projection;
    Ok(sqlx::query_as(concat!(
        "update items set payload = $4::text::jsonb, status = $5, parent_uid = $6, due_at = $7, pinned = $8,
           archived = $9, ordinal = coalesce($10, ordinal), version = version + 1, updated_at = now()
         where tenant_id = $1 and kind = $2 and uid = $3
         returning ",
        columns!()
    ))
    .bind(tenant)
    .bind(kind)
    .bind(uid)
    .bind(prepared.text.as_str())
    .bind(columns.status)
    .bind(columns.parent_uid)
    .bind(columns.due_at)
    .bind(columns.pinned)
    .bind(columns.archived)
    .bind(columns.ordinal)
    .fetch_one(tx.connection())
    .await?)
}

/// Marks an item as deleted that is not yet and that has this version, if one is given.
pub(super) async fn delete(
    tx: &mut TenantTx,
    kind: &'static str,
    item: ItemRef,
    version: Option<i64>,
) -> Result<Option<Item>> {
    const DELETE: ByReference = by_reference!(
        "update items set deleted_at = now(), version = version + 1, updated_at = now()";
        concat!(" and deleted_at is null and ($4::bigint is null or version = $4) returning ", columns!())
    );
    Ok(DELETE.query(tx, kind, item).bind(version).fetch_optional(tx.connection()).await?)
}

/// What a page is cut from.
pub(super) struct Cut<'a> {
    /// Only items older than this one.
    pub(super) before: Option<ItemUid>,
    /// Only items in these states.
    pub(super) states: Option<&'a [&'static str]>,
    pub(super) deleted: bool,
    pub(super) archived: bool,
    pub(super) most: i64,
}

/// Newest first: the actor's own, or the tenant's for its admin.
pub(super) async fn page(tx: &mut TenantTx, kind: &'static str, cut: &Cut<'_>) -> Result<Vec<Item>> {
    // The bound is always there, so that it is an index condition in a generic plan too.
    macro_rules! page {
        ($whose:literal) => {
            concat!(
                "select ",
                columns!(),
                " from items
                 where tenant_id = $1 and kind = $2 and uid < $3 and ($4::text[] is null or status = any($4))
                   and ($5 or deleted_at is null) and ($6 or not archived)",
                $whose,
                " order by uid desc limit $7"
            )
        };
    }
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let admin = tx.actor().role == crate::identity::Role::Admin;
    let query = sqlx::query_as(if admin { page!("") } else { page!(" and user_id = $8") })
        .bind(tenant)
        .bind(kind)
        .bind(cut.before.map_or(Uuid::max(), |uid| uid.0))
        .bind(cut.states)
        .bind(cut.deleted)
        .bind(cut.archived)
        .bind(cut.most);
    let query = if admin { query } else { query.bind(user) };
    Ok(query.fetch_all(tx.connection()).await?)
}
