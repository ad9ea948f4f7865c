//! Agents are told of sign-ins [A2], [A3]: reliably, in order, and without anybody waiting for them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{
    client::{Answer, Client},
    fakes::agent::{FakeAgent, Manner, Received},
    stack::{Builder, Stack},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;
use shared::{
    identity::{Role, development},
    ids::UserId,
};

use crate::run::{SOON, ensure_eq, here, run};

pub(crate) const TOKEN_KEY: &str = "what-tokens-for-agents-are-signed-with-here";
const PASSWORD: &str = "a long enough password";

pub(crate) fn told(builder: Builder) -> Builder {
    builder
        .env("AGENT_JWT_SECRET_KEY", TOKEN_KEY)
        .env("OUTBOUND_ALLOW", "127.0.0.0/8")
        .env("AGENT_RETRY_BASE_MS", "50")
        .env("MCP_NOTIFICATION_TIMEOUT", "1")
        .env("MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "0.5")
        .env("PASSWORD_HASH_MEMORY_KIB", "64")
        .env("PASSWORD_HASH_PASSES", "1")
}

/// How an agent wants its deliveries. What is promised of them is promised of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OneByOne,
    Together,
}

impl Kind {
    /// What an agent is registered with.
    pub(crate) fn registered(self) -> Value {
        json!({"acceptsBatches": self == Self::Together})
    }
}

/// Runs the test on a stack for each kind of agents.
pub(crate) async fn run_both(
    builder: impl Fn() -> Builder,
    test: impl AsyncFn(&mut Stack, Kind) -> Result<()>,
) -> Result<()> {
    for kind in [Kind::OneByOne, Kind::Together] {
        let tried = run(builder(), async |stack| test(stack, kind).await).await;
        tried.with_context(|| format!("deliveries that go {kind:?}"))?;
    }
    Ok(())
}

/// Has deliveries to the agent wait, until it is let go.
pub(crate) async fn hold(admin: &Client, agent: &str) -> Result<()> {
    let held = admin.post(&format!("/admin/agents/{agent}/breaker/open"), &json!({})).await?;
    ensure!(held.status == 200, "{} {}", held.status, held.body);
    Ok(())
}

/// Has all that waits for the agent delivered.
pub(crate) async fn let_go(admin: &Client, agent: &str) -> Result<()> {
    let free = admin.post(&format!("/admin/agents/{agent}/breaker/reset"), &json!({})).await?;
    ensure!(free.status == 200, "{} {}", free.status, free.body);
    Ok(())
}

/// An admin of the first tenant, which is the default one.
pub(crate) async fn admin(stack: &Stack) -> Result<Client> {
    let engine = stack.database.engine()?;
    let key = format!("admin-key-{}", uuid::Uuid::new_v4().simple());
    let user = UserId::generate();
    let identity = development::Identity {
        tenant: stack.tenants[0].id,
        user,
        email: &format!("{user}@example.test"),
        role: Role::Admin,
        operator: false,
        key: &SecretString::from(key.clone()),
        running_turns: 64,
    };
    development::ensure(&engine, &identity).await?;
    engine.close().await;
    Ok(stack.client(0).with_key(&key))
}

/// Registers the agent; answers its secret.
pub(crate) async fn register(admin: &Client, name: &str, agent: &FakeAgent, more: Value) -> Result<String> {
    let mut body = json!({"name": name, "endpoint": agent.endpoint});
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    let made = admin.post("/admin/agents", &body).await?;
    ensure!(made.status == 201, "{} {}", made.status, made.body);
    Ok(made.json()["secret"].as_str().context("a new agent has a secret")?.to_owned())
}

/// Signs a new person in; answers their access token and id.
pub(crate) async fn sign_in(client: &Client, name: &str) -> Result<(String, String)> {
    let body = json!({"email": format!("{name}@example.test"), "password": PASSWORD});
    let made = client.post("/api/v1/auth/register", &body).await?;
    ensure!(made.status == 202, "{} {}", made.status, made.body);
    sign_in_again(client, name).await
}

pub(crate) async fn sign_in_again(client: &Client, name: &str) -> Result<(String, String)> {
    let body = json!({"email": format!("{name}@example.test"), "password": PASSWORD});
    let answer = client.post("/api/v1/auth/login", &body).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    let json = answer.json();
    let text = |value: &Value| value.as_str().map(str::to_owned).context("the login's shape");
    Ok((text(&json["access_token"])?, text(&json["user"]["id"])?))
}

pub(crate) async fn sign_out(client: &Client, token: &str) -> Result<()> {
    let request = harness::client::http()
        .post(format!("{}/api/v1/auth/logout", client.base))
        .bearer_auth(token)
        .json(&json!({}));
    let answer = client.send(request).await?;
    ensure!(answer.status < 300, "{} {}", answer.status, answer.body);
    Ok(())
}

/// Polls the deliveries until they are as wanted.
pub(crate) async fn deliveries(
    admin: &Client,
    query: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    deliveries_within(SOON, admin, query, wanted).await
}

pub(crate) async fn deliveries_within(
    time: Duration,
    admin: &Client,
    query: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let deadline = tokio::time::Instant::now() + time;
    loop {
        let answer: Answer = admin.get(&format!("/admin/deliveries?limit=1000&{query}")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        let items = answer.json()["items"].as_array().cloned().unwrap_or_default();
        if wanted(&items) {
            return Ok(items);
        }
        ensure!(tokio::time::Instant::now() < deadline, "the deliveries stay {items:#?}");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn all(items: &[Value], count: usize, status: &str) -> bool {
    items.len() == count && items.iter().all(|item| item["status"] == status)
}

/// Checks a signature as the guide tells agents to.
pub(crate) fn is_signed(received: &Received, secret: &str) -> Result<bool> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").context("the form of a secret")?)?;
    let signed = format!(
        "{}.{}.{}",
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
        received.whole
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)?;
    mac.update(signed.as_bytes());
    let wanted = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    Ok(received.header("webhook-signature").split(' ').any(|one| one == wanted))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_that_wants_it_is_told_who_signs_in_and_out() -> Result<()> {
    run_both(
        || told(here()),
        async |stack, kind| {
            let (all_of_it, logins_only) =
                (FakeAgent::start(Manner::Well).await?, FakeAgent::start(Manner::Well).await?);
            let elsewhere = FakeAgent::start(Manner::Well).await?;
            let admin = admin(stack).await?;
            let secret = register(&admin, "all_of_it", &all_of_it, kind.registered()).await?;
            register(&admin, "logins_only", &logins_only, json!({"eventTypes": ["user_login"]})).await?;
            register(&admin, "switched_off", &elsewhere, json!({"enabled": false})).await?;

            let (token, user) = sign_in(&stack.client(0), "ann").await?;
            let login = all_of_it.until(1, Duration::from_secs(5)).await?.remove(0);
            logins_only.until(1, Duration::from_secs(5)).await?;
            ensure!(!login.in_batch, "what is due alone goes alone");
            let body = login.json();
            ensure_eq!(body["event_type"], "user_authenticated", "the event");
            ensure_eq!(body["user_context"], json!({"user_id": user, "email": "ann@example.test"}), "who");
            ensure!(body["session_info"]["sign_in"].is_string(), "{body}");
            ensure_eq!(login.header("webhook-id"), body["event_id"].as_str().unwrap(), "the event's id");
            ensure!(is_signed(&login, &secret)?, "the signature is not good");
            let mut validation = Validation::new(Algorithm::HS256);
            validation.set_audience(&["all_of_it"]);
            let token_for_it = login.header("authorization").strip_prefix("Bearer ").context("a token")?;
            let key = DecodingKey::from_secret(TOKEN_KEY.as_bytes());
            let claims = jsonwebtoken::decode::<Value>(token_for_it, &key, &validation)?;
            ensure_eq!(claims.header.typ.as_deref(), Some("alfred-delivery+jwt"), "the token's type");
            // It opens nothing here.
            let tried =
                harness::client::http().get(format!("{}/sessions", admin.base)).bearer_auth(token_for_it);
            ensure_eq!(admin.send(tried).await?.status, 401, "an agent's token used as a person's");

            sign_out(&admin, &token).await?;
            let logout = all_of_it.until(2, Duration::from_secs(5)).await?.remove(1).json();
            ensure_eq!(logout["event_type"], "user_logged_out", "the event");
            ensure_eq!(logout["user_context"], json!({"user_id": user}), "who");
            ensure_eq!(logout["correlation_id"], body["correlation_id"], "one sign-in");
            deliveries(&admin, "", |items| all(items, 3, "delivered")).await?;
            ensure_eq!(logins_only.received().len(), 1, "what was not wanted");
            ensure_eq!(elsewhere.received().len(), 0, "an agent that is off");

            // Two secrets sign while one replaces the other.
            let rotated = admin.post("/admin/agents/all_of_it/secret", &json!({})).await?.json();
            sign_in_again(&stack.client(0), "ann").await?;
            let third = all_of_it.until(3, Duration::from_secs(5)).await?.remove(2);
            ensure!(is_signed(&third, &secret)?, "the former secret");
            ensure!(is_signed(&third, rotated["secret"].as_str().unwrap())?, "the new secret");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_once_each_and_by_their_admins_only() -> Result<()> {
    run_both(
        || told(here()).env("MCP_MAX_RETRY_ATTEMPTS", "0"),
        async |stack, kind| {
            let admin = admin(stack).await?;
            let agent = FakeAgent::start(Manner::Status(500)).await?;
            register(&admin, "back_soon", &agent, kind.registered()).await?;
            hold(&admin, "back_soon").await?;
            let client = stack.client(0);
            for name in ["kim", "lee", "moe"] {
                sign_in(&client, name).await?;
            }
            let_go(&admin, "back_soon").await?;
            let dead = deliveries(&admin, "status=failed", |items| items.len() == 3).await?;
            ensure_eq!(client.get("/admin/deliveries").await?.status, 403, "a member's look");
            let one = dead[2]["id"].as_str().context("an id")?;
            agent.set(Manner::Well);
            let before = agent.received().len();
            let asked = json!({"agent": "back_soon", "dryRun": true});
            ensure_eq!(
                admin.post("/admin/deliveries/replay", &asked).await?.json(),
                json!({"matched": 3, "replayed": 0}),
                "a dry run"
            );
            let replayed = admin.post(&format!("/admin/deliveries/{one}/replay"), &json!({})).await?;
            ensure_eq!(replayed.status, 200, "{}", replayed.body);
            deliveries(&admin, "status=delivered", |items| items.len() == 1).await?;
            ensure_eq!(
                admin.post(&format!("/admin/deliveries/{one}/replay"), &json!({})).await?.status,
                409,
                "again"
            );
            let all_of_it =
                admin.post("/admin/deliveries/replay", &json!({"agent": "back_soon"})).await?.json();
            ensure_eq!(all_of_it, json!({"matched": 2, "replayed": 2}), "the rest");
            deliveries(&admin, "status=delivered", |items| items.len() == 3).await?;
            // Of three users, whose lines are independent of each other.
            let told = agent.received().split_off(before);
            let events: BTreeSet<_> = told.iter().map(Received::event_id).collect();
            let wanted: BTreeSet<_> =
                dead.iter().map(|one| one["eventId"].as_str().unwrap_or_default().to_owned()).collect();
            ensure!(told.len() == 3 && events == wanted, "{events:?} instead of {wanted:?}");
            Ok(())
        },
    )
    .await
}
