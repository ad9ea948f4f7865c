//! What is none of an agent's business: other tenants' users, and other agents' events and sessions.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    agent_side::{NOBODY, context_of, risk},
    app::{ADMIN, FOREIGNER, MEMBER, TestApp},
};

#[tokio::test]
async fn what_is_another_tenants_or_another_agents_is_unknown() {
    let app = TestApp::start().await;
    let (mine, other) = (
        app.register_agent(ADMIN, "risk_management", risk()).await,
        app.register_agent(
            ADMIN,
            "news_analysis",
            json!({"permissionLevel": "admin", "permissions": {"required": ["read:preferences"]}}),
        )
        .await,
    );
    let token = app.agent_token(&mine).await;
    let foreigner = app.user_of(FOREIGNER).await;
    app.set_context(FOREIGNER, &json!({"risk_profile": {"risk_tolerance": "high"}})).await;
    let unknown =
        app.as_agent(&token, Method::GET, &context_of(NOBODY)).await.is_error(404, "APP-404-NOT-FOUND");
    for place in [context_of(&foreigner), context_of("nobody")] {
        let foreign = app.as_agent(&token, Method::GET, &place).await.is_error(404, "APP-404-NOT-FOUND");
        assert_eq!(foreign["message"], unknown["message"]);
    }
    let change = json!({"risk_profile": {"risk_tolerance": "low"}});
    app.agent_patch(&token, &foreigner, &change).await.is_error(404, "APP-404-NOT-FOUND");

    // Events: one that this agent was told of, by nobody else.
    app.set_context(MEMBER, &change).await;
    let deliveries = app.get(ADMIN, "/admin/deliveries").await.json();
    assert_eq!(deliveries["items"].as_array().unwrap().len(), 1, "{deliveries}");
    let event = deliveries["items"][0]["eventId"].as_str().unwrap().to_owned();
    let ack = |event: &str| format!("/api/v1/agents/events/{event}/ack");
    let others = app.agent_token(&other).await;
    for (token, event) in [(&others, &*event), (&token, NOBODY), (&token, "event")] {
        app.as_agent(token, Method::POST, &ack(event)).await.is_error(404, "APP-404-NOT-FOUND");
    }
    let done = app.as_agent(&token, Method::POST, &ack(&event)).await.json();
    assert_eq!(done["event_id"], json!(event));
    assert_eq!(app.as_agent(&token, Method::POST, &ack(&event)).await.json(), done, "a second time");
    let delivery = app.get(ADMIN, "/admin/deliveries").await.json()["items"][0].clone();
    assert_eq!(delivery["status"], "delivered");
    assert!(delivery["acknowledgedAt"].is_string(), "{delivery}");

    // Sessions: its own one; at the level admin all of the agent's own.
    let sessions = async |token: &str| {
        let page = app.as_agent(token, Method::GET, "/api/v1/agents/sessions").await.json();
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    app.agent_token(&mine).await;
    let second = app.agent_token(&other).await;
    let (own, all) = (sessions(&token).await, sessions(&others).await);
    assert_eq!((own.len(), all.len()), (1, 2));
    let place = |id: &str| format!("/api/v1/agents/sessions/{id}");
    assert_eq!(app.as_agent(&token, Method::GET, &place(&own[0])).await.status, StatusCode::OK);
    for method in [Method::GET, Method::DELETE] {
        app.as_agent(&token, method.clone(), &place(&all[0])).await.is_error(404, "APP-404-NOT-FOUND");
        app.as_agent(&others, method, &place(&own[0])).await.is_error(404, "APP-404-NOT-FOUND");
    }
    let ended = app.as_agent(&others, Method::DELETE, &place(&sessions(&second).await[0])).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    app.as_agent(&second, Method::GET, "/api/v1/agents/sessions").await.is_error(401, "APP-401-AUTH");
    // Admins see their tenant's.
    let count = async |key: &str, query: &str| {
        app.get(key, &format!("/admin/sessions{query}")).await.json()["items"].as_array().unwrap().len()
    };
    assert_eq!(
        (count(ADMIN, "").await, count(ADMIN, "?live=true").await, count(FOREIGNER, "").await),
        (4, 3, 0)
    );
    assert_eq!(count(ADMIN, "?agent=news_analysis&live=true").await, 1);
    let revoke =
        app.request(Method::DELETE, &format!("/admin/sessions/{}", own[0])).header("X-API-Key", FOREIGNER);
    app.send(revoke).await.is_error(404, "APP-404-NOT-FOUND");
}

#[tokio::test]
async fn an_agents_token_reads_its_tenants_users_and_nobody_elses() {
    let app = TestApp::start().await;
    // Ann and two others belong to no tenant, which makes them the default one's; one person belongs to both.
    let person = json!({"email": "ann@example.com", "password": "a long enough password"});
    for verb in ["register", "login"] {
        app.send(app.request(Method::POST, &format!("/api/v1/auth/{verb}")).json(&person)).await;
    }
    app.execute(
        "insert into users (id, email) select gen_random_uuid(), name || '@example.com' from unnest(array['both', 'none', 'nil']) name;
         insert into memberships (tenant_id, user_id, role, accepted_at)
           select m.tenant_id, u.id, 'member', now() from users u cross join (select distinct tenant_id from memberships) m
           where u.email = 'both@example.com';
         insert into user_contexts (tenant_id, user_id, version, context_data)
           select t.tenant_id, u.id, 2, '{\"preferences\": {\"timezone\": \"Europe/Berlin\"}, \"portfolio_settings\": {\"available_cash\": \"4200\"}}'
           from users u cross join (select distinct tenant_id from memberships) t",
    )
    .await;
    let everybody: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("select id, email from users").fetch_all(&app.db.admin()).await.unwrap();
    assert_eq!(everybody.len(), 7, "{everybody:?}");
    let before = contexts(&app).await;
    for (key, ours) in [
        (
            ADMIN,
            vec![
                "admin@example.com",
                "member@example.com",
                "ann@example.com",
                "none@example.com",
                "nil@example.com",
                "both@example.com",
            ],
        ),
        (FOREIGNER, vec!["admin@elsewhere.example", "both@example.com"]),
    ] {
        let agent = app.register_agent(key, "risk_management", risk()).await;
        let token = app.agent_token(&agent).await;
        for (user, email) in &everybody {
            let place = context_of(&user.to_string());
            let answered = app.as_agent(&token, Method::GET, &place).await;
            assert!(!answered.text.contains("4200"), "a part that it may not see: {answered:?}");
            if ours.contains(&email.as_str()) {
                assert_eq!(answered.status, StatusCode::OK, "{email}: {answered:?}");
                assert_eq!(answered.json()["preferences"]["timezone"], "Europe/Berlin");
                continue;
            }
            answered.is_error(404, "APP-404-NOT-FOUND");
            let change = json!({"risk_profile": {"risk_tolerance": "high"}});
            app.agent_patch(&token, &user.to_string(), &change).await.is_error(404, "APP-404-NOT-FOUND");
        }
    }
    assert_eq!(contexts(&app).await, before, "nothing changed");
}

/// Every context that there is, as text.
async fn contexts(app: &TestApp) -> Vec<String> {
    let all = sqlx::query_scalar("select to_jsonb(c)::text from user_contexts c order by tenant_id, user_id");
    all.fetch_all(&app.db.admin()).await.unwrap()
}
