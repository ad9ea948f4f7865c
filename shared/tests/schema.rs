//! The schema, read from the catalogue: what keeps tenants apart, and that every migration can be undone.
#![expect(clippy::unwrap_used, reason = "tests")]

use shared::{db, testing::TestDb};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// Tables that hold no tenant's data: people, processes, and sqlx's history.
const NOT_OF_A_TENANT: &[&str] = &["users", "workers", "_sqlx_migrations"];
/// Unique keys that do not begin with the tenant: tenants themselves, and a hash that is looked up before the tenant is
/// known.
const KEYS_WITHOUT_TENANT: &[&str] = &["tenants_pkey", "api_keys_hash_key"];

async fn names(pool: &PgPool, query: &'static str, but: &[&str]) -> Vec<String> {
    sqlx::query_scalar(query).bind(but).fetch_all(pool).await.unwrap()
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[tokio::test]
async fn every_table_of_tenant_data_is_under_forced_row_level_security() {
    let test_db = TestDb::new().await;
    let admin = test_db.admin();
    let unprotected = names(
        &admin,
        "select relname::text from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
           and not (relrowsecurity and relforcerowsecurity) and relname <> all($1) order by 1",
        NOT_OF_A_TENANT,
    )
    .await;
    assert_none(&unprotected, "row-level security is not enabled and forced");
    let without_tenant = names(
        &admin,
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname <> all($1 || '{tenants}')
           and not exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnotnull)
         order by 1",
        NOT_OF_A_TENANT,
    )
    .await;
    assert_none(&without_tenant, "there is no tenant_id");
}

#[tokio::test]
async fn every_unique_and_foreign_key_of_tenant_data_begins_with_the_tenant() {
    let test_db = TestDb::new().await;
    let admin = test_db.admin();
    let unique = names(
        &admin,
        "select i.relname::text from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
         left join pg_attribute a on a.attrelid = t.oid and a.attnum = x.indkey[0]
         where t.relnamespace = 'public'::regnamespace and x.indisunique
           and a.attname is distinct from 'tenant_id' and i.relname <> all($1)
           and t.relname not in ('users', 'workers', '_sqlx_migrations')
         order by 1",
        KEYS_WITHOUT_TENANT,
    )
    .await;
    assert_none(&unique, "a unique key without the tenant tells of others' rows");
    let foreign = names(
        &admin,
        "select c.conname::text from pg_constraint c
         join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
         where c.contype = 'f' and c.connamespace = 'public'::regnamespace and a.attname <> 'tenant_id'
           and c.confrelid <> all(array['users'::regclass, 'tenants'::regclass]) and c.conname <> all($1)
         order by 1",
        &[],
    )
    .await;
    assert_none(&foreign, "a foreign key ignores policies, so it must begin with the tenant");
}

#[tokio::test]
async fn nobody_has_rights_on_a_partition_and_the_engine_has_none_on_items() {
    let test_db = TestDb::new().await;
    let admin = test_db.admin();
    let grants =
        "select c.relname || ' to ' || g.grantee::regrole::text from pg_class c, aclexplode(c.relacl) g
         where c.relnamespace = 'public'::regnamespace and g.grantee <> c.relowner and c.relispartition
           and c.relname <> all($1) order by 1";
    assert_none(&names(&admin, grants, &[]).await, "a partition does not inherit its parent's policies");
    let items = "select privilege_type::text from information_schema.role_table_grants
         where table_name = 'items' and grantee in ('alfred_engine', 'PUBLIC') and privilege_type <> all($1)";
    assert_none(&names(&admin, items, &[]).await, "rights on items");
    let bypassing = "select rolname::text from pg_roles
         where rolname in ('alfred_app', 'alfred_engine', 'alfred_owner') and (rolsuper or rolbypassrls) and rolname <> all($1)";
    assert_none(&names(&admin, bypassing, &[]).await, "these roles ignore row-level security");
}

#[tokio::test]
async fn definer_functions_fix_their_search_path_and_are_not_for_everybody() {
    let test_db = TestDb::new().await;
    let admin = test_db.admin();
    let broken = names(
        &admin,
        "select p.proname::text from pg_proc p
         where p.pronamespace = 'public'::regnamespace and p.prosecdef and p.proname <> all($1)
           and (not exists (select 1 from unnest(p.proconfig) setting where setting like 'search_path=%')
                or p.proacl is null or exists (select 1 from aclexplode(p.proacl) g where g.grantee = 0))
         order by 1",
        &[],
    )
    .await;
    assert_none(&broken, "a definer function needs a fixed search_path and no grant to public");
}

#[tokio::test]
async fn apalis_rings_no_bell_of_its_own() {
    let test_db = TestDb::new().await;
    let enabled: Vec<String> = names(
        &test_db.admin(),
        "select tgname::text from pg_trigger
         where tgrelid = 'apalis.jobs'::regclass and not tgisinternal and tgenabled <> 'D' and tgname <> all($1)",
        &[],
    )
    .await;
    assert_none(&enabled, "a trigger that notifies in the posting transaction serialises its commits");
}

#[tokio::test]
async fn every_migration_can_be_undone_and_run_again() {
    let test_db = TestDb::new().await;
    let owner = PgPoolOptions::new().max_connections(2).connect(&test_db.owner_url).await.unwrap();
    let tables = "select relname::text from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and relname <> all($1)";
    let functions = "select p.proname::text from pg_proc p
         where p.pronamespace = 'public'::regnamespace and pg_get_userbyid(p.proowner) like 'alfred%'
           and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e') and p.proname <> all($1)";
    let before = names(&owner, tables, &["_sqlx_migrations"]).await.len();
    db::MIGRATIONS.undo(&owner, 0).await.unwrap();
    assert_none(&names(&owner, tables, &["_sqlx_migrations"]).await, "tables that were left behind");
    assert_none(&names(&owner, functions, &[]).await, "functions that were left behind");
    db::MIGRATIONS.run(&owner).await.unwrap();
    assert_eq!(names(&owner, tables, &["_sqlx_migrations"]).await.len(), before);
    owner.close().await;
}
