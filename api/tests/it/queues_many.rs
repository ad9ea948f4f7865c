//! Lists of a few jobs among very many: what they are asked by has an index, and Postgres uses it.

use serde_json::Value;
use shared::config::DEFAULT_TENANT;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    app::{ADMIN, TestApp},
    tenants::{OPERATOR, start},
};

/// Of each queue 20 000 jobs that went well, and a few that did not, older ones.
async fn fill(app: &TestApp) {
    let tenant = DEFAULT_TENANT;
    let fill = format!(
        "set session_replication_role = replica;
         create function pg_temp.id(n bigint) returns uuid language sql
           as $$ select ('0198c0de-' || lpad(to_hex(n / 4096), 4, '0') || '-7' || lpad(to_hex(n % 4096), 3, '0') || '-8000-000000000000')::uuid $$;
         insert into turns (tenant_id, id, conversation_id, session_id, user_id, turn_no, state, request_id, finished_at)
           select '{tenant}', pg_temp.id(n), n, pg_temp.id(n), pg_temp.id(n), 1,
                  case when n <= 3 then 'cancelled' when n <= 6 then 'waiting' else 'succeeded' end, 'r',
                  case when n <= 3 or n > 6 then now() end
           from generate_series(1, 20000) n;
         insert into agent_notification_events (tenant_id, id, event_id, target_agent, user_id, event_type, status, processed_at)
           select '{tenant}', pg_temp.id(n), pg_temp.id(n), 'risk', pg_temp.id(n), 'user_login',
                  case when n <= 3 then 'failed' else 'delivered' end, now()
           from generate_series(1, 20000) n;
         insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at)
           select '01K' || lpad(n::text, 10, '0') || repeat('0', 13), 'maintenance',
                  convert_to(case when n % 5000 = 2 then '{{\"tenant\": \"{tenant}\"}}' else '{{\"task\": \"search\"}}' end, 'UTF8'),
                  case when n <= 3 then 'Killed' else 'Done' end, 1, 1, now(), now()
           from generate_series(1, 20000) n;
         analyze turns; analyze agent_notification_events; analyze apalis.jobs;
         -- From now on every plan is a parallel one that may be.
         do $$ begin
           execute format('alter database %I set parallel_setup_cost = 0', current_database());
           execute format('alter database %I set parallel_tuple_cost = 0', current_database());
           execute format('alter database %I set min_parallel_table_scan_size = 0', current_database());
           execute format('alter database %I set min_parallel_index_scan_size = 0', current_database());
         end $$;"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&app.db.admin()).await.unwrap();
}

/// How Postgres would find a page.
async fn plan(admin: &PgPool, view: &str, condition: &str) -> String {
    let explain = format!("explain select * from {view} j where {condition} order by j.id desc limit 100");
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_all(admin)
        .await
        .unwrap_or_else(|error| panic!("{condition}: {error}"));
    lines.join("\n")
}

#[tokio::test]
async fn a_list_of_few_jobs_does_not_read_the_many() {
    let first = start(|_| ()).await;
    fill(&first).await;
    // A process whose connections know what was set.
    let app = first.beside(|_| ()).await;
    for (queue, status, of_operator, of_admin) in [
        ("chat-turns", "cancelled", 3, 3),
        ("chat-turns", "queued", 3, 3),
        ("chat-turns", "failed", 0, 0),
        ("chat-turns", "succeeded", 100, 100),
        ("agent-deliveries", "dead", 3, 3),
        ("agent-deliveries", "queued", 0, 0),
        ("agent-deliveries", "succeeded", 100, 100),
        ("maintenance", "failed", 3, 1),
        ("maintenance", "cancelled", 0, 0),
        ("maintenance", "succeeded", 100, 3),
    ] {
        for (key, wanted) in [(OPERATOR, of_operator), (ADMIN, of_admin)] {
            let page = app.get(key, &format!("/admin/queues/{queue}/jobs?status={status}&limit=100")).await;
            assert_eq!(page.status, 200, "{queue} {status} {key}: {page:?}");
            let found = page.json()["items"].as_array().map(Vec::len);
            assert_eq!(found, Some(wanted), "{queue} {status} {key}");
        }
    }
    let newest: Value = app.get(OPERATOR, "/admin/queues/maintenance/jobs?limit=1").await.json();
    assert_eq!(newest["items"][0]["kind"], "search", "{newest}");
    app.running.stop().await;

    let admin = first.db.admin();
    // What the figures of the queues are made of.
    let ended = "explain select count(*) from queue_jobs where finished_at > now() + interval '1 hour'";
    let ended: Vec<String> = sqlx::query_scalar(ended).fetch_all(&admin).await.unwrap();
    assert!(!ended.join("\n").contains("Seq Scan"), "{}", ended.join("\n"));
    let tenant = format!("j.tenant_id = '{DEFAULT_TENANT}'");
    for (view, condition, index) in [
        ("queue_turns", format!("{tenant} and (j.state = 'cancelled')"), "turns_not_well"),
        (
            "queue_turns",
            format!("{tenant} and (j.state = 'queued' or j.state = 'waiting' or j.state = 'ready')"),
            "turns_waiting",
        ),
        ("queue_turns", tenant.clone(), "turns_pkey"),
        ("queue_deliveries", tenant.clone(), "agent_notification_events_pkey"),
        ("queue_deliveries", format!("{tenant} and (j.state = 'failed')"), "agent_notification_events_dead"),
        ("queue_tickets", "j.queue = 'maintenance'".to_owned(), "alfred_jobs_shown"),
        (
            "queue_tickets",
            "j.queue = 'maintenance' and (j.state = 'Failed' or j.state = 'Killed')".to_owned(),
            "alfred_jobs_not_done",
        ),
        ("queue_tickets", format!("{tenant} and j.queue = 'maintenance'"), "alfred_jobs_of_tenants"),
    ] {
        let plan = plan(&admin, view, &condition).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{view} where {condition}:\n{plan}");
    }
}
