//! The queue of deliveries as admins see and touch it: why a delivery waits, and what is left alone by a replay of many [Q2].

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    app::{ADMIN, TestApp},
    tenants::start,
};

const QUEUE: &str = "/admin/queues/agent-deliveries";

/// So many dead letters of each agent, the first of them first.
const DEAD: &str = "
    insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, status, error_message, processed_at)
    select tenant_id, gen_random_uuid(), name, gen_random_uuid(), 'user_login', 'failed', 'it was down', now()
    from agents, generate_series(1, 3)";

async fn items(app: &TestApp, place: &str) -> Vec<Value> {
    let answered = app.get(ADMIN, place).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    answered.json()["items"].as_array().unwrap().clone()
}

async fn done(app: &TestApp, place: &str, body: &Value) -> Value {
    let answered = app.post(ADMIN, place, body).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    answered.json()
}

#[tokio::test]
async fn a_replay_of_many_brings_nothing_back_that_was_discarded() {
    let app = TestApp::start().await;
    app.register_agent(ADMIN, "risk_management", json!({})).await;
    app.execute(DEAD).await;
    let dead = items(&app, &format!("{QUEUE}/jobs?status=dead")).await;
    let id = dead[1]["id"].as_str().unwrap();
    done(&app, &format!("{QUEUE}/jobs/{id}/discard"), &json!({})).await;
    let dry =
        done(&app, "/admin/deliveries/replay", &json!({"agent": "risk_management", "dryRun": true})).await;
    let replayed = done(&app, "/admin/deliveries/replay", &json!({"agent": "risk_management"})).await;
    assert_eq!((&dry["matched"], &replayed["replayed"]), (&json!(2), &json!(2)), "{dry} {replayed}");
    let failed = items(&app, "/admin/deliveries?status=failed").await;
    assert_eq!(failed.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [id]);
    // On purpose it comes back, and is on the list of what somebody has to look at when it dies again.
    done(&app, &format!("/admin/deliveries/{id}/replay"), &json!({})).await;
    app.execute("update agent_notification_events set status = 'failed'").await;
    assert_eq!(items(&app, &format!("{QUEUE}/jobs?status=dead")).await.len(), 3);
}

#[tokio::test]
async fn many_are_gone_through_although_some_refuse() {
    let app = TestApp::start().await;
    for name in ["gone", "here"] {
        app.register_agent(ADMIN, name, json!({})).await;
    }
    app.execute(DEAD).await;
    app.execute("delete from agents where name = 'gone'").await;
    let mut body = json!({"action": "retry", "filter": {"status": "dead"}, "limit": 2});
    let (mut touched, mut refused, mut batches) = (0, 0, 0);
    loop {
        let bulk = done(&app, &format!("{QUEUE}/bulk"), &body).await;
        touched += bulk["touched"].as_array().unwrap().len();
        refused += bulk["refused"].as_array().unwrap().len();
        batches += 1;
        assert!(batches < 10, "it goes round in circles: {bulk}");
        assert_eq!(bulk["more"], !bulk["next"].is_null(), "{bulk}");
        if bulk["next"].is_null() {
            break;
        }
        body["after"] = bulk["next"].clone();
    }
    assert_eq!((touched, refused, batches), (3, 3, 3));
}

#[tokio::test]
async fn a_delivery_that_waits_says_for_what() {
    let reasons = async |app: &TestApp| -> Vec<String> {
        let jobs = items(app, &format!("{QUEUE}/jobs")).await;
        jobs.iter().map(|job| job["waiting"]["reason"].as_str().unwrap().to_owned()).collect()
    };
    let prepared = async |app: &TestApp| {
        app.register_agent(ADMIN, "risk_management", json!({})).await;
        app.execute(DEAD).await;
        app.execute(
            "delete from agent_notification_events where id <> (select min(id::text)::uuid from agent_notification_events);
             update agent_notification_events set status = 'pending';
             insert into agent_breakers (tenant_id, agent, failures, open_until)
             select tenant_id, name, 5, now() + interval '1 hour' from agents",
        )
        .await;
    };
    let app = TestApp::start().await;
    prepared(&app).await;
    assert_eq!(reasons(&app).await, ["breaker_open"]);
    // A breaker that is not heeded holds nothing back.
    app.execute(
        "insert into feature_flags (name, enabled, percent) values ('CIRCUIT_BREAKER_ENABLED', false, 0)
                 on conflict (name) do update set enabled = false",
    )
    .await;
    assert_eq!(reasons(&app).await, ["no_worker"]);
    app.send_json(ADMIN, Method::PATCH, "/admin/agents/risk_management", &json!({"enabled": false})).await;
    assert_eq!(reasons(&app).await, ["agent_disabled"]);

    let app = start(|config| config.agents.notifications = false).await;
    prepared(&app).await;
    assert_eq!(reasons(&app).await, ["notifications_off"]);
}
