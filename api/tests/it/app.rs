//! A server over a database of its own, and a client.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    config::Config,
    identity::{
        Role,
        development::{self, Identity},
    },
    ids::{TenantId, UserId},
    testing::TestDb,
};

/// The default tenant's admin, who also operates the deployment.
pub(crate) const ADMIN: &str = "admin-key-of-the-default-tenant";
/// A member of the default tenant.
pub(crate) const MEMBER: &str = "member-key-of-the-default-tenant";
/// An admin of another tenant.
pub(crate) const FOREIGNER: &str = "admin-key-of-another-tenant";

pub(crate) struct TestApp {
    pub(crate) db: Arc<TestDb>,
    pub(crate) running: api::Running,
    pub(crate) client: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Checks that this is an error in the one shape.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let body = self.json();
        assert_eq!(body["error"], code, "{body}");
        assert!(
            body["message"].as_str().is_some_and(|message| !message.is_empty() && !message.ends_with('.')),
            "{body}"
        );
        assert!(["app", "db", "mcp", "model", "oauth"].contains(&body["origin"].as_str().unwrap()), "{body}");
        assert_eq!(body["requestId"], self.headers["x-request-id"].to_str().unwrap());
        assert_eq!(self.headers["content-type"], "application/json");
        body
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let db = TestDb::new().await;
        let config = config(&db, change);
        for (tenant, user, email, role, key) in [
            (config.default_tenant, development::USER, "admin@example.com", Role::Admin, ADMIN),
            (config.default_tenant, UserId::generate(), "member@example.com", Role::Member, MEMBER),
            (TenantId::generate(), UserId::generate(), "admin@elsewhere.example", Role::Admin, FOREIGNER),
        ] {
            let key = SecretString::from(key);
            let identity =
                Identity { tenant, user, email, role, operator: false, key: &key, running_turns: 4 };
            development::ensure(&db.engine, &identity).await.unwrap();
        }
        Self::over(Arc::new(db), config).await
    }

    /// Another process over the same database.
    pub(crate) async fn beside(&self, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(Arc::clone(&self.db), config(&self.db, change)).await
    }

    async fn over(db: Arc<TestDb>, config: Config) -> Self {
        let running = api::start(config).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { db, running, client }
    }

    /// Another process over the same database, in place of this one.
    pub(crate) async fn restarted(self) -> Self {
        let Self { db, running, client } = self;
        running.stop().await;
        let running = api::start(config(&db, |_| ())).await.unwrap();
        Self { db, running, client }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.addr)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answered {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answered { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answered {
        self.send(self.request(Method::GET, path).header("X-API-Key", key)).await
    }

    pub(crate) async fn send_json(&self, key: &str, method: Method, path: &str, body: &Value) -> Answered {
        self.send(self.request(method, path).header("X-API-Key", key).json(body)).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> Answered {
        self.send_json(key, Method::POST, path, body).await
    }

    /// A turn that opens a conversation: (answer of POST /chat).
    pub(crate) async fn chat(&self, key: &str) -> Value {
        let answered = self.post(key, "/chat", &say("hello")).await;
        assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
        answered.json()
    }

    /// Runs a statement as superuser.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.db.admin()).await.unwrap();
    }

    /// Rows of everything that a request could have stored.
    pub(crate) async fn rows(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for table in [
            "turns",
            "turn_events",
            "items",
            "user_sessions",
            "conversations",
            "idempotency_keys",
            "apalis.jobs",
        ] {
            let count = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")));
            counts.push(count.fetch_one(&self.db.admin()).await.unwrap());
        }
        counts
    }

    /// Waits until a statement answers true.
    pub(crate) async fn until(&self, statement: &'static str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        let admin = self.db.admin();
        while !sqlx::query_scalar::<_, bool>(statement).fetch_one(&admin).await.unwrap() {
            assert!(tokio::time::Instant::now() < deadline, "never true: {statement}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_somebody_waits_for_a_lock(&self) {
        self.until(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
        )
        .await;
    }
}

/// A body of POST /chat.
pub(crate) fn say(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }] })
}

pub(crate) fn config(db: &TestDb, change: impl FnOnce(&mut Config)) -> Config {
    let variables = [
        ("APP_ENV", "test"),
        ("APP_PORT", "0"),
        ("API_KEY", ADMIN),
        ("DB_POOL_MAX", "8"),
        ("DRAIN_SECONDS", "5"),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_CHAT_PER_MINUTE", "0"),
        ("RATE_LIMIT_ADDRESS_PER_MINUTE", "0"),
        ("RATE_LIMIT_ADDRESS_CHAT_PER_MINUTE", "0"),
        ("STREAM_HOLD_SECONDS", "0.6"),
        ("PASSWORD_HASH_MEMORY_KIB", "8"),
        ("PASSWORD_HASH_PASSES", "1"),
        ("DB_URL", &db.app_url),
        ("DB_ENGINE_URL", &db.engine_url),
        ("DB_OWNER_URL", &db.owner_url),
    ];
    let variables: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut config = Config::from_vars(&variables).unwrap();
    change(&mut config);
    config
}
