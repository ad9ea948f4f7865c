//! What the schema promises about tenants, read from Postgres's own catalogue: a new table, partition, key or grant that
//! breaks a promise fails here.
#![expect(clippy::unwrap_used, reason = "tests")]

mod rows;

use shared::testing::TestDb;

/// Tables that belong to no tenant: people of the deployment and how they sign in, tenants themselves, processes.
const WITHOUT_TENANT: &[&str] = &[
    "_sqlx_migrations",
    "embedding_models",
    "feature_flags",
    "oauth_clients",
    "oauth_codes",
    "outside_identities",
    "queue_clock",
    "queues",
    "redis_stream_positions",
    "schedule_runs",
    "sign_in_buckets",
    "sign_ins",
    "signing_keys",
    "tenants",
    "user_passwords",
    "users",
    "workers",
];

/// Unique keys on tenant rows that cannot start with the tenant, each with its reason.
const KEYS_WITHOUT_TENANT: &[(&str, &str)] = &[
    ("api_keys_hash_key", "looked up before the tenant is known; the hash of 256 random bits tells nothing"),
    (
        "tenant_hosts_host_key",
        "a host stands for one tenant; only operators write it, and names of hosts are public",
    ),
];

async fn names(db: &TestDb, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&db.admin()).await.unwrap()
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[tokio::test]
async fn every_table_is_a_tenants_or_listed() {
    let db = TestDb::new().await;
    let found = names(
        &db,
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and not exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnotnull)
         order by 1",
    )
    .await;
    assert_eq!(found, WITHOUT_TENANT);
}

#[tokio::test]
async fn row_level_security_is_forced_with_a_policy_for_every_role_that_may_read_or_write() {
    let db = TestDb::new().await;
    let open = names(
        &db,
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and c.relname not in ('_sqlx_migrations', 'workers')
           and not (c.relrowsecurity and c.relforcerowsecurity)",
    )
    .await;
    assert_none(&open, "row-level security is not forced on");
    let unchecked = names(
        &db,
        "select p.polname::text from pg_policy p where p.polcmd in ('*', 'a', 'w') and p.polwithcheck is null",
    )
    .await;
    assert_none(&unchecked, "these policies write without WITH CHECK");
    let leaky = names(
        &db,
        "select c.relname || '.' || p.polname from pg_policy p join pg_class c on c.oid = p.polrelid
         where 'alfred_app'::regrole = any(p.polroles) and c.relname not in ('users', 'tenants')
           and pg_get_expr(p.polqual, p.polrelid) not like '%(tenant_id = current_tenant())%'
           and pg_get_expr(p.polqual, p.polrelid) not like '%tenant_id = current_tenant()%'",
    )
    .await;
    assert_none(&leaky, "these policies of the app do not ask for the tenant");
    let for_everybody = names(&db, "select polname::text from pg_policy where 0 = any(polroles)").await;
    assert_none(&for_everybody, "these policies hold for every role");
}

#[tokio::test]
async fn every_tenants_table_can_be_exported_and_erased() {
    let db = TestDb::new().await;
    let missing = names(
        &db,
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
           and not exists (select 1 from pg_policy p where p.polrelid = c.oid and p.polname = 'whole_tenant')",
    )
    .await;
    assert_none(&missing, "the migration must make the policy whole_tenant, as 0095_whole_tenants does");
}

#[tokio::test]
async fn how_long_rows_are_kept_is_written_down_for_every_table() {
    let db = TestDb::new().await;
    let mut tables = names(
        &db,
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and c.relname <> '_sqlx_migrations'",
    )
    .await;
    tables.sort();
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/data-model.md");
    let document = std::fs::read_to_string(document).unwrap();
    let section = document.split("\n## Retention\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut written: Vec<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.contains("apalis") && !name.contains("---"))
        .collect();
    written.sort();
    assert_eq!(written, tables, "docs/data-model.md, Retention");
}

#[tokio::test]
async fn partitions_grant_nothing_because_they_inherit_no_policy() {
    let db = TestDb::new().await;
    let granted = names(
        &db,
        "select c.relname || ' to ' || r.role from pg_class c
         cross join (values ('alfred_app'), ('alfred_engine'), ('public')) r (role)
         where c.relnamespace = 'public'::regnamespace and c.relispartition and c.relkind in ('r', 'p')
           and has_table_privilege(r.role, c.oid, 'select, insert, update, delete, truncate')",
    )
    .await;
    assert_none(&granted, "partitions must not be granted");
}

#[tokio::test]
async fn keys_on_tenant_rows_start_with_the_tenant() {
    let db = TestDb::new().await;
    let allowed: Vec<String> = KEYS_WITHOUT_TENANT.iter().map(|(name, _)| (*name).to_owned()).collect();
    let unique: Vec<String> = names(
        &db,
        "select i.relname::text from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
         join pg_attribute t on t.attrelid = c.oid and t.attname = 'tenant_id'
         where c.relnamespace = 'public'::regnamespace and not c.relispartition and x.indisunique and x.indkey[0] <> t.attnum",
    )
    .await
    .into_iter()
    .filter(|name| !allowed.contains(name))
    .collect();
    assert_none(&unique, "unique keys that do not start with tenant_id are an oracle across tenants");
    let foreign = names(
        &db,
        "select k.conname::text from pg_constraint k join pg_class c on c.oid = k.conrelid
         join pg_attribute t on t.attrelid = c.oid and t.attname = 'tenant_id'
         where k.contype = 'f' and c.relnamespace = 'public'::regnamespace and k.conkey[1] <> t.attnum order by 1",
    )
    .await;
    // Users belong to no tenant.
    assert_eq!(foreign, ["api_keys_user_id_fkey", "memberships_user_id_fkey"]);
}

#[tokio::test]
async fn the_engine_has_no_right_on_items() {
    let db = TestDb::new().await;
    let granted = names(
        &db,
        "select p.privilege from (values ('select'), ('insert'), ('update'), ('delete')) p (privilege)
         where has_table_privilege('alfred_engine', 'items', p.privilege)
            or has_any_column_privilege('alfred_engine', 'items', case when p.privilege = 'delete' then 'select' else p.privilege end)",
    )
    .await;
    assert_none(&granted, "the engine may do this to items");
}

#[tokio::test]
async fn every_sealed_column_takes_part_in_key_rotation() {
    let db = TestDb::new().await;
    let sealed = names(
        &db,
        "select c.relname || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
           and (a.attname like '%\\_enc' or a.attname like 'sealed\\_%')
         order by 1",
    )
    .await;
    let mut rotated = shared::key_rotation::columns();
    rotated.sort_unstable();
    assert_eq!(sealed, rotated, "shared::key_rotation must know every sealed column");
}

#[tokio::test]
async fn the_engine_reads_no_ciphertext_of_peoples_connections() {
    let db = TestDb::new().await;
    let granted = names(
        &db,
        "select c.relname || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relname in ('connections', 'oauth_registrations', 'oauth_flows', 'notion_connections') and a.attnum > 0
           and has_column_privilege('alfred_engine', c.oid, a.attname, 'select') and a.attname like '%\\_enc'",
    )
    .await;
    assert_none(&granted, "the engine may read");
}

#[tokio::test]
async fn definer_functions_have_a_fixed_path_and_are_not_for_everybody() {
    let db = TestDb::new().await;
    let loose = names(
        &db,
        "select p.proname::text from pg_proc p
         where p.pronamespace = 'public'::regnamespace and p.prosecdef
           and (p.proconfig is null or not exists (select 1 from unnest(p.proconfig) s where s like 'search_path=pg_catalog%')
                or has_function_privilege('public', p.oid, 'execute'))",
    )
    .await;
    assert_none(&loose, "definer functions without a fixed search_path, or open to everybody");
}

#[tokio::test]
async fn the_roles_cannot_pass_by_row_level_security() {
    let db = TestDb::new().await;
    let strong = names(
        &db,
        "select rolname::text from pg_roles where rolname in ('alfred_app', 'alfred_engine') and (rolsuper or rolbypassrls)",
    )
    .await;
    assert_none(&strong, "roles that no policy binds");
}

#[tokio::test]
async fn the_queues_own_insert_trigger_is_off() {
    let db = TestDb::new().await;
    let on = names(
        &db,
        "select tgname::text from pg_trigger where tgrelid = 'apalis.jobs'::regclass and not tgisinternal and tgenabled <> 'D'",
    )
    .await;
    assert_none(&on, "a NOTIFY in a posting transaction serialises commits");
}

#[tokio::test]
async fn without_an_actor_nothing_is_seen() {
    let db = TestDb::new().await;
    let mut tx = db.app.begin().await.unwrap();
    for table in [
        "items",
        "turns",
        "conversations",
        "user_sessions",
        "turn_events",
        "turn_steps",
        "api_keys",
        "users",
        "tenants",
    ] {
        let seen: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(seen, 0, "{table}");
    }
}
