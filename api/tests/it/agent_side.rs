//! Agents' own requests [A5]: what they come in by, what they may, and that nobody else's credential does there.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::config::RateLimits;

use crate::app::{ADMIN, Answered, FOREIGNER, MEMBER, TestApp};

pub(crate) const NOBODY: &str = "0198c0de-0000-7000-8000-000000000000";

/// An agent as its owner knows it.
pub(crate) struct Agent {
    name: String,
    api_key: String,
    client_secret: String,
}

impl Agent {
    pub(crate) fn body(&self) -> Value {
        json!({"agent_name": self.name, "api_key": self.api_key, "client_secret": self.client_secret})
    }
}

impl TestApp {
    pub(crate) async fn register_agent(&self, key: &str, name: &str, more: Value) -> Agent {
        let mut body = json!({"name": name, "endpoint": "https://agents.example.com/x"});
        for (field, value) in more.as_object().unwrap() {
            body[field] = value.clone();
        }
        let made = self.post(key, "/admin/agents", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let made = made.json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        Agent { name: name.to_owned(), api_key: text("apiKey"), client_secret: text("clientSecret") }
    }

    pub(crate) async fn ask_for_token(&self, body: &Value) -> Answered {
        self.send(self.request(Method::POST, "/api/v1/agents/token").json(body)).await
    }

    /// A token with all that the agent may have.
    pub(crate) async fn agent_token(&self, agent: &Agent) -> String {
        let answered = self.ask_for_token(&agent.body()).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        answered.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn as_agent(&self, token: &str, method: Method, path: &str) -> Answered {
        self.send(self.request(method, path).header("X-Agent-Authorization", token)).await
    }

    pub(crate) async fn agent_patch(&self, token: &str, user: &str, body: &Value) -> Answered {
        let request = self.request(Method::PATCH, &context_of(user)).header("X-Agent-Authorization", token);
        self.send(request.json(body)).await
    }

    pub(crate) async fn user_of(&self, key: &str) -> String {
        self.get(key, "/api/v1/me/context").await.json()["user_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn set_context(&self, key: &str, body: &Value) {
        let changed = self.send_json(key, Method::PATCH, "/api/v1/me/context", body).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    }

    /// What the tenant's log says of agents: (action, decision), newest first.
    pub(crate) async fn decisions(&self, key: &str) -> Vec<(String, String)> {
        let log = self.get(key, "/admin/audit?limit=1000").await.json();
        let rows = log["items"].as_array().unwrap().iter().filter(|row| row["actedAs"] == "agent");
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        rows.map(|row| (word(&row["action"]), word(&row["details"]["decision"]))).collect()
    }
}

pub(crate) fn context_of(user: &str) -> String {
    format!("/api/v1/agents/users/{user}/context")
}

pub(crate) fn risk() -> Value {
    json!({
        "permissionLevel": "read_write",
        "permissions": {
            "required": ["read:risk_profile"],
            "optional": ["write:risk_profile", "read:preferences", "read:session"],
            "forbidden": ["read:portfolio_settings"],
        },
    })
}

pub(crate) fn decided(action: &str, decision: &str) -> (String, String) {
    (action.to_owned(), decision.to_owned())
}

#[tokio::test]
async fn an_agent_reads_and_changes_what_it_may_and_each_decision_is_written_down() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    let user = app.user_of(MEMBER).await;
    let known = json!({
        "preferences": {"trading_style": "moderate"},
        "portfolio_settings": {"available_cash": "4200"},
        "risk_profile": {"risk_tolerance": "low"},
    });
    app.set_context(MEMBER, &known).await;
    let token = app.agent_token(&agent).await;
    let seen = app.as_agent(&format!("Bearer {token}"), Method::GET, &context_of(&user)).await;
    assert_eq!((seen.status, &seen.headers["etag"]), (StatusCode::OK, &"\"2\"".parse().unwrap()));
    let mut body = seen.json();
    assert!(body["updated_at"].is_string(), "{body}");
    body.as_object_mut().unwrap().remove("updated_at");
    let mut wanted = json!({
        "user_id": user, "email": "member@example.com", "version": 2, "is_active": false, "session_id": null,
        "preferences": known["preferences"], "risk_profile": known["risk_profile"],
    });
    assert_eq!(body, wanted);

    let changed =
        app.agent_patch(&token, &user, &json!({"risk_profile": {"stop_loss_percentage": "5"}})).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    wanted["risk_profile"] = json!({"risk_tolerance": "low", "stop_loss_percentage": "5"});
    assert_eq!(
        (&changed.json()["risk_profile"], &changed.json()["version"]),
        (&wanted["risk_profile"], &json!(3))
    );
    assert_eq!(app.get(MEMBER, "/api/v1/me/context").await.json()["risk_profile"], wanted["risk_profile"]);
    let history = app.get(ADMIN, &format!("/admin/contexts/{user}/history?limit=1")).await.json();
    assert_eq!(history["items"][0]["changedBy"], "agent:risk_management");

    // What it may not change it may not find out by trying either: the same value is refused as another one is.
    for refused in [
        json!({"portfolio_settings": {"available_cash": "4200"}}),
        json!({"portfolio_settings": {"available_cash": "1"}}),
        json!({"preferences": {"trading_style": "aggressive"}}),
        json!({"agent_permissions": {"risk_management": "admin"}}),
        json!({"risk_profile": {"risk_tolerance": "high"}, "portfolio_settings": null}),
    ] {
        let answered = app.agent_patch(&token, &user, &refused).await;
        answered.is_error(403, "APP-403-FORBIDDEN");
        assert!(!answered.text.contains("4200"), "{answered:?}");
    }
    let old = app.request(Method::PATCH, &context_of(&user)).header("X-Agent-Authorization", &token);
    let old = old.header("If-Match", "\"2\"").json(&json!({"risk_profile": null}));
    app.send(old).await.is_error(412, "APP-412-PRECONDITION");
    app.agent_patch(&token, &user, &json!({"risk_profile": {"colour": "red"}}))
        .await
        .is_error(422, "APP-4XX-VALIDATION");

    // The user's own choice narrows, at once.
    app.set_context(MEMBER, &json!({"agent_permissions": {"risk_management": "read_only"}})).await;
    app.agent_patch(&token, &user, &json!({"risk_profile": null})).await.is_error(403, "APP-403-FORBIDDEN");
    assert_eq!(
        app.as_agent(&token, Method::GET, &context_of(&user)).await.json()["preferences"],
        known["preferences"]
    );
    app.set_context(MEMBER, &json!({"agent_permissions": {"risk_management": "restricted"}})).await;
    let little = app.as_agent(&token, Method::GET, &context_of(&user)).await.json();
    let names: Vec<&String> = little.as_object().unwrap().keys().collect();
    assert_eq!(names, ["email", "updated_at", "user_id", "version"]);

    let log = app.decisions(ADMIN).await;
    let count =
        |action: &str, decision: &str| log.iter().filter(|row| **row == decided(action, decision)).count();
    assert_eq!(count("agent_session.begin", "allowed"), 1);
    assert_eq!(count("context.read", "allowed"), 3);
    assert_eq!(count("context.change", "allowed"), 1);
    assert_eq!(count("context.change", "refused"), 8);
}

#[tokio::test]
async fn a_session_has_what_it_asks_for_and_no_more_than_the_matrix() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    let user = app.user_of(MEMBER).await;
    let ask = |permissions: Value| {
        let mut body = agent.body();
        body["requested_permissions"] = permissions;
        body
    };
    let narrow = app.ask_for_token(&ask(json!(["read:preferences"]))).await.json();
    assert_eq!(narrow["permissions"], json!(["read:preferences", "read:risk_profile"]));
    assert_eq!(
        (&narrow["token_type"], &narrow["expires_in"], &narrow["permission_level"]),
        (&json!("Bearer"), &json!(3600), &json!("read_write"))
    );
    let token = narrow["access_token"].as_str().unwrap();
    app.agent_patch(token, &user, &json!({"risk_profile": {"risk_tolerance": "low"}}))
        .await
        .is_error(403, "APP-403-FORBIDDEN");
    app.ask_for_token(&ask(json!(["read:portfolio_settings"]))).await.is_error(403, "APP-403-FORBIDDEN");
    app.ask_for_token(&ask(json!(["read:everything"]))).await.is_error(422, "APP-4XX-VALIDATION");

    // What its admins take away is gone from sessions that are there.
    let wide = app.agent_token(&agent).await;
    let seen = app.as_agent(&wide, Method::GET, &context_of(&user)).await.json();
    assert!(seen.get("preferences").is_some(), "{seen}");
    let less = json!({"permissions": {"required": ["read:risk_profile"]}});
    app.send_json(ADMIN, Method::PATCH, "/admin/agents/risk_management", &less).await;
    let seen = app.as_agent(&wide, Method::GET, &context_of(&user)).await.json();
    assert!(seen.get("preferences").is_none() && seen.get("risk_profile").is_some(), "{seen}");
    for wrong in [
        json!({"permissions": {"required": ["read:preferences"], "forbidden": ["read:preferences"]}}),
        json!({"permissions": {"optional": ["write:preferences"], "forbidden": ["read:preferences"]}}),
        json!({"permissions": {"required": ["steal:preferences"]}}),
        json!({"condition": {"field": "trading_style", "contains": "x"}}),
        json!({"permissionLevel": "god"}),
    ] {
        let refused = app.send_json(ADMIN, Method::PATCH, "/admin/agents/risk_management", &wrong).await;
        refused.is_error(422, "APP-4XX-VALIDATION");
    }
}

#[tokio::test]
async fn a_token_is_good_while_its_session_its_agent_and_its_tenant_are() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", risk()).await;
    let place = context_of(&app.user_of(MEMBER).await);
    let opens = async |token: &str| {
        let answered = app.as_agent(token, Method::GET, &place).await;
        if answered.status == StatusCode::OK {
            return true;
        }
        answered.is_error(401, "APP-401-AUTH");
        false
    };
    let begin = async || {
        let begun = app.ask_for_token(&agent.body()).await.json();
        let text = |field: &str| begun[field].as_str().unwrap().to_owned();
        (text("access_token"), text("session_id"))
    };
    // Revoked by an admin; ended by itself; over; its agent off.
    let (token, session) = begin().await;
    assert!(opens(&token).await);
    let revoke =
        app.request(Method::DELETE, &format!("/admin/sessions/{session}")).header("X-API-Key", ADMIN);
    assert_eq!(app.send(revoke).await.status, StatusCode::NO_CONTENT);
    assert!(!opens(&token).await);

    let (token, session) = begin().await;
    let ended = app.as_agent(&token, Method::DELETE, &format!("/api/v1/agents/sessions/{session}")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(!opens(&token).await);

    let (token, _) = begin().await;
    app.execute("update agent_sessions set expires_at = now() where is_active").await;
    assert!(!opens(&token).await);

    let (token, _) = begin().await;
    let enable = async |on: bool| {
        app.send_json(ADMIN, Method::PATCH, "/admin/agents/risk_management", &json!({"enabled": on})).await
    };
    enable(false).await;
    assert!(!opens(&token).await);
    app.ask_for_token(&agent.body()).await.is_error(401, "APP-401-AUTH");
    enable(true).await;
    assert!(!opens(&token).await, "its sessions were over with it");

    let (token, _) = begin().await;
    app.execute("update tenants set state = 'suspended'").await;
    assert!(!opens(&token).await);
    app.execute("update tenants set state = 'active'").await;
    assert!(opens(&token).await);
    let rotated = app.post(ADMIN, "/admin/agents/risk_management/credentials", &json!({})).await.json();
    assert!(!opens(&token).await);
    app.ask_for_token(&agent.body()).await.is_error(401, "APP-401-AUTH");
    let new = Agent {
        name: "risk_management".to_owned(),
        api_key: rotated["apiKey"].as_str().unwrap().to_owned(),
        client_secret: rotated["clientSecret"].as_str().unwrap().to_owned(),
    };
    let token = app.agent_token(&new).await;
    assert!(opens(&token).await);
    // Whoever reads the database has neither token nor secrets.
    let stored: Vec<String> = sqlx::query_scalar("select to_jsonb(s)::text from agent_sessions s union all select to_jsonb(c)::text from agent_credentials c")
        .fetch_all(&app.db.admin())
        .await
        .unwrap();
    for secret in [&token, &new.api_key, &new.client_secret] {
        assert!(!stored.iter().any(|row| row.contains(secret.as_str())));
    }
    let delete = app.request(Method::DELETE, "/admin/agents/risk_management").header("X-API-Key", ADMIN);
    assert_eq!(app.send(delete).await.status, StatusCode::NO_CONTENT);
    assert!(!opens(&token).await);
    let refused =
        app.decisions(ADMIN).await.into_iter().filter(|row| *row == decided("agent_session.use", "refused"));
    assert!(refused.count() >= 7);
}

#[tokio::test]
async fn wrong_credentials_have_one_answer_and_are_not_tried_for_long() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", json!({})).await;
    let theirs = app.register_agent(FOREIGNER, "risk_management", json!({})).await;
    let with = |field: &str, value: &str| {
        let mut body = agent.body();
        body[field] = json!(value);
        body
    };
    let mut answers = Vec::new();
    for body in [
        with("client_secret", &theirs.client_secret),
        with("client_secret", ""),
        with("api_key", &theirs.api_key),
        with("api_key", "aak_"),
        with("agent_name", "no_such_agent"),
        with("agent_name", "No\u{0} name"),
    ] {
        let refused = app.ask_for_token(&body).await.is_error(401, "APP-401-AUTH");
        answers.push(refused["message"].clone());
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:?}");
    let wrong = with("client_secret", "acs_guess");
    let mut tries = 0;
    let refused = loop {
        let answered = app.ask_for_token(&wrong).await;
        if answered.status != StatusCode::UNAUTHORIZED {
            break answered;
        }
        tries += 1;
        assert!(tries < 20, "nobody stops the guessing");
    };
    refused.is_error(429, "APP-429-RATE");
    assert!(refused.headers.contains_key("retry-after"));
    // Of another agent nobody guessed.
    app.agent_token(&theirs).await;
    assert!(app.decisions(ADMIN).await.contains(&decided("agent_session.begin", "refused")));
}

#[tokio::test]
async fn an_agents_token_opens_no_other_route_and_no_other_credential_opens_agents() {
    let app = TestApp::start().await;
    let agent = app.register_agent(ADMIN, "risk_management", json!({"permissionLevel": "admin"})).await;
    let token = app.agent_token(&agent).await;
    let document: Value = serde_json::from_str(&api::openapi_document()).unwrap();
    let (mut elsewhere, mut own) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("security").is_none() {
                continue;
            }
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            let place = ["{id}", "{user_id}", "{userId}", "{event_id}"]
                .iter()
                .fold(path.clone(), |place, name| place.replace(name, NOBODY))
                .replace(['{', '}'], "");
            let shown: &[(&str, String)] = if path.starts_with("/api/v1/agents/") {
                own += 1;
                &[
                    ("X-API-Key", ADMIN.to_owned()),
                    ("Authorization", format!("Bearer {token}")),
                    ("X-Agent-Authorization", MEMBER.to_owned()),
                    ("X-Agent-Authorization", agent.api_key.clone()),
                    ("X-Agent-Authorization", agent.client_secret.clone()),
                ]
            } else {
                elsewhere += 1;
                &[
                    ("X-Agent-Authorization", token.clone()),
                    ("Authorization", format!("Bearer {token}")),
                    ("X-API-Key", token.clone()),
                    ("X-API-Key", agent.api_key.clone()),
                    ("Authorization", format!("Bearer {}", agent.client_secret)),
                ]
            };
            for (header, value) in shown {
                let request = app.request(method.clone(), &place).header(*header, value).json(&json!({}));
                app.send(request).await.is_error(401, "APP-401-AUTH");
            }
        }
    }
    assert!(elsewhere > 80 && own == 6, "{elsewhere} {own}");
    // A person's own token neither.
    let body = json!({"email": "ann@example.com", "password": "a long enough password"});
    for verb in ["register", "login"] {
        let answered = app.send(app.request(Method::POST, &format!("/api/v1/auth/{verb}")).json(&body)).await;
        if verb == "login" {
            let person = answered.json()["access_token"].as_str().unwrap().to_owned();
            app.as_agent(&person, Method::GET, &context_of(NOBODY)).await.is_error(401, "APP-401-AUTH");
        }
    }
}

#[tokio::test]
async fn an_agent_has_a_budget_whatever_number_of_sessions_it_has() {
    let app = TestApp::start_with(|config| {
        config.rate_limits = RateLimits { agent_per_minute: 4, ..config.rate_limits };
    })
    .await;
    let (mine, other) = (
        app.register_agent(ADMIN, "risk_management", json!({})).await,
        app.register_agent(ADMIN, "news_analysis", json!({})).await,
    );
    let tokens = [app.agent_token(&mine).await, app.agent_token(&mine).await];
    for turn in 0..4 {
        let answered = app.as_agent(&tokens[turn % 2], Method::GET, "/api/v1/agents/sessions").await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    }
    for token in &tokens {
        let refused = app.as_agent(token, Method::GET, "/api/v1/agents/sessions").await;
        refused.is_error(429, "APP-429-RATE");
        assert!(refused.headers.contains_key("retry-after"));
    }
    let token = app.agent_token(&other).await;
    assert_eq!(app.as_agent(&token, Method::GET, "/api/v1/agents/sessions").await.status, StatusCode::OK);
    // Written down once a minute, however often it happens.
    let log = app.decisions(ADMIN).await;
    assert_eq!(
        log.iter().filter(|row| **row == decided("agent_session.use", "refused")).count(),
        1,
        "{log:?}"
    );
}
