//! Whose agents hear of whom: those of the tenants that a person belongs to, as long as these are active; and how many agents
//! a tenant has.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    agent_side::{Agent, context_of, risk},
    app::{ADMIN, TestApp},
    auth::PASSWORD,
    tenants::{Made, OPERATOR, provision, start},
};

impl TestApp {
    /// Signs a new person in; answers their id.
    async fn come_in_first(&self, email: &str) -> String {
        self.sign_up(email).await["user"]["id"].as_str().unwrap().to_owned()
    }

    async fn come_in(&self, email: &str) -> String {
        self.log_in(email, PASSWORD).await.json()["user"]["id"].as_str().unwrap().to_owned()
    }

    /// As if they had been asked in, and had not answered.
    async fn ask_in(&self, tenant: &Made, email: &str) {
        sqlx::query(
            "insert into memberships (tenant_id, user_id, role, accepted_at)
             select $1, id, 'member', null from users where email = $2",
        )
        .bind(tenant.id)
        .bind(email)
        .execute(&self.db.admin())
        .await
        .unwrap();
    }

    async fn reads(&self, token: &str, user: &str) -> StatusCode {
        self.as_agent(token, Method::GET, &context_of(user)).await.status
    }

    /// Who was told of a person: tenants' names, with the number of deliveries.
    async fn told_of(&self, user: &str) -> Vec<(String, i64)> {
        sqlx::query_as(
            "select t.name, count(*) from agent_notification_events d join tenants t on t.id = d.tenant_id
             where d.user_id = $1::uuid group by t.name order by t.name",
        )
        .bind(user)
        .fetch_all(&self.db.admin())
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn agents_and_admins_know_those_who_belong_to_their_tenant_now() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    let mine: Agent = app.register_agent(ADMIN, "risk", risk()).await;
    let theirs = app.register_agent(&acme.admin_key, "risk", risk()).await;
    let (mine, theirs) = (app.agent_token(&mine).await, app.agent_token(&theirs).await);
    let email = "ann@example.com";
    let ann = app.come_in_first(email).await;
    let admins = async |key: &str| app.get(key, &format!("/admin/contexts/{ann}")).await.status;
    let who = async || {
        let key = &acme.admin_key;
        [app.reads(&mine, &ann).await, app.reads(&theirs, &ann).await, admins(ADMIN).await, admins(key).await]
    };
    let (yes, no) = (StatusCode::OK, StatusCode::NOT_FOUND);
    // Whoever belongs to no tenant shares the default one; that another one asks them in changes nothing.
    assert_eq!(who().await, [yes, no, yes, no]);
    app.ask_in(&acme, email).await;
    assert_eq!(who().await, [yes, no, yes, no], "asked in");
    let accept = "update memberships set accepted_at = now() where accepted_at is null";
    app.execute(accept).await;
    assert_eq!(who().await, [no, yes, no, yes], "accepted");
    app.execute(
        "insert into user_contexts (tenant_id, user_id, version, updated_at, context_data)
         select t.id, u.id, 2, now(), '{\"risk_profile\": {}}' from tenants t, users u where t.name = 'acme' and u.email = 'ann@example.com'",
    )
    .await;
    let sync = async |key: &str| {
        let synced = app.post(key, "/admin/agents/risk/sync", &json!({})).await.json();
        (synced["contexts"].clone(), synced["told"].clone())
    };
    assert_eq!(sync(&acme.admin_key).await, (json!(1), json!(1)));
    let left =
        app.send_json(&acme.admin_key, Method::DELETE, &format!("/admin/members/{ann}"), &json!({})).await;
    assert_eq!(left.status, StatusCode::NO_CONTENT, "{left:?}");
    assert_eq!(who().await, [yes, no, yes, no], "left");
    assert_eq!(sync(&acme.admin_key).await, (json!(0), json!(0)));
    let history = app.get(&acme.admin_key, &format!("/admin/contexts/{ann}/history")).await;
    history.is_error(404, "APP-404-NOT-FOUND");
    // Nobody is somebody who belongs to no tenant.
    assert_eq!(app.reads(&mine, &uuid::Uuid::now_v7().to_string()).await, no);
}

#[tokio::test]
async fn somebody_whose_tenant_is_suspended_is_still_no_business_of_the_default_one() {
    let app = start(|_| ()).await;
    let acme = provision(&app, "acme").await;
    app.register_agent(ADMIN, "risk", json!({})).await;
    app.register_agent(&acme.admin_key, "risk", json!({})).await;
    let email = "bob@example.com";
    let bob = app.come_in_first(email).await;
    let default: String = sqlx::query_scalar(
        "select name from tenants where name <> 'acme' and id in (select tenant_id from agents)",
    )
    .fetch_one(&app.db.admin())
    .await
    .unwrap();
    let told = async |acme: i64| {
        let mut wanted = vec![(default.clone(), 1)];
        wanted.extend((acme > 0).then(|| ("acme".to_owned(), acme)));
        wanted.sort();
        let mut found = app.told_of(&bob).await;
        found.sort();
        assert_eq!(found, wanted);
    };
    told(0).await;
    app.ask_in(&acme, email).await;
    app.execute("update memberships set accepted_at = now() where accepted_at is null").await;
    app.come_in(email).await;
    told(1).await;
    let suspend = format!("/admin/tenants/{}/suspend", acme.id);
    let suspended = app.post(OPERATOR, &suspend, &json!({})).await;
    assert_eq!(suspended.status, StatusCode::OK, "{suspended:?}");
    app.come_in(email).await;
    told(1).await;
}

#[tokio::test]
async fn a_tenant_has_so_many_agents_and_no_more() {
    let app = TestApp::start().await;
    app.register_agent(ADMIN, "first", json!({})).await;
    app.execute(
        "insert into agents (tenant_id, name, endpoint, configured)
         select tenant_id, 'of_environment', endpoint, true from agents;
         insert into agents (tenant_id, name, endpoint)
         select a.tenant_id, 'agent_' || n, a.endpoint from agents a, generate_series(2, 49) n where a.name = 'first'",
    )
    .await;
    let register = async |name: &str| {
        let body = json!({"name": name, "endpoint": "https://agents.example.com/x"});
        app.post(ADMIN, "/admin/agents", &body).await
    };
    // Two at once for one place.
    let (one, other) = tokio::join!(register("one"), register("other"));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    register("more").await.is_error(409, "APP-409-CONFLICT");
    let place = if one.status == StatusCode::CREATED { "one" } else { "other" };
    let removed = app.send_json(ADMIN, Method::DELETE, &format!("/admin/agents/{place}"), &json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(register("more").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn figures_tell_of_agents_that_are_there_and_of_deliveries_that_somebody_could_make() {
    let app = TestApp::start().await;
    for name in ["on", "off", "gone"] {
        app.register_agent(ADMIN, name, json!({})).await;
    }
    app.execute(
        "insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type, status, due_at, alive_since, processed_at)
         select tenant_id, gen_random_uuid(), name, gen_random_uuid(), 'user_login', status, a.at, a.at,
                case status when 'failed' then now() end
         from agents, (values ('pending'), ('failed')) statuses (status),
              lateral (select now() - interval '1 hour' * case name when 'on' then 1 else 9 end as at) a;
         insert into agent_breakers (tenant_id, agent, failures, open_until)
         select tenant_id, name, 5, now() - interval '1 minute' from agents;
         delete from agents where name = 'gone';
         update agents set enabled = false where name = 'off'",
    )
    .await;
    let scrape = async || app.send(app.request(Method::GET, "/metrics")).await.text;
    let metrics = scrape().await;
    let value = |start: &str| -> f64 {
        let found = metrics.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("{start} is not in {metrics}")).trim().parse().unwrap()
    };
    assert_eq!(value("queue_depth{queue=\"agent-deliveries\"}"), 1.0);
    let oldest = value("queue_oldest_seconds{queue=\"agent-deliveries\"}");
    assert!((3600.0..2.0 * 3600.0).contains(&oldest), "{oldest}");
    // Its time is over, and nobody has found out yet how it is.
    assert_eq!(value("circuit_breaker_state{target=\"agent:on\"}"), 1.0);
    assert!(!metrics.contains("agent:off") && !metrics.contains("agent:gone"), "{metrics}");
    let forgotten = json!({"endpoint": "https://agents.example.com/elsewhere"});
    app.send_json(ADMIN, Method::PATCH, "/admin/agents/on", &forgotten).await;
    assert!(!scrape().await.contains("agent:on\"} 1"));

    // Pages of deliveries, by all that they are asked for.
    let page = async |query: &str| -> Vec<Value> {
        let answered = app.get(ADMIN, &format!("/admin/deliveries?{query}")).await;
        assert_eq!(answered.status, StatusCode::OK, "{query}: {answered:?}");
        answered.json()["items"].as_array().unwrap().clone()
    };
    let dead = page("status=failed&limit=2").await;
    assert_eq!(dead.len(), 2, "{dead:?}");
    let rest = page(&format!("status=failed&cursor={}", dead[1]["id"].as_str().unwrap())).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(dead.iter().chain(&rest).all(|one| one["status"] == "failed"));
    let one = &rest[0];
    let text = |field: &str| one[field].as_str().unwrap().to_owned();
    let all = format!(
        "agent={}&status=failed&user={}&since=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z",
        text("targetAgent"),
        text("userId")
    );
    assert_eq!(page(&all).await, rest);
    for (query, count) in [("", 6), ("agent=on", 2), ("status=pending", 3), ("until=2020-01-01T00:00:00Z", 0)]
    {
        assert_eq!(page(query).await.len(), count, "{query}");
    }
}
