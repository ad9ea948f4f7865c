//! SQL of embeddings. The list is the engine's; texts and vectors are their owners'.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sqlx::PgPool;

use super::Due;
use crate::{db::TenantTx, error::Result, ids::ItemUid};

pub(super) async fn announce(engine: &PgPool, model: &str) -> Result<()> {
    sqlx::query(
        "insert into embedding_models (model) values ($1)
         on conflict (only_one) do update
           set model = excluded.model, since = now(), reached_tenant = default, reached_uid = default,
               reached_kind = default, reached_all = default
         where embedding_models.model <> excluded.model",
    )
    .bind(model)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn switch_off(engine: &PgPool) -> Result<()> {
    sqlx::query("with gone as (delete from embedding_models) delete from embedding_outbox")
        .execute(engine)
        .await?;
    Ok(())
}

pub(super) async fn backfill(engine: &PgPool, most: i64) -> Result<i64> {
    Ok(sqlx::query_scalar("select embeddings_backfill($1)").bind(most).fetch_one(engine).await?)
}

pub(super) async fn due_in(engine: &PgPool) -> Result<Option<f64>> {
    Ok(sqlx::query_scalar(
        "select extract(epoch from min(due_at) - clock_timestamp())::float8 from embedding_outbox",
    )
    .fetch_one(engine)
    .await?)
}

/// Takes what is due for two minutes.
pub(super) async fn take(engine: &PgPool, most: i64) -> Result<Vec<Due>> {
    Ok(sqlx::query_as(
        "update embedding_outbox set due_at = clock_timestamp() + interval '2 minutes', attempts = attempts + 1
         where (tenant_id, uid, kind) in (
           select tenant_id, uid, kind from embedding_outbox where due_at <= clock_timestamp()
           order by due_at limit $1 for update skip locked)
         returning tenant_id, uid, kind, user_id, seq, attempts",
    )
    .bind(most)
    .fetch_all(engine)
    .await?)
}

/// Takes items off the list that have not changed since they were taken. One that is being changed now is left to the
/// next round.
pub(super) async fn finish(engine: &PgPool, done: &[Due]) -> Result<()> {
    if done.is_empty() {
        return Ok(());
    }
    let (tenants, uids, kinds, seqs) = columns(done);
    sqlx::query(
        "delete from embedding_outbox where (tenant_id, uid, kind) in (
           select o.tenant_id, o.uid, o.kind
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) d (tenant_id, uid, kind, seq)
           join embedding_outbox o on o.tenant_id = d.tenant_id and o.uid = d.uid and o.kind = d.kind and o.seq = d.seq
           for update of o skip locked)",
    )
    .bind(tenants)
    .bind(uids)
    .bind(kinds)
    .bind(seqs)
    .execute(engine)
    .await?;
    Ok(())
}

pub(super) async fn put_back(engine: &PgPool, later: &[Due], seconds: f64) -> Result<()> {
    if later.is_empty() {
        return Ok(());
    }
    let (tenants, uids, kinds, seqs) = columns(later);
    sqlx::query(
        "update embedding_outbox set due_at = clock_timestamp() + make_interval(secs => $5)
         where (tenant_id, uid, kind) in (
           select o.tenant_id, o.uid, o.kind
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) d (tenant_id, uid, kind, seq)
           join embedding_outbox o on o.tenant_id = d.tenant_id and o.uid = d.uid and o.kind = d.kind and o.seq = d.seq
           for update of o skip locked)",
    )
    .bind(tenants)
    .bind(uids)
    .bind(kinds)
    .bind(seqs)
    .bind(seconds)
    .execute(engine)
    .await?;
    Ok(())
}

type Columns<'a> = (Vec<uuid::Uuid>, Vec<ItemUid>, Vec<&'a str>, Vec<i64>);

fn columns(items: &[Due]) -> Columns<'_> {
    (
        items.iter().map(|due| due.tenant_id.0).collect(),
        items.iter().map(|due| due.uid).collect(),
        items.iter().map(|due| due.kind.as_str()).collect(),
        items.iter().map(|due| due.seq).collect(),
    )
}

/// An item's content, and of which text its vector is, if it has one of this model.
#[derive(sqlx::FromRow)]
pub(super) struct Stored {
    kind: String,
    uid: ItemUid,
    #[sqlx(json)]
    pub(super) payload: Map<String, Value>,
    pub(super) text_hash: Option<Vec<u8>>,
}

/// Items that are there, by kind and uid.
pub(super) async fn texts(
    tx: &mut TenantTx,
    model: &str,
    items: &[Due],
) -> Result<HashMap<(String, ItemUid), Stored>> {
    let tenant = tx.actor().tenant;
    let (_, uids, kinds, _) = columns(items);
    let rows: Vec<Stored> = sqlx::query_as(
        "select i.kind, i.uid, i.payload, e.text_hash
         from unnest($2::text[], $3::uuid[]) d (kind, uid)
         join items i on i.tenant_id = $1 and i.kind = d.kind and i.uid = d.uid
         left join item_embeddings e on e.tenant_id = $1 and e.uid = i.uid and e.kind = i.kind and e.model = $4
         where i.deleted_at is null",
    )
    .bind(tenant)
    .bind(kinds)
    .bind(uids)
    .bind(model)
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| ((row.kind.clone(), row.uid), row)).collect())
}

/// Stores a vector of an item that is still there.
pub(super) async fn put(
    tx: &mut TenantTx,
    model: &str,
    item: &Due,
    hash: &[u8; 32],
    vector: &[f32],
) -> Result<()> {
    let tenant = tx.actor().tenant;
    sqlx::query(
        "insert into item_embeddings (tenant_id, uid, kind, user_id, model, text_hash, embedding)
         select i.tenant_id, i.uid, i.kind, i.user_id, $4, $5, $6 from items i
         where i.tenant_id = $1 and i.kind = $2 and i.uid = $3 and i.deleted_at is null
         on conflict (tenant_id, uid, kind) do update
           set model = excluded.model, text_hash = excluded.text_hash, embedding = excluded.embedding, at = now()",
    )
    .bind(tenant)
    .bind(&item.kind)
    .bind(item.uid)
    .bind(model)
    .bind(hash.as_slice())
    .bind(vector)
    .execute(tx.connection())
    .await?;
    Ok(())
}
