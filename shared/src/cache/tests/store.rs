//! What the tests look at past every policy, and what a role must not.

use sqlx::PgPool;

/// Content and hits of all answers, and whether the hash is the content's.
pub(super) async fn answers(admin: &PgPool) -> Vec<(String, i64, bool)> {
    sqlx::query_as(
        "select content, hit_count, content_hash = encode(sha256(convert_to(content, 'UTF8')), 'hex') from agent_cache",
    )
    .fetch_all(admin)
    .await
    .unwrap()
}

/// Hits and misses that were counted.
pub(super) async fn counted(admin: &PgPool) -> (i64, i64) {
    sqlx::query_as("select hits, misses from agent_cache_days").fetch_one(admin).await.unwrap()
}

/// Whether this role may read answers.
pub(super) async fn may_read(pool: &PgPool) -> bool {
    sqlx::query("select content from agent_cache").fetch_all(pool).await.is_ok()
}
