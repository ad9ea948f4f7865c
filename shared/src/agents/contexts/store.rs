//! SQL of contexts. A user's own row and history are written as the user; events and deliveries by a function of the
//! engine's, because who serves requests may not write them.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;

use super::{Context, Document, FIRST_VERSION, Listener, Version};
use crate::{
    agents::store::MatrixRow,
    db::TenantTx,
    error::Result,
    ids::{SignInId, TenantId, UserId},
};

#[derive(sqlx::FromRow)]
struct ContextRow {
    email: Option<String>,
    version: Option<i64>,
    context_data: Option<Value>,
    updated_at: Option<DateTime<Utc>>,
}

impl ContextRow {
    fn of(self, user: UserId) -> Context {
        Context {
            user,
            email: self.email,
            version: self.version.unwrap_or(FIRST_VERSION),
            document: self.context_data.map(Document::stored).unwrap_or_default(),
            updated_at: self.updated_at,
        }
    }
}

pub(super) async fn one(tx: &mut TenantTx, user: UserId) -> Result<Context> {
    let tenant = tx.actor().tenant;
    let row: ContextRow = sqlx::query_as(
        "select u.email, c.version, c.context_data, c.updated_at
         from (select $2::uuid as id) w left join users u on u.id = w.id
         left join user_contexts c on c.tenant_id = $1 and c.user_id = w.id",
    )
    .bind(tenant)
    .bind(user)
    .fetch_one(tx.connection())
    .await?;
    Ok(row.of(user))
}

/// The context of the transaction's user, theirs alone until it ends.
pub(super) async fn locked(tx: &mut TenantTx) -> Result<Context> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    sqlx::query(
        "insert into user_contexts (tenant_id, user_id, version) values ($1, $2, $3) on conflict do nothing",
    )
    .bind(tenant)
    .bind(user)
    .bind(FIRST_VERSION)
    .execute(tx.connection())
    .await?;
    let row: ContextRow = sqlx::query_as(
        "select (select u.email from users u where u.id = c.user_id) as email, c.version, c.context_data, c.updated_at
         from user_contexts c where c.tenant_id = $1 and c.user_id = $2 for update",
    )
    .bind(tenant)
    .bind(user)
    .fetch_one(tx.connection())
    .await?;
    Ok(row.of(user))
}

pub(super) async fn belongs(tx: &mut TenantTx, user: UserId, default_tenant: TenantId) -> Result<bool> {
    Ok(sqlx::query_scalar("select belongs_here($1, $2)")
        .bind(user)
        .bind(default_tenant)
        .fetch_one(tx.connection())
        .await?)
}

pub(super) async fn is_timezone(tx: &mut TenantTx, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from pg_timezone_names where name = $1)")
        .bind(name)
        .fetch_one(tx.connection())
        .await?)
}

/// Writes the next version of the transaction's user, and keeps it in the history.
pub(super) async fn write(
    tx: &mut TenantTx,
    version: i64,
    document: &Document,
    parts: &[&str],
    by: &str,
) -> Result<DateTime<Utc>> {
    let (tenant, user) = (tx.actor().tenant, tx.actor().user);
    Ok(sqlx::query_scalar(
        "with kept as (
           insert into user_context_history (tenant_id, user_id, version, context_data, changed_parts, changed_by)
           values ($1, $2, $3, $4, $5, $6))
         update user_contexts set version = $3, context_data = $4, updated_at = clock_timestamp()
         where tenant_id = $1 and user_id = $2 returning updated_at",
    )
    .bind(tenant)
    .bind(user)
    .bind(version)
    .bind(document.to_value())
    .bind(parts)
    .bind(by)
    .fetch_one(tx.connection())
    .await?)
}

#[derive(sqlx::FromRow)]
struct ListenerRow {
    name: String,
    #[sqlx(flatten)]
    matrix: MatrixRow,
}

/// The agents of the tenant that want to hear of changes, with what they may see.
pub(super) async fn listeners(tx: &mut TenantTx) -> Result<Vec<Listener>> {
    let rows: Vec<ListenerRow> = sqlx::query_as(
        "select name, permission_level, permissions_required, permissions_optional, permissions_forbidden
         from agents_of_contexts()",
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| Listener { granted: row.matrix.granted(), name: row.name }).collect())
}

/// Writes the event of a change of the transaction's user, and a delivery of it for each of these agents whose condition
/// holds, in place of those that wait and that nobody has taken up.
pub(super) async fn tell(
    tx: &mut TenantTx,
    agents: &[String],
    facts: &Value,
    correlation: &str,
) -> Result<()> {
    sqlx::query("select user_context_event($1, $2, $3)")
        .bind(agents)
        .bind(facts)
        .bind(correlation)
        .execute(tx.connection())
        .await?;
    Ok(())
}

pub(super) async fn history(
    tx: &mut TenantTx,
    user: UserId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Version>> {
    let tenant = tx.actor().tenant;
    Ok(sqlx::query_as(
        "select version, context_data, changed_parts, changed_by, created_at from user_context_history
         where tenant_id = $1 and user_id = $2 and ($3::bigint is null or version < $3)
         order by version desc limit $4",
    )
    .bind(tenant)
    .bind(user)
    .bind(before)
    .bind(limit)
    .fetch_all(tx.connection())
    .await?)
}

pub(super) async fn newest_sign_in(engine: &PgPool, user: UserId) -> Result<Option<SignInId>> {
    Ok(sqlx::query_scalar(
        "select id from sign_ins where user_id = $1 and ended_at is null and expires_at > now() order by created_at desc limit 1",
    )
    .bind(user)
    .fetch_optional(engine)
    .await?)
}

/// Empties contexts whose users did nothing for so long: no change of it, no sign-in that began, ended or was used, and no
/// key.
pub(super) async fn forget_inactive(engine: &PgPool, days: i64, chunk: i64) -> Result<u64> {
    let done = sqlx::query(
        "with idle as (
           select c.tenant_id, c.user_id from user_contexts c
           where c.context_data <> '{}' and c.updated_at < now() - make_interval(days => $1::integer)
             and not exists (select from authentication_events e where e.tenant_id = c.tenant_id and e.user_id = c.user_id
                             and e.created_at > now() - make_interval(days => $1::integer))
             and not exists (select from sign_ins s where s.user_id = c.user_id and s.ended_at is null
                             and s.last_used_at > now() - make_interval(days => $1::integer))
             and not exists (select from api_keys k where k.tenant_id = c.tenant_id and k.user_id = c.user_id
                             and k.last_used_at > now() - make_interval(days => $1::integer))
           order by c.tenant_id, c.user_id limit $2 for update of c skip locked
         ), emptied as (
           update user_contexts c set context_data = '{}', version = c.version + 1, updated_at = now()
           from idle i where c.tenant_id = i.tenant_id and c.user_id = i.user_id
           returning c.tenant_id, c.user_id, c.version
         ), forgotten as (
           delete from user_context_history h using idle i where h.tenant_id = i.tenant_id and h.user_id = i.user_id
         )
         insert into user_context_history (tenant_id, user_id, version, context_data, changed_parts, changed_by)
         select tenant_id, user_id, version, '{}', '{}', 'system' from emptied",
    )
    .bind(days)
    .bind(chunk)
    .execute(engine)
    .await?;
    Ok(done.rows_affected())
}
