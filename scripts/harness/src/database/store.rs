//! SQL of the harness: looking at a stack's database from beside it, and breaking its connections.

use shared::ids::{TenantId, TurnId};
use sqlx::{AssertSqlSafe, FromRow, PgPool};
use uuid::Uuid;

/// What a test wants to know of a turn while it runs.
#[derive(Debug, Clone, FromRow)]
pub struct TurnState {
    pub state: String,
    pub attempts: i64,
    pub takeovers: i64,
    pub takeovers_total: i64,
    pub process_id: Option<Uuid>,
    /// The pid of the process that runs it.
    pub pid: Option<i64>,
    /// The largest event id, 0 when there is none.
    pub last_seq: i64,
    /// How many events of the kind token there are.
    pub tokens: i64,
}

/// A connection to the database.
#[derive(Debug, Clone, FromRow)]
pub struct Backend {
    pub pid: i32,
    pub application: String,
    pub query: String,
    pub state: String,
}

pub(super) async fn turn(admin: &PgPool, id: TurnId) -> Result<TurnState, sqlx::Error> {
    sqlx::query_as(
        "select state, attempts, takeovers, takeovers_total, process_id,
                (select pid from workers where workers.id = turns.process_id) as pid,
                coalesce((select max(seq) from turn_events e where e.turn_id = turns.id), 0) as last_seq,
                (select count(*) from turn_events e where e.turn_id = turns.id and kind = 'token') as tokens
         from turns where id = $1",
    )
    .bind(id)
    .fetch_one(admin)
    .await
}

pub(super) async fn backends(admin: &PgPool) -> Result<Vec<Backend>, sqlx::Error> {
    sqlx::query_as(
        "select pid, coalesce(application_name, '') as application, coalesce(query, '') as query,
                coalesce(state, '') as state
         from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    )
    .fetch_all(admin)
    .await
}

pub(super) async fn cut_listeners(admin: &PgPool) -> Result<u64, sqlx::Error> {
    // A connection that listens never runs anything else.
    let done = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and query ilike 'listen %'",
    )
    .execute(admin)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn cut_everybody(admin: &PgPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and usename is not null and pid <> pg_backend_pid()",
    )
    .execute(admin)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn set_policy(
    admin: &PgPool,
    tenant: TenantId,
    tool: &str,
    policy: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into tool_policies (tenant_id, tool, policy) values ($1, $2, $3)
         on conflict (tenant_id, tool) do update set policy = excluded.policy",
    )
    .bind(tenant)
    .bind(tool)
    .bind(policy)
    .execute(admin)
    .await?;
    Ok(())
}

pub(super) async fn number_of(admin: &PgPool, user: shared::ids::UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select number from users where id = $1").bind(user).fetch_one(admin).await
}

pub(super) async fn age(admin: &PgPool, id: TurnId, hours: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update turns set created_at = created_at - make_interval(hours => $2::int),
                started_at = started_at - make_interval(hours => $2::int),
                finished_at = finished_at - make_interval(hours => $2::int)
         where id = $1",
    )
    .bind(id)
    .bind(hours)
    .execute(admin)
    .await?;
    Ok(())
}

pub(super) async fn count(admin: &PgPool, table: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(admin).await
}
