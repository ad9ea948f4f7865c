//! Agents that accept batches [A3]: what is due goes together, and nothing that goes together suffers by the rest.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use harness::{
    client::Client,
    fakes::agent::{FakeAgent, Manner, Received},
    stack::Stack,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::{
    agents::{
        Kind, TOKEN_KEY, admin, all, deliveries, hold, is_signed, let_go, register, sign_in, sign_in_again,
        sign_out, told,
    },
    run::{SOON, ensure_eq, here, run},
};

/// Bytes of a request: those of its events, and what is around them.
const LARGEST: usize = 256 * 1024 + 1024;

/// Registers an agent that accepts batches; what it is to be told waits.
async fn register_held(admin: &Client, name: &str, agent: &FakeAgent, more: Value) -> Result<String> {
    let mut body = Kind::Together.registered();
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    let secret = register(admin, name, agent, body).await?;
    hold(admin, name).await?;
    Ok(secret)
}

/// The requests by their number, with the events that came in each.
fn requests(agent: &FakeAgent) -> BTreeMap<usize, Vec<Received>> {
    let mut requests: BTreeMap<usize, Vec<Received>> = BTreeMap::new();
    for one in agent.received() {
        requests.entry(one.request).or_default().push(one);
    }
    requests
}

fn of_event<'a>(items: &'a [Value], one: &Received) -> Option<&'a Value> {
    items.iter().find(|item| item["eventId"] == one.event_id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_goes_together_and_says_what_it_would_say_alone() -> Result<()> {
    run(told(here()), async |stack| {
        let admin = admin(stack).await?;
        let (together, alone) =
            (FakeAgent::start(Manner::Well).await?, FakeAgent::start(Manner::Well).await?);
        let sees = json!({"permissions": {"required": ["read:preferences"]}});
        let secret = register_held(&admin, "together", &together, sees.clone()).await?;
        register(&admin, "alone", &alone, sees).await?;
        hold(&admin, "alone").await?;
        let client = stack.client(0);
        for person in ["ann", "bob", "cat"] {
            let (token, _) = sign_in(&client, person).await?;
            sign_out(&client, &token).await?;
            let (token, _) = sign_in_again(&client, person).await?;
            let change = harness::client::http().patch(format!("{}/api/v1/me/context", client.base));
            let change =
                change.bearer_auth(token).json(&json!({"preferences": {"trading_style": "moderate"}}));
            ensure_eq!(client.send(change).await?.status, 200, "a change");
        }
        for name in ["together", "alone"] {
            let_go(&admin, name).await?;
            deliveries(&admin, &format!("agent={name}"), |items| all(items, 12, "delivered")).await?;
        }
        let (told, wanted) = (together.received(), alone.received());
        ensure_eq!((told.len(), wanted.len()), (12, 12), "each event came once");
        let requests = requests(&together);
        ensure!(requests.len() <= 3, "twelve events of three people took {} requests", requests.len());
        for one in &told {
            let same =
                wanted.iter().find(|other| other.event_id() == one.event_id()).context("an event of both")?;
            // All but when the delivery was written.
            let said = |one: &Received| {
                let mut json = one.json();
                json.as_object_mut().and_then(|event| event.remove("timestamp")).map(|_| json)
            };
            ensure_eq!(said(one), said(same), "what is said of an event");
        }
        for person in ["ann", "bob", "cat"] {
            let of = |received: &[Received]| {
                let of = received.iter().filter(|one| one.json()["user_context"]["email"] != Value::Null);
                let of = of.filter(|one| one.body.contains(&format!("{person}@example.test")));
                of.map(|one| (one.event_id(), one.json()["prev_version"].clone())).collect::<Vec<_>>()
            };
            ensure_eq!(of(&told), of(&wanted), "the order of {person}, and the versions");
        }
        for events in requests.values().filter(|events| events.len() > 1) {
            let request = &events[0];
            ensure!(is_signed(request, &secret)?, "the signature is over the whole body");
            ensure!(request.header("webhook-id").starts_with("batch_"), "{:?}", request.headers);
            let mut validation = Validation::new(Algorithm::HS256);
            validation.set_audience(&["together"]);
            let token = request.header("authorization").strip_prefix("Bearer ").context("a token")?;
            jsonwebtoken::decode::<Value>(
                token,
                &DecodingKey::from_secret(TOKEN_KEY.as_bytes()),
                &validation,
            )?;
        }
        // What is due by itself goes by itself.
        sign_in_again(&client, "ann").await?;
        let last = together.until(13, SOON).await?.remove(12);
        ensure!(!last.in_batch && last.header("webhook-id") == last.event_id(), "{last:#?}");
        let shown = admin.get("/admin/agents").await?.json();
        let accepting: Vec<_> =
            shown["items"].as_array().into_iter().flatten().map(|one| &one["acceptsBatches"]).collect();
        ensure_eq!(accepting, [&json!(false), &json!(true)], "what the registry says");
        Ok(())
    })
    .await
}

/// Sign-ins of so many people, or of one: events numbered from one by their correlation.
async fn sign_ins(stack: &Stack, user: Option<uuid::Uuid>, count: i64) -> Result<()> {
    sqlx::query(
        "select user_event($1, coalesce($2, gen_random_uuid()), 'user_login', '{}', n::text) from generate_series(1, $3::bigint) n",
    )
    .bind(stack.tenants[0].id)
    .bind(user)
    .bind(count)
    .execute(&stack.database.admin)
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_bounds_and_lines_keep_their_order_across_batches() -> Result<()> {
    run(told(here()), async |stack| {
        let admin = admin(stack).await?;
        let (many, heavy) = (FakeAgent::start(Manner::Well).await?, FakeAgent::start(Manner::Well).await?);
        register_held(&admin, "many", &many, json!({})).await?;
        // A hundred and twenty people, and one who comes ninety times.
        sign_ins(stack, None, 120).await?;
        let often = uuid::Uuid::new_v4();
        sign_ins(stack, Some(often), 90).await?;
        let_go(&admin, "many").await?;
        deliveries(&admin, "agent=many", |items| all(items, 210, "delivered")).await?;
        let received = many.received();
        let events: BTreeSet<String> = received.iter().map(Received::event_id).collect();
        ensure_eq!((received.len(), events.len()), (210, 210), "each event came once");
        let requests_of_many = requests(&many);
        ensure!(requests_of_many.values().all(|events| events.len() <= 50), "a batch of more than fifty");
        ensure!(requests_of_many.len() <= 42, "{} requests for 210 events", requests_of_many.len());
        let line: Vec<Value> = received
            .iter()
            .map(Received::json)
            .filter(|event| event["user_context"]["user_id"] == often.to_string())
            .map(|event| event["correlation_id"].clone())
            .collect();
        ensure_eq!(
            line,
            (1..=90).map(|number| json!(number.to_string())).collect::<Vec<_>>(),
            "one person's order"
        );

        // Contexts of nearly the largest size: it is the bytes that part them.
        sqlx::query(
            "with people as (select gen_random_uuid() as id from generate_series(1, 12)), known as (
               insert into user_contexts (tenant_id, user_id, context_data)
               select $1, id, jsonb_build_object('preferences', jsonb_build_object('notification_settings',
                 jsonb_build_object('x', repeat('y', 30000)))) from people
               returning user_id)
             select user_event($1, user_id, 'user_login', '{}', null) from known",
        )
        .bind(stack.tenants[0].id)
        .execute(&stack.database.admin)
        .await?;
        register_held(&admin, "heavy", &heavy, json!({"permissions": {"required": ["read:preferences"]}}))
            .await?;
        let synced = admin.post("/admin/agents/heavy/sync", &json!({})).await?;
        ensure_eq!(synced.status, 200, "{}", synced.body);
        let_go(&admin, "heavy").await?;
        deliveries(&admin, "agent=heavy", |items| all(items, 12, "delivered")).await?;
        let requests = requests(&heavy);
        ensure_eq!(heavy.received().len(), 12, "each came once");
        ensure!(requests.len() >= 2, "360 kB in one request");
        ensure!(
            requests.values().flatten().all(|one| one.whole.len() <= LARGEST),
            "a request of too many bytes"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_names_comes_again_alone_and_holds_up_its_user_only() -> Result<()> {
    let builder =
        told(here()).env("MCP_MAX_RETRY_ATTEMPTS", "20").env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000");
    run(builder, async |stack| {
        let admin = admin(stack).await?;
        let bob = "bob@example.test";
        let (later, never) = (
            FakeAgent::start(Manner::Names(bob.to_owned(), 503)).await?,
            FakeAgent::start(Manner::Names(bob.to_owned(), 410)).await?,
        );
        register_held(&admin, "later", &later, json!({})).await?;
        register_held(&admin, "never", &never, json!({})).await?;
        let client = stack.client(0);
        for person in ["ann", "bob", "cat"] {
            let (token, _) = sign_in(&client, person).await?;
            sign_out(&client, &token).await?;
        }
        for name in ["later", "never"] {
            let_go(&admin, name).await?;
        }
        // Named: retried, while the others have been taken.
        let items = deliveries(&admin, "agent=later", |items| {
            let count = |status: &str| items.iter().filter(|item| item["status"] == status).count();
            let tried = items.iter().filter_map(|item| item["retryCount"].as_u64()).max();
            count("delivered") == 4 && tried >= Some(2)
        })
        .await?;
        let others: Vec<_> = items.iter().filter(|item| item["status"] == "delivered").collect();
        ensure!(others.iter().all(|item| item["retryCount"] == 0), "{others:#?}");
        later.set(Manner::Well);
        let items = deliveries(&admin, "agent=later", |items| all(items, 6, "delivered")).await?;
        let received = later.received();
        let his_login =
            received.iter().find(|one| one.body.contains(bob)).context("the event that was named")?;
        let user = his_login.json()["user_context"]["user_id"].clone();
        let his: Vec<&Received> =
            received.iter().filter(|one| one.json()["user_context"]["user_id"] == user).collect();
        let last = &his[his.len() - 2..];
        ensure_eq!(last[0].event_id(), his_login.event_id(), "it was taken before");
        ensure!(
            last[1].event_id() != his_login.event_id() && !last[1].in_batch,
            "what stands behind it came again"
        );
        let behind = of_event(&items, last[1]).context("the delivery")?;
        ensure_eq!(behind["retryCount"], 0, "what stood behind lost no try");
        for one in received.iter().filter(|one| one.json()["user_context"]["user_id"] != user) {
            let count = received.iter().filter(|other| other.event_id() == one.event_id()).count();
            ensure_eq!(count, 1, "how often the others came");
        }

        // Refused for ever: dead, and nothing else is.
        let ended = |items: &[Value]| {
            items.iter().all(|item| item["status"] == "delivered" || item["status"] == "failed")
        };
        let items = deliveries(&admin, "agent=never", |items| items.len() == 6 && ended(items)).await?;
        let dead: Vec<_> = items.iter().filter(|item| item["status"] == "failed").collect();
        ensure!(dead.len() == 1 && dead[0]["responseStatus"] == 410, "{items:#?}");
        ensure!(
            dead[0]["responseBody"].as_str().is_some_and(|body| body.contains("as the test says")),
            "{dead:#?}"
        );
        let shown = admin.get("/admin/agents/never").await?.json();
        ensure_eq!(shown["enabled"], true, "an agent that refuses an event is there");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_dies_alone() -> Result<()> {
    let builder = told(here()).env("MCP_MAX_RETRY_ATTEMPTS", "1");
    run(builder, async |stack| {
        let admin = admin(stack).await?;
        let (chokes, knows_none) = (
            FakeAgent::start(Manner::ChokesOn("bob@example.test".to_owned())).await?,
            FakeAgent::start(Manner::KnowsNoBatches).await?,
        );
        register_held(&admin, "chokes", &chokes, json!({})).await?;
        register_held(&admin, "knows_none", &knows_none, json!({})).await?;
        let client = stack.client(0);
        for person in ["ann", "bob", "cat", "dan", "eve"] {
            sign_in(&client, person).await?;
        }
        for name in ["chokes", "knows_none"] {
            let_go(&admin, name).await?;
        }
        let items = deliveries(&admin, "agent=chokes", |items| {
            let count = |status: &str| items.iter().filter(|item| item["status"] == status).count();
            count("delivered") == 4 && count("failed") == 1
        })
        .await?;
        for one in chokes.received() {
            let item = of_event(&items, &one).context("the delivery")?;
            let is_poison = one.body.contains("bob@");
            ensure_eq!(item["status"], if is_poison { "failed" } else { "delivered" }, "{item}");
            ensure_eq!(item["retryCount"], u64::from(is_poison), "what it cost: {item}");
        }
        let refused =
            requests(&chokes).into_values().filter(|events| events.len() > 1 && !events[0].is_taken());
        ensure_eq!(refused.count(), 1, "batches that were not taken");
        // An agent that says that it accepts batches and does not is told of everything all the same.
        let items = deliveries(&admin, "agent=knows_none", |items| all(items, 5, "delivered")).await?;
        ensure!(items.iter().all(|item| item["retryCount"] == 0), "{items:#?}");
        // The next ones go together again.
        let before = requests(&chokes).len();
        hold(&admin, "chokes").await?;
        for person in ["ann", "cat", "dan", "eve"] {
            sign_in_again(&client, person).await?;
        }
        let_go(&admin, "chokes").await?;
        deliveries(&admin, "agent=chokes&status=delivered", |items| items.len() == 8).await?;
        let next: Vec<_> = requests(&chokes).into_values().skip(before).collect();
        ensure!(next.len() < 4 && next.iter().flatten().all(Received::is_taken), "{next:#?}");
        // The dead letter is told again as any other.
        chokes.set(Manner::Well);
        let replayed = admin.post("/admin/deliveries/replay", &json!({"agent": "chokes"})).await?.json();
        ensure_eq!(replayed["replayed"], 1, "{replayed}");
        deliveries(&admin, "agent=chokes", |items| all(items, 9, "delivered")).await?;
        Ok(())
    })
    .await
}
