//! SQL of items.
//!
//! Filters compare plain columns of types whose operators are leakproof, never the payload: under row-level security
//! no other operator may use an index.

use sqlx::{Postgres, SqlSafeStr, postgres::PgArguments, query::QueryAs};
use uuid::Uuid;

use super::{
    definition::{Bond, EntityDef, Parent, ParentRule, Prepared, Projection},
    items::{Item, ItemRef},
};
use crate::{
    db::TenantTx,
    error::Result,
    identity::Role,
    ids::{ItemUid, UserId},
};

macro_rules! columns {
    () => {
        "uid, id, version, created_at, updated_at, deleted_at, payload"
    };
}

/// When an item was deleted, or what it is a part of; the parameter is the kind of that, null for what is no part.
macro_rules! deleted_at {
    ($kind:literal) => {
        concat!(
            "coalesce(items.deleted_at, (select p.deleted_at from items p
               where p.tenant_id = items.tenant_id and p.kind = ",
            $kind,
            " and p.uid = items.parent_uid))"
        )
    };
}

macro_rules! columns_with_parents {
    ($kind:literal) => {
        concat!("uid, id, version, created_at, updated_at, ", deleted_at!($kind), " as deleted_at, payload")
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
    def: &EntityDef,
    owner: UserId,
    (uid, id): (ItemUid, i64),
    prepared: &Prepared,
) -> Result<Item> {
    tx.note_changed_items();
    macro_rules! insert {
        ($before:literal, $ordinal:literal) => {
            concat!(
                $before,
                "insert into items (tenant_id, kind, uid, id, user_id, payload, status, parent_uid, due_at, pinned,
                                    archived, ordinal)
                 values ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, ",
                $ordinal,
                ") returning ",
                columns!()
            )
        };
    }
    let statement = match def.parent {
        _ if def.is_conversation => insert!(
            "with conversation as (
               insert into conversations (tenant_id, id, user_id, chat_uid) values ($1, $4, $5, $3)
             ) ",
            "null"
        ),
        // Behind the messages of the newest turn, at steps that no turn reaches, and before those of the next one. The
        // parent is locked by `touch`.
        Some(ParentRule { bond: Bond::PartOf { .. }, .. }) => insert!(
            "",
            "(select least(greatest(((c.next_turn_no - 1) << 20) + (4001 << 8), 1 + coalesce((
                        select max(m.ordinal) from items m where m.tenant_id = $1 and m.kind = $2 and m.parent_uid = $8), 0)),
                           (c.next_turn_no << 20) - 1)
              from conversations c where c.tenant_id = $1 and c.chat_uid = $8)"
        ),
        _ => insert!("", "null"),
    };
    let tenant = tx.actor().tenant;
    let query = sqlx::query_as(statement)
        .bind(tenant)
        .bind(def.kind)
        .bind(uid)
        .bind(id)
        .bind(owner)
        .bind(prepared.text.as_str());
    Ok(bind_columns(query, &prepared.projection).fetch_one(tx.connection()).await?)
}

fn bind_columns<'q, Row>(
    query: QueryAs<'q, Postgres, Row, PgArguments>,
    columns: &Projection,
) -> QueryAs<'q, Postgres, Row, PgArguments> {
    query
        .bind(columns.status)
        .bind(columns.parent.map(|parent| parent.uid))
        .bind(columns.due_at)
        .bind(columns.pinned)
        .bind(columns.archived)
}

/// Whose the item is, if it is there.
pub(super) async fn owner(tx: &mut TenantTx, parent: Parent) -> Result<Option<UserId>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "select user_id from items where tenant_id = $1 and kind = $2 and uid = $3 and deleted_at is null",
    )
    .bind(tenant)
    .bind(parent.kind)
    .bind(parent.uid)
    .fetch_optional(tx.connection())
    .await?)
}

/// The same, moves the item's time and keeps others from adding a part to it meanwhile.
pub(super) async fn touch(tx: &mut TenantTx, parent: Parent) -> Result<Option<UserId>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_scalar(
        "update items set updated_at = greatest(updated_at, now())
         where tenant_id = $1 and kind = $2 and uid = $3 and deleted_at is null returning user_id",
    )
    .bind(tenant)
    .bind(parent.kind)
    .bind(parent.uid)
    .fetch_optional(tx.connection())
    .await?)
}

pub(super) async fn find(tx: &mut TenantTx, def: &EntityDef, item: ItemRef) -> Result<Option<Found>> {
    const FIND: ByReference = by_reference!(
        "select ", columns_with_parents!("$4"), ", turn_id is not null as written_by_turn from items"; ""
    );
    let query = FIND.query(tx, def.kind, item).bind(hides_with(def));
    Ok(query.fetch_optional(tx.connection()).await?)
}

/// The same, and nobody else changes it before this transaction ends.
pub(super) async fn lock(tx: &mut TenantTx, def: &EntityDef, item: ItemRef) -> Result<Option<Found>> {
    const LOCK: ByReference = by_reference!(
        "select ", columns_with_parents!("$4"), ", turn_id is not null as written_by_turn from items";
        " for no key update of items"
    );
    let query = LOCK.query(tx, def.kind, item).bind(hides_with(def));
    Ok(query.fetch_optional(tx.connection()).await?)
}

fn hides_with(def: &EntityDef) -> Option<&'static str> {
    def.parent.and_then(ParentRule::hides_with)
}

/// Replaces the payload of an item without a parent that a person may change and that has this version, if one is given.
pub(super) async fn replace(
    tx: &mut TenantTx,
    kind: &'static str,
    item: ItemRef,
    version: Option<i64>,
    prepared: &Prepared,
) -> Result<Option<Item>> {
    tx.note_changed_items();
    const REPLACE: ByReference = by_reference!(
        "update items set payload = $5::text::jsonb, status = $6, parent_uid = $7, due_at = $8, pinned = $9,
           archived = $10, version = version + 1, updated_at = now()";
        concat!(
            " and deleted_at is null and turn_id is null and ($4::bigint is null or version = $4) returning ",
            columns!()
        )
    );
    let query = REPLACE.query(tx, kind, item).bind(version).bind(prepared.text.as_str());
    Ok(bind_columns(query, &prepared.projection).fetch_optional(tx.connection()).await?)
}

/// Stores the changed payload of an item that this transaction has locked.
pub(super) async fn write(
    tx: &mut TenantTx,
    kind: &'static str,
    uid: ItemUid,
    prepared: &Prepared,
) -> Result<Item> {
    tx.note_changed_items();
    let tenant = tx.actor().tenant;
    let query = sqlx::query_as(concat!(
        "update items set payload = $4::text::jsonb, status = $5, parent_uid = $6, due_at = $7, pinned = $8,
           archived = $9, version = version + 1, updated_at = now()
         where tenant_id = $1 and kind = $2 and uid = $3
         returning ",
        columns!()
    ))
    .bind(tenant)
    .bind(kind)
    .bind(uid)
    .bind(prepared.text.as_str());
    Ok(bind_columns(query, &prepared.projection).fetch_one(tx.connection()).await?)
}

/// Marks an item as deleted that is not yet and that has this version, if one is given.
pub(super) async fn delete(
    tx: &mut TenantTx,
    def: &EntityDef,
    item: ItemRef,
    version: Option<i64>,
) -> Result<Option<Item>> {
    tx.note_changed_items();
    const DELETE: ByReference = by_reference!(
        "update items set deleted_at = now(), version = version + 1, updated_at = now()";
        concat!(
            " and ", deleted_at!("$4"), " is null and ($5::bigint is null or version = $5) returning ", columns!()
        )
    );
    let query = DELETE.query(tx, def.kind, item).bind(hides_with(def)).bind(version);
    Ok(query.fetch_optional(tx.connection()).await?)
}

/// What a page is cut from.
pub(super) struct Cut<'a> {
    /// Only items older than this one.
    pub(super) before: Option<ItemUid>,
    /// Only items in these states.
    pub(super) states: Option<&'a [&'static str]>,
    pub(super) deleted: bool,
    pub(super) archived: bool,
    /// Only what hangs on this item.
    pub(super) parent: Option<ItemUid>,
    pub(super) most: i64,
}

/// Newest first: the actor's own, or the tenant's for its admin.
pub(super) async fn page(tx: &mut TenantTx, def: &EntityDef, cut: &Cut<'_>) -> Result<Vec<Item>> {
    // The bound is always there, so that it is an index condition in a generic plan too.
    macro_rules! page {
        ($whose:literal) => {
            concat!(
                "select ",
                columns_with_parents!("$8"),
                " from items
                 where tenant_id = $1 and kind = $2 and uid < $3 and ($4::text[] is null or status = any($4))
                   and ($5 or ",
                deleted_at!("$8"),
                " is null) and ($6 or not archived)",
                $whose,
                " order by uid desc limit $7"
            )
        };
    }
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    let admin = tx.actor().role == Role::Admin;
    // What hangs on an item is its owner's: the index by parent is the better one, and row-level security stays.
    let statement = match cut.parent {
        Some(_) => page!(" and parent_uid = $9"),
        None if admin => page!(""),
        None => page!(" and user_id = $9"),
    };
    let query = sqlx::query_as(statement)
        .bind(tenant)
        .bind(def.kind)
        .bind(cut.before.map_or(Uuid::max(), |uid| uid.0))
        .bind(cut.states)
        .bind(cut.deleted)
        .bind(cut.archived)
        .bind(cut.most)
        .bind(hides_with(def));
    let query = match cut.parent {
        Some(parent) => query.bind(parent),
        None if admin => query,
        None => query.bind(user),
    };
    Ok(query.fetch_all(tx.connection()).await?)
}
