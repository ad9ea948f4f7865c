//! Every migration has a down script that works: down to nothing and up again gives the same schema.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use shared::{db, testing::TestDb};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// Tables, columns, indexes, policies, functions and grants, one line each.
async fn schema(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select line from (
           select 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
                  || coalesce(column_default, '') as line
           from information_schema.columns where table_schema = 'public' and table_name not like 'turn_events_2%'
           union all select 'index ' || indexdef from pg_indexes where schemaname = 'public' and tablename not like 'turn_events_2%'
           union all select 'policy ' || tablename || ' ' || policyname || ' ' || cmd || ' ' || coalesce(qual, '') || ' '
                  || coalesce(with_check, '') from pg_policies where schemaname = 'public'
           union all select 'function ' || p.proname || ' ' || pg_get_userbyid(p.proowner) || ' ' || coalesce(p.proacl::text, '')
                  || md5(p.prosrc) from pg_proc p where p.pronamespace = 'public'::regnamespace
                  and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
           union all select 'grant ' || table_name || ' ' || grantee || ' ' || privilege_type
           from information_schema.role_table_grants where table_schema = 'public' and table_name not like 'turn_events_2%'
           union all select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
           from pg_constraint where connamespace = 'public'::regnamespace and conrelid <> 0
             and conrelid::regclass::text not like 'turn_events_2%'
         ) lines order by line",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn down_and_up_again_gives_the_same_schema() {
    let test = TestDb::new().await;
    let owner = PgPoolOptions::new().max_connections(2).connect(&test.owner_url).await.unwrap();
    let before = schema(&owner).await;
    db::MIGRATIONS.undo(&owner, 0).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')
           and relname <> '_sqlx_migrations'",
    )
    .fetch_all(&owner)
    .await
    .unwrap();
    assert!(left.is_empty(), "left behind: {left:?}");
    db::migrate(&owner).await.unwrap();
    assert_eq!(schema(&owner).await, before);
}

#[tokio::test]
async fn whoever_waits_to_migrate_holds_up_no_index() {
    let test = TestDb::new().await;
    let owner = PgPoolOptions::new().max_connections(4).connect(&test.owner_url).await.unwrap();
    let mut first = owner.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(7041)").execute(&mut *first).await.unwrap();
    let waiting = tokio::spawn({
        let owner = owner.clone();
        async move { db::migrate(&owner).await }
    });
    let asked = "select count(*) from pg_stat_activity where datname = current_database()
                 and query like '%advisory_lock(7041)%' and query not like '%pg_stat_activity%'";
    let (admin, deadline) = (test.admin(), tokio::time::Instant::now() + Duration::from_secs(20));
    while sqlx::query_scalar::<_, i64>(asked).fetch_one(&admin).await.unwrap() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "nobody waits to migrate");
    }
    let index = sqlx::query("create index concurrently made_meanwhile on tenants (name)").execute(&owner);
    tokio::time::timeout(Duration::from_secs(20), index).await.expect("the index waits").unwrap();
    assert!(!waiting.is_finished());
    sqlx::query("select pg_advisory_unlock(7041)").execute(&mut *first).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn migrating_twice_and_at_the_same_time_is_safe() {
    let test = TestDb::new().await;
    let owner = PgPoolOptions::new().max_connections(8).connect(&test.owner_url).await.unwrap();
    let (first, second, third) = tokio::join!(db::migrate(&owner), db::migrate(&owner), db::migrate(&owner));
    first.unwrap();
    second.unwrap();
    third.unwrap();
}
