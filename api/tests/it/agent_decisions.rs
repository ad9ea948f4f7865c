//! What agents did is what the audit log says they did: both are one transaction, and refusals are in it too.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    agent_side::{context_of, decided, risk},
    app::{ADMIN, MEMBER, TestApp},
};

const NOTHING_IS_WRITTEN_DOWN: &str = "
    create function refuse_to_write() returns trigger language plpgsql as $$ begin raise exception 'the log is full'; end $$;
    create trigger refuse_to_write before insert on audit_log for each row execute function refuse_to_write()";

impl TestApp {
    async fn one<T>(&self, query: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(query).fetch_one(&self.db.admin()).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_not_written_down_did_not_happen() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    app.set_context(MEMBER, &json!({"risk_profile": {"risk_tolerance": "low"}})).await;
    let begun = app.ask_for_token(&agent.body()).await.json();
    let (token, session) = (begun["access_token"].as_str().unwrap(), begun["session_id"].as_str().unwrap());
    let event: uuid::Uuid = app.one("select event_id from agent_notification_events").await;
    app.execute(NOTHING_IS_WRITTEN_DOWN).await;
    let place = format!("/api/v1/agents/sessions/{session}");
    for answered in [
        app.as_agent(token, Method::POST, &format!("/api/v1/agents/events/{event}/ack")).await,
        app.as_agent(token, Method::DELETE, &place).await,
        app.ask_for_token(&agent.body()).await,
    ] {
        answered.is_error(500, "APP-5XX");
    }
    assert!(!app.one::<bool>("select acknowledged_at is not null from agent_notification_events").await);
    assert!(app.one::<bool>("select is_active from agent_sessions").await);
    app.execute("drop trigger refuse_to_write on audit_log").await;
    assert_eq!(app.as_agent(token, Method::DELETE, &place).await.status, StatusCode::NO_CONTENT);
    assert!(app.decisions(ADMIN).await.contains(&decided("agent_session.end", "allowed")));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_written_down() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    let user = app.user_of(MEMBER).await;
    let token = app.agent_token(&agent).await;
    let long = "x".repeat(5000);
    for (method, path) in [
        (Method::GET, context_of(&long)),
        (Method::POST, "/api/v1/agents/events/event/ack".to_owned()),
        (Method::GET, "/api/v1/agents/sessions/mine".to_owned()),
        (Method::DELETE, "/api/v1/agents/sessions/mine".to_owned()),
    ] {
        app.as_agent(&token, method, &path).await.is_error(404, "APP-404-NOT-FOUND");
    }
    app.as_agent(&token, Method::GET, "/api/v1/agents/sessions?limit=0")
        .await
        .is_error(400, "APP-4XX-VALIDATION");
    let changed = app.request(Method::PATCH, &context_of(&user)).header("X-Agent-Authorization", &token);
    let changed = app.send(changed.header("If-Match", "three").json(&json!({"risk_profile": null}))).await;
    changed.is_error(400, "APP-4XX-VALIDATION");
    let ask = |word: &str, secret: Option<&str>| {
        let mut body = agent.body();
        body["requested_permissions"] = json!([word]);
        if let Some(secret) = secret {
            body["client_secret"] = json!(secret);
        }
        body
    };
    app.ask_for_token(&ask(&long, None)).await.is_error(422, "APP-4XX-VALIDATION");
    // Whoever has not shown who they are is told nothing of words.
    app.ask_for_token(&ask("read:everything", Some("acs_guess"))).await.is_error(401, "APP-401-AUTH");
    let log = app.decisions(ADMIN).await;
    for action in [
        "context.read",
        "event.acknowledge",
        "agent_session.read",
        "agent_session.end",
        "agent_session.list",
        "context.change",
    ] {
        let count = log.iter().filter(|row| **row == decided(action, "refused")).count();
        assert_eq!(count, 1, "{action} in {log:?}");
    }
    assert_eq!(log.iter().filter(|row| **row == decided("agent_session.begin", "refused")).count(), 2);
    let longest: i32 =
        app.one("select max(length(target || details::text)) from audit_log where acted_as = 'agent'").await;
    assert!(longest < 1000, "{longest}");
}

#[tokio::test]
async fn no_session_begins_with_credentials_that_are_being_replaced() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    // As a rotation does it, with time to look on.
    let admin = app.db.admin();
    let mut rotation = admin.begin().await.unwrap();
    sqlx::query("update agent_credentials set client_secret_hash = '\\x00'")
        .execute(&mut *rotation)
        .await
        .unwrap();
    let waits = async {
        app.until_somebody_waits_for_a_lock().await;
        sqlx::query("update agent_sessions set is_active = false").execute(&mut *rotation).await.unwrap();
        rotation.commit().await.unwrap();
    };
    let body: Value = agent.body();
    let (answered, ()) = tokio::join!(app.ask_for_token(&body), waits);
    answered.is_error(401, "APP-401-AUTH");
    assert_eq!(app.one::<i64>("select count(*) from agent_sessions").await, 0);
    assert!(app.decisions(ADMIN).await.contains(&decided("agent_session.begin", "refused")));
}
