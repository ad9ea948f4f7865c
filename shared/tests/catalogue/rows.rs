//! Row-level security of every table, by trying: one row of somebody's is put into each, and others read, change, delete
//! and forge it with statements that have no filter at all. A table that a migration adds is tried with the others.

use std::fmt::Write as _;

use shared::testing::TestDb;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

/// What any member of the tenant sees of it, beside rows of their own.
const SEEN_BY_MEMBERS: &[(&str, &str)] = &[
    ("change_feeds", "how far the tenant's feed goes: numbers"),
    ("mcp_server_health", "whether the servers that a turn may use answer"),
    ("mcp_servers", "which servers a turn may use; the sealed bearer is opened by the vault alone"),
    ("mcp_tool_changes", "which tools are held back, so that a turn does not offer them"),
    ("mcp_tools", "which definitions were approved"),
    ("oauth_registrations", "what the tenant's flows identify themselves with; secrets are sealed"),
    ("tenant_slots", "numbers of places for running turns"),
    ("tool_policies", "which tools run, ask or are denied"),
];

/// What any member may change or delete in it.
const CHANGED_BY_MEMBERS: &[(&str, &str)] = &[
    ("mcp_tool_changes", "a member's turn notes that a server's tool changed; only an admin accepts it"),
    ("oauth_registrations", "the first member to connect registers the tenant as a client"),
    ("tenant_slots", "a member's turn takes a place"),
];

/// A member of the tenant with the least role, an admin of another, and a connection that never said who it is.
struct Actors {
    tenant: Uuid,
    ann: Uuid,
}

impl Actors {
    fn member(&self) -> String {
        Self::settings(self.tenant, "member")
    }

    fn stranger() -> String {
        Self::settings(Uuid::now_v7(), "admin")
    }

    fn settings(tenant: Uuid, role: &str) -> String {
        let user = Uuid::now_v7();
        format!(
            "set local app.tenant_id = '{tenant}'; set local app.user_id = '{user}'; set local app.role = '{role}'"
        )
    }
}

struct Table {
    name: String,
    /// Puts one row of Ann's into it.
    insert: String,
}

/// Every table with a tenant that the app has any right on.
async fn tables(admin: &mut PgConnection, actors: &Actors) -> Vec<Table> {
    let rows = sqlx::query(
        "select c.relname::text, array_agg(a.attname::text order by a.attnum), array_agg(format_type(a.atttypid, null) order by a.attnum)
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and a.attgenerated = '' and a.attidentity = ''
           and exists (select 1 from pg_attribute t where t.attrelid = c.oid and t.attname = 'tenant_id')
           and (has_table_privilege('alfred_app', c.oid, 'select, insert, update, delete') or has_any_column_privilege('alfred_app', c.oid, 'select, insert, update'))
         group by c.oid, c.relname order by 1",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    rows.into_iter()
        .map(|row| {
            let (name, columns, types): (String, Vec<String>, Vec<String>) =
                (row.get(0), row.get(1), row.get(2));
            let values: Vec<String> =
                columns.iter().zip(&types).map(|(column, kind)| actors.value(column, kind)).collect();
            let insert =
                format!("insert into {name} ({}) values ({})", columns.join(", "), values.join(", "));
            Table { name, insert }
        })
        .collect()
}

impl Actors {
    /// Something of the column's type. Constraints are off: what a policy does not ask for may be anything.
    fn value(&self, column: &str, kind: &str) -> String {
        match (column, kind) {
            ("tenant_id", _) => format!("'{}'", self.tenant),
            ("user_id" | "owner_id", _) => format!("'{}'", self.ann),
            (_, "uuid") => "uuid_v7()".to_owned(),
            // A kind of item, so that there is a partition for the row.
            ("kind", _) => "'note'".to_owned(),
            ("scope", "text") => "'user'".to_owned(),
            (_, "text" | "character varying") => "'x'".to_owned(),
            (_, "jsonb") => "'{}'".to_owned(),
            (_, "boolean") => "false".to_owned(),
            (_, "bigint" | "integer" | "smallint" | "numeric" | "real" | "double precision") => {
                "1".to_owned()
            }
            (_, "timestamp with time zone") => "now()".to_owned(),
            (_, "date") => "current_date".to_owned(),
            (_, "xid8") => "pg_current_xact_id()".to_owned(),
            (_, "bytea" | "tsvector") => "''".to_owned(),
            (_, kind) if kind.ends_with("[]") => "'{}'".to_owned(),
            (column, kind) => panic!("say here what a {kind} is made of, for {column}"),
        }
    }
}

/// One row of Ann's in every table.
async fn filled(db: &TestDb, actors: &Actors) -> Vec<Table> {
    let pool = db.admin();
    let mut admin = pool.acquire().await.unwrap();
    let checks: Vec<(String, String)> = sqlx::query_as(
        "select conrelid::regclass::text, quote_ident(conname) from pg_constraint k join pg_class c on c.oid = k.conrelid
         where contype = 'c' and conislocal and c.relnamespace = 'public'::regnamespace and not c.relispartition",
    )
    .fetch_all(&mut *admin)
    .await
    .unwrap();
    // Without foreign keys and triggers.
    let mut prepare = "set session_replication_role = replica;".to_owned();
    for (table, check) in checks {
        write!(prepare, "alter table {table} drop constraint {check};").unwrap();
    }
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *admin).await.unwrap();
    let tables = tables(&mut admin, actors).await;
    for table in &tables {
        let done = sqlx::raw_sql(AssertSqlSafe(table.insert.as_str())).execute(&mut *admin).await;
        assert_eq!(done.unwrap_or_else(|error| panic!("{}: {error}", table.insert)).rows_affected(), 1);
    }
    tables
}

/// What a statement reached: rows, or nothing because Postgres refused it.
async fn reached(db: &TestDb, settings: &str, statement: &str) -> u64 {
    let mut tx = db.app.begin().await.unwrap();
    if !settings.is_empty() {
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await.unwrap();
    }
    match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await {
        Ok(done) => done.rows_affected(),
        // insufficient_privilege: a missing grant, or a policy.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => 0,
        Err(error) => panic!("{statement}: {error}"),
    }
}

fn forms(table: &str) -> [(&'static str, String); 3] {
    [
        ("seen", format!("select 1 from {table}")),
        ("changed", format!("update {table} set tenant_id = tenant_id")),
        ("deleted", format!("delete from {table}")),
    ]
}

#[tokio::test]
async fn no_statement_reaches_a_row_of_another_tenant() {
    let db = TestDb::new().await;
    let actors = Actors { tenant: Uuid::now_v7(), ann: Uuid::now_v7() };
    let tables = filled(&db, &actors).await;
    assert!(tables.len() > 30, "{}", tables.len());
    let mut broken = Vec::new();
    for settings in [Actors::stranger(), String::new()] {
        for table in &tables {
            for (how, statement) in forms(&table.name) {
                if reached(&db, &settings, &statement).await != 0 {
                    broken.push(format!("{} is {how} with: {settings}", table.name));
                }
            }
            if reached(&db, &settings, &table.insert).await != 0 {
                broken.push(format!("{} is forged with: {settings}", table.name));
            }
        }
    }
    super::assert_none(&broken, "row-level security alone lets these through");
}

#[tokio::test]
async fn members_reach_only_what_is_meant_for_all_of_them() {
    let db = TestDb::new().await;
    let actors = Actors { tenant: Uuid::now_v7(), ann: Uuid::now_v7() };
    let tables = filled(&db, &actors).await;
    let (mut seen, mut changed) = (Vec::new(), Vec::new());
    for table in &tables {
        for (how, statement) in forms(&table.name) {
            if reached(&db, &actors.member(), &statement).await != 0 {
                if how == "seen" { &mut seen } else { &mut changed }.push(table.name.as_str());
            }
        }
    }
    changed.dedup();
    let named = |list: &'static [(&str, &str)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(seen, named(SEEN_BY_MEMBERS));
    assert_eq!(changed, named(CHANGED_BY_MEMBERS));
}
