//! Faults, as the superuser.

use sqlx::PgPool;

/// Ends the listening connections of this database; answers how many there were.
pub(crate) async fn terminate_listeners(admin: &PgPool) -> usize {
    let ended: Vec<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and query like 'LISTEN%'",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    ended.len()
}

/// Ends the connections of the pools of this database.
pub(crate) async fn terminate_others(admin: &PgPool) {
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and application_name = 'test' and query not like 'LISTEN%'",
    )
    .execute(admin)
    .await
    .unwrap();
}
