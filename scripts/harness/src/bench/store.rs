//! SQL of the measurements, as superuser: statistics of the server, sizes of tables.

use std::{str::FromStr, time::Duration};

use anyhow::Result;
use shared::ids::{TenantId, TurnId, UserId};
use sqlx::{
    AssertSqlSafe, Connection as _, FromRow, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub(super) async fn connect(url: &str) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(url)?.application_name("bench");
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(10));
    Ok(pool.connect_with(options).await?)
}

/// From the server's next start on.
pub(super) async fn load_statement_statistics(admin: &PgPool) -> Result<()> {
    sqlx::query("alter system set shared_preload_libraries = 'pg_stat_statements'").execute(admin).await?;
    Ok(())
}

/// Any setting of the server.
pub(super) async fn change_setting(admin: &PgPool, name: &str, value: &str) -> Result<()> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
        anyhow::bail!("{name} is not the name of a setting");
    }
    let value = value.replace('\'', "''");
    sqlx::query(AssertSqlSafe(format!("alter system set {name} = '{value}'"))).execute(admin).await?;
    Ok(())
}

/// Counting statements costs a little, so it is off where time is measured.
pub(super) async fn track_statements(admin: &PgPool, on: bool) -> Result<()> {
    sqlx::query("create extension if not exists pg_stat_statements").execute(admin).await?;
    let setting = if on {
        "alter system set pg_stat_statements.track = 'top'"
    } else {
        "alter system set pg_stat_statements.track = 'none'"
    };
    sqlx::query(setting).execute(admin).await?;
    sqlx::query("alter system set pg_stat_statements.track_planning = on").execute(admin).await?;
    sqlx::query("select pg_reload_conf()").execute(admin).await?;
    sqlx::query("select pg_stat_statements_reset()").execute(admin).await?;
    Ok(())
}

pub(super) async fn make_floor_database(admin: &PgPool) -> Result<()> {
    sqlx::query("create database floor").execute(admin).await?;
    Ok(())
}

/// Lets the planner count the rows of all tables.
pub(super) async fn analyze(admin: &PgPool) -> Result<()> {
    sqlx::query("analyze").execute(admin).await?;
    Ok(())
}

pub(super) async fn version(admin: &PgPool) -> Result<String> {
    Ok(sqlx::query_scalar(
        "select current_setting('server_version') || ', shared_buffers ' || current_setting('shared_buffers')
                || ', fsync ' || current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')",
    )
    .fetch_one(admin)
    .await?)
}

pub(super) async fn backend(admin: &PgPool) -> Result<i32> {
    Ok(sqlx::query_scalar("select pg_backend_pid()").fetch_one(admin).await?)
}

/// Bytes of the write-ahead log so far.
pub(super) async fn wal_position(admin: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint").fetch_one(admin).await?)
}

/// A statement of the product, summed over its users.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Statement {
    pub(super) role: String,
    pub(super) text: String,
    pub(super) calls: i64,
    /// Milliseconds in the executor.
    pub(super) total_ms: f64,
    /// Milliseconds in the planner.
    pub(super) plan_ms: f64,
    pub(super) wal_bytes: i64,
}

/// All statements of the product's database since the last reset, but the measurement's own; the dearest first.
pub(super) async fn statements(admin: &PgPool) -> Result<Vec<Statement>> {
    Ok(sqlx::query_as(
        "select r.rolname::text as role, s.query as text, s.calls, s.total_exec_time as total_ms, s.total_plan_time as plan_ms, s.wal_bytes::bigint as wal_bytes
         from pg_stat_statements s join pg_roles r on r.oid = s.userid join pg_database d on d.oid = s.dbid
         where r.rolname <> 'postgres' and d.datname = current_database()
         order by s.total_exec_time + s.total_plan_time desc",
    )
    .fetch_all(admin)
    .await?)
}

pub(super) async fn reset_statements(admin: &PgPool) -> Result<()> {
    sqlx::query("select pg_stat_statements_reset()").execute(admin).await?;
    Ok(())
}

/// Tables with their indexes and what is stored beside them; partitions count as their parent.
pub(super) async fn sizes(admin: &PgPool) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(
        "select n.nspname || '.' || coalesce(p.relname, c.relname) as name, sum(pg_total_relation_size(c.oid))::bigint
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_inherits i on i.inhrelid = c.oid left join pg_class p on p.oid = i.inhparent and p.relname <> 'items'
         where c.relkind = 'r' and n.nspname in ('public', 'apalis')
         group by 1",
    )
    .fetch_all(admin)
    .await?)
}

/// How many turns of the tenant may run at once.
pub(super) async fn resize_slots(admin: &PgPool, tenant: TenantId, slots: i64) -> Result<()> {
    sqlx::query("select tenant_slots_resize($1, $2)").bind(tenant).bind(slots).execute(admin).await?;
    Ok(())
}

pub(super) async fn running_turns(admin: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from turns where state = 'running'").fetch_one(admin).await?)
}

/// When each event of these turns was written, in microseconds since 1970, by the turn's position.
pub(super) async fn event_times(admin: &PgPool, turns: &[TurnId]) -> Result<Vec<(i64, i64, i64, String)>> {
    let turns: Vec<uuid::Uuid> = turns.iter().map(|turn| turn.0).collect();
    Ok(sqlx::query_as(
        "select w.n, e.seq, (extract(epoch from e.at) * 1000000)::bigint, e.kind
         from unnest($1::uuid[]) with ordinality w(id, n) join turn_events e on e.turn_id = w.id",
    )
    .bind(turns)
    .fetch_all(admin)
    .await?)
}

/// Reads a user's newest tasks over a connection of its own, as superuser: what a list over MCP cannot do without.
pub(super) struct FloorList {
    connection: PgConnection,
    tenant: TenantId,
    user: UserId,
}

impl FloorList {
    pub(super) async fn open(admin: &PgPool) -> Result<Self> {
        let (tenant, user) =
            sqlx::query_as("select tenant_id, user_id from items where kind = 'task' limit 1")
                .fetch_one(admin)
                .await?;
        let connection = PgConnection::connect_with(&admin.connect_options()).await?;
        Ok(Self { connection, tenant, user })
    }

    pub(super) async fn read(&mut self, most: i64) -> Result<()> {
        let rows = sqlx::query(
            "select uid, id, version, created_at, updated_at, deleted_at, payload from items
             where tenant_id = $1 and kind = 'task' and user_id = $2 and deleted_at is null and not archived
             order by uid desc limit $3",
        )
        .bind(self.tenant)
        .bind(self.user)
        .bind(most)
        .fetch_all(&mut self.connection)
        .await?;
        anyhow::ensure!(!rows.is_empty(), "the floor found no tasks");
        Ok(())
    }
}

/// The short id of a task of whoever has the most recent one.
pub(super) async fn a_task(admin: &PgPool) -> Result<i64> {
    let newest = "select id from items where kind = 'task' and deleted_at is null order by uid desc limit 1";
    Ok(sqlx::query_scalar(newest).fetch_one(admin).await?)
}

/// Items of 40 words each, in the default tenant or in another one, made from its number. Without triggers: nobody
/// follows, and words are indexed in one go afterwards.
pub(super) async fn seed_items(admin: &PgPool, tenant: Option<i32>, users: i32, items: i64) -> Result<()> {
    let mut tx = admin.begin().await?;
    sqlx::query("set local session_replication_role = replica").execute(&mut *tx).await?;
    sqlx::query(
        "insert into items (tenant_id, kind, uid, id, user_id, payload, status, created_at)
         select coalesce(('00000000-0000-7000-8000-0000000001' || lpad($1::text, 2, '0'))::uuid, (select min(tenant_id::text)::uuid from api_keys)),
                (array['note', 'task', 'chat_message'])[1 + n % 3],
                (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - ($3 - n) * 1000), 12, '0') || '7' || substr(md5(n::text || coalesce($1, -1)::text), 1, 19))::uuid,
                1000000 + n, ('00000000-0000-7000-8000-' || lpad((n % $2)::text, 12, '0'))::uuid,
                jsonb_build_object('title', 'item ' || n, 'content', w.words),
                case n % 3 when 1 then 'todo' end, now() - ($3 - n) * interval '1 second'
         from generate_series(1, $3) n
         cross join lateral (
           select string_agg(word, ' ') as words
           from (select 'w' || floor(20000 * power(random(), 3) + 0 * n)::bigint as word from generate_series(1, 40)) x
         ) w",
    )
    .bind(tenant)
    .bind(users)
    .bind(items)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// The words of all items, the index made anew behind them, and statistics.
pub(super) async fn index_items(admin: &PgPool) -> Result<()> {
    sqlx::raw_sql(
        "truncate search_documents;
         drop index search_documents_words;
         insert into search_documents (tenant_id, uid, kind, user_id, status, archived, words)
         select tenant_id, uid, kind, user_id, status, archived, item_words(payload) from items where deleted_at is null order by uid;
         create index search_documents_words on search_documents using gin (tenant_id, user_id, words)
           with (fastupdate = on, gin_pending_list_limit = 1024);",
    )
    .execute(admin)
    .await?;
    for table in ["search_documents", "items"] {
        sqlx::query(AssertSqlSafe(format!("vacuum analyze {table}"))).execute(admin).await?;
    }
    Ok(())
}
