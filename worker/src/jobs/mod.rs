//! What tickets have done. Maintenance: partitions, retention [Q4], done tickets, header secrets, what deleted tenants leave
//! behind, and a look at other people's servers. Everything is deleted in chunks of well under a second, so
//! that no transaction holds up the change feed or vacuum.

pub(crate) mod compaction;
pub(crate) mod deliveries;
pub(crate) mod embeddings;
mod noted;
pub(crate) mod refresh;
pub(crate) mod store;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::{AbortError, BoxDynError};
use chrono::{TimeDelta, Utc};
use futures::FutureExt;
use serde_json::Value;
use shared::{
    Error, agents,
    connections::Connections,
    outbound::Outbound,
    queues,
    remote::{self, Gateway},
    tenancy::{
        audit, control,
        secrets::{self, Rotated, SecretStore},
    },
    vault::Vault,
    workspace::{changes, search},
};
use sqlx::PgPool;

/// Days ahead for which the event log has partitions.
const PARTITION_DAYS: i32 = 7;
const LIMIT: Duration = Duration::from_secs(240);
/// Rows of one deleting statement.
const CHUNK: i64 = 2000;
/// For how long the change feed can be read from a cursor.
const FEED_DAYS: i64 = 30;

/// What maintenance works with.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) engine: PgPool,
    pub(crate) vault: Vault,
    /// Sums up old turns; none where there is no model for it.
    pub(crate) compactor: Option<compaction::Compactor>,
    pub(crate) connections: Connections,
    /// Asks other people's servers how they are.
    pub(crate) gateway: Gateway,
    pub(crate) deliveries: deliveries::Deliveries,
    /// Days after which what is known of an idle user is emptied.
    pub(crate) context_inactive_days: i64,
    pub(crate) outbound: Outbound,
    /// Where new header secrets are put; without one they wait to be fetched.
    pub(crate) secret_store: Option<Arc<dyn SecretStore>>,
    /// What embeds items; without it nothing is on that list.
    pub(crate) embedding: Option<embeddings::Embedding>,
}

/// Runs a task of a schedule, and notes that it ran.
pub(crate) async fn run_scheduled(task: &str, upkeep: &Upkeep) -> Result<(), BoxDynError> {
    let started_at = Utc::now();
    let outcome = guarded(task, run(task, upkeep)).await;
    noted::note(&upkeep.engine, task, started_at, outcome.as_ref().err()).await;
    outcome
}

/// Time-outs and panics are caught in here: the queue's own layers would leave its row running for ever. A failure is in the
/// queue's row, for people who look.
pub(crate) async fn guarded(
    task: &str,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), BoxDynError> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(task, error = %error, "a task failed; its next tick tries again");
            Err(AbortError::new(error).into())
        }
        Ok(Err(_)) => Err(AbortError::new(Error::internal("the task panicked")).into()),
        Err(_) => Err(AbortError::new(Error::internal("the task took too long")).into()),
    }
}

/// Takes a compaction up; it goes on beside the queue.
pub(crate) async fn compact_guarded(ticket: Value, upkeep: &Upkeep) -> Result<(), BoxDynError> {
    let Some(compactor) = &upkeep.compactor else { return Ok(()) };
    let ticket = serde_json::from_value(ticket).map_err(AbortError::new)?;
    let work = AssertUnwindSafe(compactor.take_up(&ticket)).catch_unwind();
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = %error, "a compaction was not begun; the next long turn asks again");
            Err(AbortError::new(error).into())
        }
        Ok(Err(_)) => Err(AbortError::new(Error::internal("the task panicked")).into()),
        Err(_) => Err(AbortError::new(Error::internal("the task took too long")).into()),
    }
}

async fn run(task: &str, upkeep: &Upkeep) -> Result<(), Error> {
    let engine = &upkeep.engine;
    match task {
        "agents" => {
            // First: asking many agents that do not answer takes all the time that there is.
            let dead = upkeep.deliveries.give_up_old().await?;
            if dead > 0 {
                tracing::warn!(dead, "deliveries were given up after a day");
            }
            agents::health::check_all(engine, &upkeep.outbound).await?;
        }
        "connections" => {
            let written = refresh::write_tickets(engine).await?;
            if written > 0 {
                tracing::info!(written, "connections are due");
            }
        }
        "contexts" => {
            let (days, mut emptied) = (upkeep.context_inactive_days, 0);
            loop {
                let some = agents::contexts::forget_inactive(engine, days, CHUNK).await?;
                emptied += some;
                if some < u64::try_from(CHUNK).unwrap_or(u64::MAX) {
                    break;
                }
            }
            if emptied > 0 {
                tracing::info!(emptied, "contexts of users who were away for long were emptied");
            }
        }
        "deleted-tenants" => {
            let rows = control::erase_deleted(engine, CHUNK).await?;
            if rows > 0 {
                tracing::info!(rows, "rows of deleted tenants were erased");
            }
        }
        "deliver" => upkeep.deliveries.look(),
        shared::jobs::EMBEDDINGS => {
            if let Some(embedding) = &upkeep.embedding {
                embeddings::run(engine, embedding).await?;
            }
        }
        "header-secrets" => {
            let rotated = secrets::rotate_due(engine, &upkeep.vault, upkeep.secret_store.as_deref()).await?;
            if rotated != Rotated::default() {
                tracing::info!(
                    made = rotated.made,
                    delivered = rotated.delivered,
                    sealed_again = rotated.sealed_again,
                    "header secrets were rotated"
                );
            }
        }
        "mcp-servers" => {
            let (asked, unwell) = remote::health::check_all(engine, &upkeep.gateway).await?;
            if unwell > 0 {
                tracing::warn!(asked, unwell, "MCP servers do not answer as they should");
            }
        }
        "partitions" => {
            store::make_partitions(engine, PARTITION_DAYS).await?;
            while let Some(dropped) = store::drop_partition(engine).await? {
                tracing::info!(partition = dropped, "a day of the event log was dropped");
            }
        }
        "queue-counts" => while queues::roll_up(engine).await? {},
        "retention" => retain(engine, CHUNK).await?,
        // Searches catch up by themselves; this is for tenants where nobody searches.
        "search" => while search::catch_up(engine, CHUNK).await? >= CHUNK {},
        "tickets" => {
            delete_all(engine, &store::TICKETS, CHUNK).await?;
            delete_all(engine, &store::QUEUE_WORKERS, CHUNK).await?;
        }
        other => tracing::warn!(task = other, "there is no such maintenance task"),
    }
    Ok(())
}

/// Deletes what has had its time, chunk by chunk. What cannot be deleted must not keep all else; the first failure is told when
/// the rest is done.
async fn retain(engine: &PgPool, chunk: i64) -> Result<(), Error> {
    let mut outcome = Ok(());
    for deletion in store::DELETIONS {
        match delete_all(engine, deletion, chunk).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, what = deletion.what, "expired rows were deleted"),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    let whole_chunk = u64::try_from(chunk).unwrap_or(u64::MAX);
    while changes::forget(engine, TimeDelta::days(FEED_DAYS), chunk).await? >= whole_chunk {}
    while audit::forget_agents(engine, chunk).await? >= chunk {}
    while store::roll_up_usage(engine, chunk).await? >= whole_chunk {}
    outcome
}

/// Answers how many rows.
async fn delete_all(engine: &PgPool, deletion: &store::Deletion, chunk: i64) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let deleted = store::delete(engine, deletion, chunk).await?;
        total += deleted;
        if deleted < u64::try_from(chunk).unwrap_or(u64::MAX) {
            return Ok(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::testing::TestDb;

    use super::*;

    /// Of each sort of row one that has had its time (its text says so, or its id ends in 1) and one that has not.
    const ROWS: &str = "
      insert into tenants (id, name) values ('0198c0de-0000-7000-8000-0000000000aa', 't') on conflict do nothing;
      insert into turns (tenant_id, id, conversation_id, session_id, user_id, turn_no, state, request_id, created_at, finished_at)
        select tenant, ('0198c0de-0000-7000-8000-00000000000' || n)::uuid, 1, tenant, tenant, n, 'succeeded', 'r', at, at from old;
      insert into turn_steps (tenant_id, turn_id, step, kind, view)
        select tenant, ('0198c0de-0000-7000-8000-00000000000' || n)::uuid, 1, 'model', '{}' from old;
      insert into authentication_events (tenant_id, event_type, user_id, created_at)
        select tenant, 'user_login', tenant, case n when 1 then now() - interval '366 days' else now() - interval '364 days' end from old;
      insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, status, created_at)
        select tenant, tenant, 'a', tenant, 'user_login', 'delivered',
               case n when 1 then now() - interval '91 days' else now() - interval '89 days' end from old;
      insert into agents (tenant_id, name, endpoint) select distinct tenant, 'a', 'http://localhost' from old;
      insert into agent_health (tenant_id, agent, at, healthy, duration_ms)
        select tenant, 'a', case n when 1 then now() - interval '25 hours' else now() end, true, 1 from old;
      insert into queue_counts (tenant_id, queue, span, at, status, wait_class, run_class, jobs, wait_ms, run_ms)
        select tenant, 'q', span, case n when 1 then now() - age else now() end, 's', 0, 0, 1, 1, 1
        from old, (values ('minute', interval '26 hours'), ('day', interval '91 days')) spans (span, age);
      insert into queue_discards (tenant_id, queue, id, at, by_user)
        select tenant, 'q', gen_random_uuid(), case n when 1 then now() - interval '91 days' else now() end, tenant from old;
      insert into agent_cache_flights (tenant_id, scope, owner_id, cache_key, holder, generation, expires_at)
        select tenant, 'tenant', tenant, 'k' || n, tenant, 1, case n when 1 then now() - interval '2 minutes' else now() end from old;
      insert into idempotency_keys (tenant_id, user_id, route, key, body_hash, turn_id, created_at)
        select tenant, tenant, 'r', 'k' || n, '', tenant, case n when 1 then now() - interval '25 hours' else now() end from old;";

    async fn count(db: &TestDb, table: &str) -> i64 {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(count).fetch_one(&db.admin()).await.unwrap()
    }

    #[tokio::test]
    async fn rows_go_when_they_have_had_their_time_and_not_before() {
        let db = TestDb::new().await;
        let setup = format!(
            "set session_replication_role = replica;
             create temporary table old (n bigint, tenant uuid, at timestamptz);
             insert into old values (1, '0198c0de-0000-7000-8000-0000000000aa', now() - interval '31 days'),
                                    (2, '0198c0de-0000-7000-8000-0000000000aa', now() - interval '29 days');
             {ROWS}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&db.admin()).await.unwrap();
        let tables = [
            ("turns", 1),
            ("turn_steps", 1),
            ("authentication_events", 1),
            ("agent_notification_events", 1),
            ("agent_health", 1),
            ("queue_counts", 2),
            ("queue_discards", 1),
            ("agent_cache_flights", 1),
            ("idempotency_keys", 1),
        ];
        for (table, left) in tables {
            assert_eq!(count(&db, table).await, left * 2, "{table} before");
        }
        // A row at a time: each statement deletes no more than it is told to.
        assert_eq!(store::delete(&db.engine, &store::DELETIONS[0], 0).await.unwrap(), 0);
        retain(&db.engine, 1).await.unwrap();
        for (table, left) in tables {
            assert_eq!(count(&db, table).await, left, "{table}");
        }
    }

    #[tokio::test]
    async fn what_agents_asked_is_forgotten_and_what_people_did_is_not() {
        let db = TestDb::new().await;
        sqlx::raw_sql(
            "insert into audit_log (tenant_id, acted_as, action, at)
             select gen_random_uuid(), a.who, a.age || ' days', now() - make_interval(days => a.age)
             from (values ('agent', 91), ('agent', 91), ('agent', 400), ('agent', 89), ('admin', 400), ('operator', 400), ('system', 400)) a (who, age)",
        )
        .execute(&db.admin())
        .await
        .unwrap();
        // Neither by itself nor through the function more than what has had its time.
        let refused = sqlx::query("delete from audit_log").execute(&db.engine).await.unwrap_err();
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"));
        assert_eq!(audit::forget_agents(&db.engine, 1).await.unwrap(), 1);
        retain(&db.engine, 1).await.unwrap();
        let left: Vec<(String, String)> =
            sqlx::query_as("select acted_as, action from audit_log order by acted_as")
                .fetch_all(&db.admin())
                .await
                .unwrap();
        let left: Vec<_> = left.iter().map(|(who, age)| (who.as_str(), age.as_str())).collect();
        let old = "400 days";
        assert_eq!(left, [("admin", old), ("agent", "89 days"), ("operator", old), ("system", old)]);
    }

    #[tokio::test]
    async fn a_context_that_changes_all_the_time_keeps_its_newest_versions() {
        let db = TestDb::new().await;
        sqlx::raw_sql(
            "insert into user_contexts (tenant_id, user_id, version, updated_at)
             select gen_random_uuid(), gen_random_uuid(), v, now() from (values (1), (500), (507)) c (v);
             insert into user_context_history (tenant_id, user_id, version, context_data, changed_parts, changed_by)
             select tenant_id, user_id, n, '{}', '{}', 'user' from user_contexts, generate_series(1, version) n",
        )
        .execute(&db.admin())
        .await
        .unwrap();
        retain(&db.engine, 3).await.unwrap();
        let kept: Vec<(i64, i64)> =
            sqlx::query_as("select min(version), max(version) from user_context_history group by tenant_id order by max(version)")
                .fetch_all(&db.admin())
                .await
                .unwrap();
        assert_eq!(kept, [(1, 1), (1, 500), (8, 507)]);
    }

    #[tokio::test]
    async fn tickets_that_are_jobs_are_kept_for_people_who_look() {
        let db = TestDb::new().await;
        sqlx::raw_sql(
            "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at)
             select apalis.generate_ulid(), t.queue, '{}', t.status, 1, 1, now() - t.age, now() - t.age
             from (values ('chat-turns', 'Done', interval '1 minute'), ('chat-turns', 'Done', interval '10 seconds'),
                          ('embeddings', 'Killed', interval '1 minute'),
                          ('maintenance', 'Done', interval '49 hours'), ('maintenance', 'Done', interval '47 hours'),
                          ('maintenance', 'Killed', interval '31 days'), ('maintenance', 'Killed', interval '29 days'),
                          ('maintenance', 'Pending', interval '90 days')) t (queue, status, age)",
        )
        .execute(&db.admin())
        .await
        .unwrap();
        assert_eq!(delete_all(&db.engine, &store::TICKETS, 2).await.unwrap(), 4);
        assert_eq!(count(&db, "apalis.jobs").await, 4);
    }
}
