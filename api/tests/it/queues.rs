//! The queues as operators and admins see them [Q2].

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::ids::{TenantId, TurnId};

use crate::{
    app::{ADMIN, FOREIGNER, MEMBER, TestApp, say},
    tenants::{OPERATOR, provision, start},
};

const TURNS: &str = "/admin/queues/chat-turns";

async fn queue(app: &TestApp, key: &str, name: &str) -> Value {
    let answered = app.get(key, "/admin/queues").await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let queues = answered.json()["queues"].as_array().unwrap().clone();
    queues.into_iter().find(|queue| queue["name"] == name).unwrap()
}

/// Asks until a queue is as wanted: what has not ended is measured once a second.
async fn queue_when(app: &TestApp, key: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let found = queue(app, key, name).await;
        if wanted(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "the queue stays {found:#}");
    }
}

async fn jobs(app: &TestApp, key: &str, place: &str) -> Vec<Value> {
    let answered = app.get(key, place).await;
    assert_eq!(answered.status, StatusCode::OK, "{place}: {answered:?}");
    answered.json()["items"].as_array().unwrap().clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A turn as if its attempts were used up.
async fn kill(app: &TestApp, job: &str, message: &str) {
    let error = json!({"error": "MODEL-UNAVAILABLE", "message": message, "origin": "model"});
    let done = sqlx::query(
        "update turns set state = 'dead', slot = null, error = $2, attempts = 3, started_at = created_at, finished_at = clock_timestamp()
         where id = $1",
    )
    .bind(job.parse::<TurnId>().unwrap())
    .bind(error)
    .execute(&app.db.admin())
    .await
    .unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn audited(app: &TestApp, tenant: TenantId, action: &str) -> i64 {
    sqlx::query_scalar("select count(*) from audit_log where tenant_id = $1 and action = $2")
        .bind(tenant)
        .bind(action)
        .fetch_one(&app.db.admin())
        .await
        .unwrap()
}

async fn home(app: &TestApp) -> TenantId {
    sqlx::query_scalar("select tenant_id from turns limit 1").fetch_one(&app.db.admin()).await.unwrap()
}

#[tokio::test]
async fn a_job_that_waits_says_for_what() {
    let app = start(|_| ()).await;
    let first = app.chat(MEMBER).await;
    let mut body = say("and then");
    body["session"] = first["session"].clone();
    let second = app.post(MEMBER, "/chat", &body).await.json();
    let reason = async |job: &Value| {
        let detail = app.get(ADMIN, &format!("{TURNS}/jobs/{}", text(&job["jobId"]))).await.json();
        (text(&detail["waiting"]["reason"]), detail)
    };
    let (why, detail) = reason(&second).await;
    assert_eq!((why.as_str(), &detail["waiting"]["jobId"]), ("earlier_turn", &first["jobId"]), "{detail:#}");
    assert_eq!(detail["payload"]["conversationId"], first["conversationId"]);
    assert_eq!(reason(&first).await.0, "no_worker");
    let queued = queue_when(&app, ADMIN, "chat-turns", |queue| queue["depth"] == 2).await;
    assert!(queued["oldestSeconds"].as_f64().unwrap() > 0.0, "{queued:#}");

    // The tenant's four slots.
    for _ in 0..3 {
        app.chat(MEMBER).await;
    }
    assert_eq!(reason(&app.chat(MEMBER).await).await.0, "tenant_cap");

    let paused = app.post(OPERATOR, &format!("{TURNS}/pause"), &json!({"because": "a look"})).await;
    assert_eq!(paused.json(), json!({"queue": "chat-turns", "paused": true, "changed": true}));
    let again = app.post(OPERATOR, &format!("{TURNS}/pause"), &json!({})).await;
    assert_eq!(again.json()["changed"], false);
    assert_eq!(reason(&first).await.0, "paused");
    assert_eq!(queue(&app, ADMIN, "chat-turns").await["paused"]["because"], "a look");
    let resumed =
        app.send(app.request(Method::POST, &format!("{TURNS}/resume")).header("X-API-Key", OPERATOR));
    assert_eq!(resumed.await.json()["changed"], true);
    assert_eq!(queue(&app, ADMIN, "chat-turns").await["paused"], Value::Null);

    app.execute("update turns set ready_at = clock_timestamp() + interval '1 hour' where state = 'ready'")
        .await;
    let (why, detail) = reason(&first).await;
    assert_eq!(why, "delayed");
    assert!(detail["waiting"]["at"].is_string(), "{detail:#}");
    app.execute(
        "update turns set ready_at = now() where state = 'ready'; insert into workers (id, host, pid) values (gen_random_uuid(), 'h', 1)",
    )
    .await;
    assert_eq!(reason(&first).await.0, "worker");
    let seen = app.get(OPERATOR, "/admin/queues").await.json();
    assert_eq!((seen["workers"][0]["host"].as_str(), seen["tenantId"].clone()), (Some("h"), Value::Null));
    assert!(seen["schedules"].as_array().unwrap().len() > 5, "{seen:#}");
    let tenant = home(&app).await;
    assert_eq!(
        (audited(&app, tenant, "queue.paused").await, audited(&app, tenant, "queue.resumed").await),
        (1, 1)
    );
    // An admin of a tenant stops nobody else's work, and sees no machines.
    app.post(ADMIN, &format!("{TURNS}/pause"), &json!({})).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(app.get(ADMIN, "/admin/queues").await.json()["workers"], json!([]));
    app.get(OPERATOR, "/admin/queues/nothing/jobs").await.is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn dead_turns_begin_anew_once_or_are_put_away() {
    let app = start(|_| ()).await;
    let dead: Vec<String> = {
        let mut dead = Vec::new();
        for name in ["one", "two", "three"] {
            let job = text(&app.chat(MEMBER).await["jobId"]);
            kill(&app, &job, &format!("Nobody answered number {name}")).await;
            dead.push(job);
        }
        dead
    };
    let found = jobs(&app, ADMIN, &format!("{TURNS}/jobs?status=dead&error=NUMBER%20t")).await;
    assert_eq!(found.iter().map(|job| text(&job["id"])).collect::<Vec<_>>(), [&*dead[2], &*dead[1]]);
    assert_eq!(found[0]["error"]["code"], "MODEL-UNAVAILABLE");

    let retry = |id: &str| format!("{TURNS}/jobs/{id}/retry");
    let made = app.send_json(ADMIN, Method::POST, &retry(&dead[0]), &json!({})).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    let new = text(&made.json()["newJobId"]);
    assert_eq!(app.get(MEMBER, &format!("/jobs/{new}")).await.json()["retryOf"], dead[0]);
    app.post(ADMIN, &retry(&dead[0]), &json!({})).await.is_error(409, "APP-409-CONFLICT");
    app.post(ADMIN, &retry(&new), &json!({})).await.is_error(409, "APP-409-CONFLICT");
    // It has been dealt with, and can still be read.
    assert_eq!(jobs(&app, ADMIN, &format!("{TURNS}/jobs?status=dead")).await.len(), 2);
    assert_eq!(jobs(&app, ADMIN, &format!("{TURNS}/jobs?status=dead&includeDiscarded=true")).await.len(), 3);
    let detail = app.get(ADMIN, &format!("{TURNS}/jobs/{}", dead[0])).await.json();
    assert_eq!(
        (&detail["discarded"], &detail["payload"]["retriedBy"]),
        (&json!(true), &json!(new)),
        "{detail:#}"
    );

    let bulk = format!("{TURNS}/bulk");
    let mut body = json!({"action": "discard", "filter": {"status": "dead"}, "dryRun": true, "limit": 1});
    let dry = app.post(OPERATOR, &bulk, &body).await.json();
    assert_eq!(
        (&dry["matched"], &dry["touched"], &dry["more"]),
        (&json!(2), &json!([dead[1]]), &json!(true))
    );
    assert_eq!(app.post(OPERATOR, &bulk, &body).await.json(), dry, "a dry run changes nothing");
    body["dryRun"] = false.into();
    assert_eq!(app.post(OPERATOR, &bulk, &body).await.json()["touched"], json!([dead[1]]));
    assert_eq!(app.post(OPERATOR, &bulk, &body).await.json()["touched"], json!([dead[2]]));
    let nothing = app.post(OPERATOR, &bulk, &body).await.json();
    assert_eq!(
        (&nothing["matched"], &nothing["touched"], &nothing["more"]),
        (&json!(0), &json!([]), &json!(false))
    );

    let cancelled = app.post(ADMIN, &format!("{TURNS}/jobs/{new}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::OK, "{cancelled:?}");
    assert_eq!(app.get(MEMBER, &format!("/jobs/{new}")).await.json()["status"], "cancelled");
    app.post(ADMIN, &format!("{TURNS}/jobs/{new}/cancel"), &json!({}))
        .await
        .is_error(409, "APP-409-CONFLICT");
    let waits = text(&app.chat(MEMBER).await["jobId"]);
    let all = app.post(ADMIN, &bulk, &json!({"action": "cancel", "filter": {"kind": "turn"}})).await.json();
    assert_eq!(all["touched"], json!([waits]));

    let tenant = home(&app).await;
    for (action, times) in [
        ("job.retried", 1),
        ("job.discarded", 2),
        ("jobs.discarded", 2),
        ("job.cancelled", 2),
        ("jobs.cancelled", 1),
    ] {
        assert_eq!(audited(&app, tenant, action).await, times, "{action}");
    }
    for body in [
        json!({"action": "burn"}),
        json!({"action": "retry", "limit": 0}),
        json!({"action": "retry", "limit": 501}),
        json!({"action": "retry", "filter": {"stauts": "dead"}}),
    ] {
        app.post(ADMIN, &bulk, &body).await.is_error(422, "APP-4XX-VALIDATION");
    }
}

#[tokio::test]
async fn an_admin_sees_and_touches_their_own_tenants_jobs_only() {
    let app = start(|_| ()).await;
    let (acme, globex) = (provision(&app, "acme").await, provision(&app, "globex").await);
    let job = text(&app.chat(&acme.admin_key).await["jobId"]);
    kill(&app, &job, "no").await;
    let theirs = text(&app.chat(&globex.admin_key).await["jobId"]);
    for (key, own) in [(&acme.admin_key, &job), (&globex.admin_key, &theirs)] {
        let seen = jobs(&app, key, &format!("{TURNS}/jobs")).await;
        assert_eq!(seen.iter().map(|job| text(&job["id"])).collect::<Vec<_>>(), [own.as_str()]);
        // Naming another tenant gives nothing of it.
        let other = if own == &job { globex.id } else { acme.id };
        assert!(jobs(&app, key, &format!("{TURNS}/jobs?tenant={other}")).await.is_empty());
    }
    queue_when(&app, &globex.admin_key, "chat-turns", |queue| queue["depth"] == 1).await;
    let of_acme = queue(&app, &acme.admin_key, "chat-turns").await;
    assert_eq!((&of_acme["depth"], &of_acme["ended"]["dead"]), (&json!(0), &json!(1)), "{of_acme:#}");
    assert_eq!(queue(&app, &globex.admin_key, "chat-turns").await["ended"]["dead"], 0);
    assert_eq!(queue(&app, OPERATOR, "chat-turns").await["ended"]["dead"], 1);
    let narrowed = app.get(OPERATOR, &format!("/admin/queues?tenant={}", globex.id)).await.json();
    assert_eq!(narrowed["tenantId"], globex.id.to_string());

    for action in ["retry", "cancel", "discard"] {
        let place = format!("{TURNS}/jobs/{job}/{action}");
        app.post(&globex.admin_key, &place, &json!({})).await.is_error(404, "APP-404-NOT-FOUND");
        let bulk = json!({"action": action, "filter": {"tenant": acme.id}});
        let done = app.post(&globex.admin_key, &format!("{TURNS}/bulk"), &bulk).await.json();
        assert_eq!((&done["matched"], &done["touched"]), (&json!(0), &json!([])), "{action}");
    }
    app.get(&globex.admin_key, &format!("{TURNS}/jobs/{job}")).await.is_error(404, "APP-404-NOT-FOUND");
    // An operator acts in the job's tenant, and is in its log.
    let done = app.post(OPERATOR, &format!("{TURNS}/jobs/{job}/retry"), &json!({})).await;
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    assert_eq!(audited(&app, acme.id, "job.retried").await, 1);
    let all = jobs(&app, OPERATOR, &format!("{TURNS}/jobs?includeDiscarded=true")).await;
    assert_eq!(all.len(), 3, "{all:#?}");
    app.get(MEMBER, "/admin/queues").await.is_error(403, "APP-403-FORBIDDEN");
    assert!(jobs(&app, FOREIGNER, &format!("{TURNS}/jobs")).await.is_empty());
}

#[tokio::test]
async fn pages_and_filters_of_every_queue_fit_together() {
    let app = start(|_| ()).await;
    let posted: Vec<String> = {
        let mut posted = Vec::new();
        for _ in 0..5 {
            posted.push(text(&app.chat(MEMBER).await["jobId"]));
        }
        posted.reverse();
        posted
    };
    for key in [ADMIN, OPERATOR] {
        let mut seen = Vec::new();
        let mut place = format!("{TURNS}/jobs?limit=2");
        loop {
            let page = app.get(key, &place).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|job| text(&job["id"])));
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            place = format!("{TURNS}/jobs?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, posted);
    }
    seed_other_queues(&app).await;
    let tenant = home(&app).await;
    let queues = [
        ("agent-deliveries", 3),
        ("chat-turns", 5),
        ("connection-refresh", 2),
        ("embeddings", 1),
        ("maintenance", 3),
    ];
    let statuses = ["queued", "running", "awaiting_approval", "succeeded", "failed", "cancelled", "dead"];
    for (queue, operators) in queues {
        let place = format!("/admin/queues/{queue}/jobs");
        for (key, count) in
            [(OPERATOR, operators), (ADMIN, operators - usize::from(queue == "maintenance") * 3)]
        {
            let all = jobs(&app, key, &format!("{place}?since=2020-01-01T00:00:00Z")).await;
            assert_eq!(all.len(), count, "{queue}: {all:#?}");
            let mut by_status = 0;
            for status in statuses {
                by_status += jobs(&app, key, &format!("{place}?status={status}")).await.len();
            }
            assert_eq!(by_status, count, "{queue}: each job has one status");
            for job in &all {
                let detail = app.get(key, &format!("{place}/{}", text(&job["id"]))).await;
                assert_eq!(detail.status, StatusCode::OK, "{detail:?}");
                assert_eq!(detail.json()["kind"], job["kind"]);
                assert!(!detail.text.contains("hunter2"), "{detail:?}");
                let alike =
                    format!("{place}?kind={}&tenant={tenant}&until=2100-01-01T00:00:00Z", text(&job["kind"]));
                let alike = jobs(&app, key, &alike).await;
                assert_eq!(
                    alike.iter().any(|found| found["id"] == job["id"]),
                    job["tenantId"] != Value::Null
                );
            }
            assert!(jobs(&app, key, &format!("{place}?until=2020-01-01T00:00:00Z")).await.is_empty());
            assert!(jobs(&app, key, &format!("{place}?subject=nobody&error=nothing")).await.is_empty());
        }
    }
    // Each action on a job of each queue that takes it, and no other changes.
    for (queue, status, action, left) in [
        ("agent-deliveries", "dead", "retry", 0),
        ("agent-deliveries", "queued", "cancel", 0),
        ("agent-deliveries", "dead", "discard", 0),
        ("connection-refresh", "failed", "retry", 0),
        ("connection-refresh", "queued", "cancel", 0),
        ("embeddings", "queued", "retry", 1),
        ("embeddings", "queued", "discard", 0),
        ("maintenance", "failed", "discard", 0),
        ("maintenance", "queued", "cancel", 0),
    ] {
        let body = json!({"action": action, "filter": {"status": status}});
        let done = app.post(OPERATOR, &format!("/admin/queues/{queue}/bulk"), &body).await;
        assert!(
            done.json()["touched"].as_array().is_some_and(|touched| !touched.is_empty()),
            "{queue} {action}: {done:?}"
        );
        let place = format!("/admin/queues/{queue}/jobs?status={status}");
        assert_eq!(jobs(&app, OPERATOR, &place).await.len(), left, "{queue} {action}");
    }
}

/// Jobs of the queues that are no turns, of the default tenant.
async fn seed_other_queues(app: &TestApp) {
    app.execute(
        "insert into agents (tenant_id, name, endpoint) select tenant_id, 'risk', 'http://127.0.0.1:1' from turns limit 1;
         insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, payload, status, error_message,
                                                processed_at, duration_ms, response_status, response_body)
         select t.tenant_id, gen_random_uuid(), 'risk', t.user_id, 'user_login', '{\"password\": \"hunter2\"}', s.status, s.error,
                case when s.status in ('delivered', 'failed') then now() end, 7, 503, '{\"access_token\": \"hunter2\"}'
         from (select * from turns limit 1) t, (values ('pending', null), ('delivered', null), ('failed', 'it answered 503')) s (status, error);
         insert into embedding_outbox (tenant_id, uid, kind, user_id)
         select tenant_id, gen_random_uuid(), 'note', user_id from turns limit 1;
         insert into apalis.workers (id, worker_type, storage_name, last_seen) values ('w', 'q', 's', now());
         insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, lock_at, done_at, last_result)
         select apalis.generate_ulid(), 'connection-refresh',
                convert_to(json_build_object('tenant', t.tenant_id, 'user', t.user_id, 'connection', gen_random_uuid())::text, 'UTF8'),
                s.status, s.attempts, 1, now(), now(), case when s.status = 'Killed' then now() end,
                case when s.status = 'Killed' then '{\"Err\": \"its person has to sign in again\"}'::jsonb end
         from (select * from turns limit 1) t, (values ('Pending', 0), ('Killed', 1)) s (status, attempts);
         insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, lock_at, done_at)
         select apalis.generate_ulid(), 'maintenance', convert_to('{\"task\": \"retention\"}', 'UTF8'), s.status, 1, 1, now(), now(), now()
         from (values ('Pending'), ('Done'), ('Killed')) s (status)",
    )
    .await;
}

#[tokio::test]
async fn what_ended_is_counted_once_before_and_after_it_was_added_up() {
    let app = start(|_| ()).await;
    for (state, minutes) in [("dead", 90), ("dead", 10), ("failed", 5), ("dead", 0)] {
        let job = text(&app.chat(MEMBER).await["jobId"]);
        kill(&app, &job, "no").await;
        sqlx::query(
            "update turns set state = $2, created_at = now() - make_interval(mins => $3, secs => 2),
                    started_at = now() - make_interval(mins => $3, secs => 1), finished_at = now() - make_interval(mins => $3) where id = $1",
        )
        .bind(job.parse::<TurnId>().unwrap())
        .bind(state)
        .bind(minutes)
        .execute(&app.db.admin())
        .await
        .unwrap();
    }
    let engine = &app.db.engine;
    let hour = |queue: &Value| (queue["lastHour"]["dead"].clone(), queue["lastHour"]["failed"].clone());
    let before = queue(&app, ADMIN, "chat-turns").await;
    assert_eq!(hour(&before), (json!(2), json!(1)), "{before:#}");
    while shared::queues::roll_up(engine).await.unwrap() {}
    for key in [ADMIN, OPERATOR] {
        let after = queue(&app, key, "chat-turns").await;
        assert_eq!(hour(&after), (json!(2), json!(1)), "{after:#}");
        assert_eq!((&after["ended"]["dead"], &after["ended"]["failed"]), (&json!(3), &json!(1)), "{after:#}");
        let wait = &after["lastHour"]["waitMs"];
        assert!((900.0..1100.0).contains(&wait["mean"].as_f64().unwrap()), "{wait}");
        assert!((500.0..=2500.0).contains(&wait["p95"].as_f64().unwrap()), "{wait}");
    }
    // Nothing new: nothing more.
    assert!(!shared::queues::roll_up(engine).await.unwrap());
    assert_eq!(queue(&app, ADMIN, "chat-turns").await["ended"]["dead"], 3);
}

#[tokio::test]
async fn operators_set_flags_and_admins_set_breakers() {
    let app = start(|_| ()).await;
    let flags = app.get(OPERATOR, "/admin/flags").await.json();
    let names: Vec<String> =
        flags["items"].as_array().unwrap().iter().map(|flag| text(&flag["name"])).collect();
    let known = [
        "ADVANCED_AGENT_PERMISSIONS",
        "AGENT_PERFORMANCE_MONITORING",
        "CIRCUIT_BREAKER_ENABLED",
        "MCP_AGENT_NOTIFICATIONS",
    ];
    assert_eq!(names, known);
    let place = |name: &str| format!("/admin/flags/{name}");
    let set =
        async |key: &str, name: &str, body: Value| app.send_json(key, Method::PUT, &place(name), &body).await;
    let off = json!({"enabled": false});
    set(ADMIN, known[3], off.clone()).await.is_error(403, "APP-403-FORBIDDEN");
    set(OPERATOR, "NOTHING", off.clone()).await.is_error(404, "APP-404-NOT-FOUND");
    set(OPERATOR, known[3], json!({"enabled": true, "percent": 101}))
        .await
        .is_error(422, "APP-4XX-VALIDATION");
    let half = set(OPERATOR, known[3], json!({"enabled": true, "percent": 50})).await.json();
    assert_eq!((&half["enabled"], &half["percent"]), (&json!(true), &json!(50)));
    assert!(half["updatedBy"].is_string(), "{half}");

    app.chat(MEMBER).await;
    app.execute(
        "insert into agents (tenant_id, name, endpoint) select tenant_id, 'risk', 'http://127.0.0.1:9' from turns",
    )
    .await;
    // Of many users' events, about half are told of; of all events, all are recorded.
    app.execute(
        "select user_event((select tenant_id from agents), gen_random_uuid(), 'user_login', '{}', null) from generate_series(1, 200)",
    )
    .await;
    let count = async |table: &str| -> i64 {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(count).fetch_one(&app.db.admin()).await.unwrap()
    };
    assert_eq!(count("authentication_events").await, 200);
    let told = count("agent_notification_events").await;
    assert!((60..140).contains(&told), "{told} of 200");

    let breaker = "/admin/agents/risk/breaker";
    let state = async |key: &str| app.get(key, breaker).await.json()["state"].clone();
    assert_eq!(state(ADMIN).await, "closed");
    app.get(FOREIGNER, breaker).await.is_error(404, "APP-404-NOT-FOUND");
    let open = format!("{breaker}/open");
    app.post(ADMIN, &open, &json!({"seconds": 0})).await.is_error(422, "APP-4XX-VALIDATION");
    let opened = app.post(ADMIN, &open, &json!({"seconds": 600})).await.json();
    assert_eq!((&opened["state"], &opened["heeded"]), (&json!("open"), &json!(true)), "{opened}");
    let waits = jobs(&app, ADMIN, "/admin/queues/agent-deliveries/jobs?limit=1").await;
    assert_eq!(waits[0]["waiting"]["reason"], "breaker_open", "{waits:#?}");
    let metrics = async || app.send(app.request(Method::GET, "/metrics")).await.text;
    assert!(metrics().await.contains("circuit_breaker_state{target=\"agent:risk\"} 1"));
    queue_when(&app, OPERATOR, "agent-deliveries", |queue| queue["depth"] == 0).await;
    set(OPERATOR, known[2], off).await;
    assert_eq!(app.get(ADMIN, breaker).await.json()["heeded"], false);
    queue_when(&app, OPERATOR, "agent-deliveries", |queue| queue["depth"] == told).await;
    assert!(metrics().await.contains("circuit_breaker_state{target=\"agent:risk\"} 0"));
    assert_eq!(app.post(ADMIN, &format!("{breaker}/reset"), &json!({})).await.json()["state"], "closed");
}

#[tokio::test]
async fn an_agent_is_told_everything_again() {
    let app = start(|_| ()).await;
    app.chat(MEMBER).await;
    app.execute(
        "insert into agents (tenant_id, name, endpoint, permissions_required, permissions_optional, permission_level)
         select tenant_id, 'risk', 'http://127.0.0.1:9', '{}', '{read:preferences}', 'admin' from turns;
         insert into users (id) select gen_random_uuid() from generate_series(1, 2001);
         insert into memberships (tenant_id, user_id, role)
           select t.tenant_id, u.id, 'member' from turns t, users u where u.email is null;
         insert into user_contexts (tenant_id, user_id, version)
           select m.tenant_id, m.user_id, 7 from memberships m join users u on u.id = m.user_id and u.email is null",
    )
    .await;
    let place = "/admin/agents/risk/sync";
    app.post(FOREIGNER, place, &json!({})).await.is_error(404, "APP-404-NOT-FOUND");
    let first = app.post(ADMIN, place, &json!({})).await.json();
    assert_eq!((&first["contexts"], &first["told"]), (&json!(2000), &json!(2000)), "{first}");
    let rest = app.post(ADMIN, place, &json!({"cursor": first["nextCursor"]})).await.json();
    assert_eq!(rest, json!({"contexts": 1, "told": 1, "nextCursor": null}));
    // Once more: what waits is replaced, so nobody is told twice.
    app.post(ADMIN, place, &json!({})).await;
    let count: i64 = sqlx::query_scalar(
        "select count(*) from agent_notification_events where payload ->> 'version' = '7'",
    )
    .fetch_one(&app.db.admin())
    .await
    .unwrap();
    assert_eq!(count, 2001);
    // What an agent may ask for, while the flag is on for it.
    let optional = async || -> Vec<String> {
        sqlx::query_scalar("select agent_optional_permissions(a) from agents a")
            .fetch_one(&app.db.engine)
            .await
            .unwrap()
    };
    assert_eq!(optional().await, ["read:preferences"]);
    let off = json!({"enabled": false});
    app.send_json(OPERATOR, Method::PUT, "/admin/flags/ADVANCED_AGENT_PERMISSIONS", &off).await;
    assert!(optional().await.is_empty());
    app.execute("update agents set enabled = false").await;
    app.post(ADMIN, place, &json!({})).await.is_error(409, "APP-409-CONFLICT");
}
