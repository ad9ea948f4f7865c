//! Two hundred people sign in and out while two of five agents are down: first all of it is published, then each agent is
//! asked for every event. `scripts/bench agents` measures the same with an optimised build.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use harness::{
    client::Client,
    fakes::agent::{FakeAgent, Manner, Received},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    agents::{Kind, admin, register, told},
    run::{ensure_eq, here, run},
};

const PEOPLE: usize = 200;
/// Agents that accept batches.
const BATCHING: [&str; 3] = ["risk_management", "news_analysis", "user_preference"];
/// At once: fewer than the attempts that one address has.
const AT_ONCE: usize = 8;
/// From a sign-in's answer to an agent that is well [A8].
const SOON: Duration = Duration::from_secs(5);
/// Failed deliveries of many people, tried and given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Signs a new person in and out, from an address of their own; answers who they are and when they were signed in.
async fn visit(client: &Client, number: usize) -> Result<(String, Instant)> {
    let address = format!("192.0.2.{}", number % 250 + 1);
    let post = async |path: &str, token: Option<&str>, body: serde_json::Value| {
        let mut request = harness::client::http()
            .post(format!("{}/api/v1/auth/{path}", client.base))
            .header("x-forwarded-for", &address)
            .json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = client.send(request).await?;
        ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
        anyhow::Ok(answer)
    };
    let account =
        json!({"email": format!("person{number}@example.test"), "password": "a long enough password"});
    post("register", None, account.clone()).await?;
    let signed_in = post("login", None, account).await?.json();
    let at = Instant::now();
    let token = signed_in["access_token"].as_str().context("a token")?;
    post("logout", Some(token), json!({})).await?;
    Ok((signed_in["user"]["id"].as_str().context("a user")?.to_owned(), at))
}

/// What an agent was told, by event, in the order in which it first came.
fn events(received: &[Received]) -> Vec<(String, String, String)> {
    let mut seen = BTreeSet::new();
    let all = received.iter().map(|delivery| {
        let body = delivery.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (text(&body["event_id"]), text(&body["user_context"]["user_id"]), text(&body["event_type"]))
    });
    all.filter(|(id, ..)| seen.insert(id.clone())).collect()
}

async fn until(what: &str, within: Duration, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + within;
    while !holds().await? {
        ensure!(Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn count(admin: &Client, query: &str) -> Result<usize> {
    let answer = admin.get(&format!("/admin/deliveries?limit=1000&{query}")).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(answer.json()["items"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figure is what the test is asked for")]
async fn every_event_reaches_every_agent_although_two_of_five_are_down() -> Result<()> {
    let builder = told(here())
        .env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000")
        .env("MCP_MAX_RETRY_ATTEMPTS", "1")
        .env("MCP_NOTIFICATION_TIMEOUT", "0.5")
        .env("TRUSTED_PROXIES", "127.0.0.0/8")
        .env("RATE_LIMIT_ADDRESS_PER_MINUTE", "0");
    run(builder, async |stack| {
        let admin = admin(stack).await?;
        let manners = [
            ("technical_analysis", Manner::Well),
            ("portfolio_optimization", Manner::Well),
            ("risk_management", Manner::Well),
            ("news_analysis", Manner::Status(500)),
            ("user_preference", Manner::Silent),
        ];
        let mut agents = BTreeMap::new();
        for (name, manner) in &manners {
            let agent = FakeAgent::start(manner.clone()).await?;
            // Of those that are well and of those that are down, some are told of several events at once.
            let kind = if BATCHING.contains(name) { Kind::Together } else { Kind::OneByOne };
            register(&admin, name, &agent, kind.registered()).await?;
            agents.insert(*name, agent);
        }
        let (well, down): (Vec<&str>, Vec<&str>) = (
            manners[..3].iter().map(|(name, _)| *name).collect(),
            manners[3..].iter().map(|(name, _)| *name).collect(),
        );

        // Published.
        let client = stack.client(0);
        let answered: HashMap<String, Instant> = stream::iter(0..PEOPLE)
            .map(|number| visit(&client, number))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;

        // Verified: at the agents that are well, all of it, in order for each person, soon.
        for name in &well {
            until(name, SOON, async || Ok(events(&agents[name].received()).len() >= 2 * PEOPLE)).await?;
            let (mut late, mut seen) = (Vec::new(), BTreeSet::new());
            for delivery in agents[name].received() {
                let body = delivery.json();
                // At least once: what comes again is no later for it.
                if body["event_type"] == "user_authenticated" && seen.insert(body["event_id"].to_string()) {
                    let at = answered[body["user_context"]["user_id"].as_str().context("a user")?];
                    late.push(delivery.at.saturating_duration_since(at));
                }
            }
            late.sort();
            eprintln!(
                "{name} was told after {:?} (median), {:?} (last)",
                late[late.len() / 2],
                late[late.len() - 1]
            );
            ensure!(late[late.len() - 1] < SOON, "{name} was told after {:?}", late[late.len() - 1]);
            is_all_of_it(&admin, name, &agents[name], &answered).await?;
        }
        // At the others: nothing is lost, but given up.
        for name in &down {
            until(name, PATIENCE, async || {
                Ok(count(&admin, &format!("agent={name}&status=failed")).await? == 2 * PEOPLE)
            })
            .await?;
            agents[name].set(Manner::Well);
        }
        for name in &down {
            let before = agents[name].received().len();
            let replayed = admin.post("/admin/deliveries/replay", &json!({"agent": name})).await?.json();
            ensure_eq!(replayed["replayed"], 2 * PEOPLE, "{replayed}");
            until(name, PATIENCE, async || {
                Ok(count(&admin, &format!("agent={name}&status=delivered")).await? == 2 * PEOPLE)
            })
            .await?;
            let again = events(&agents[name].received().split_off(before));
            ensure_eq!(again.len(), 2 * PEOPLE, "events of the replay to {name}");
            is_all_of_it(&admin, name, &agents[name], &answered).await?;
        }
        Ok(())
    })
    .await
}

/// Both events of everybody, each once by its id, the beginning before the end: the very events that were written for the agent.
async fn is_all_of_it(
    admin: &Client,
    name: &str,
    agent: &FakeAgent,
    people: &HashMap<String, Instant>,
) -> Result<()> {
    let events = events(&agent.received());
    ensure_eq!(events.len(), 2 * people.len(), "events at {name}");
    let written = admin.get(&format!("/admin/deliveries?limit=1000&agent={name}")).await?.json();
    let written = written["items"].as_array().into_iter().flatten();
    let written: BTreeSet<&str> = written.filter_map(|item| item["eventId"].as_str()).collect();
    let seen: BTreeSet<&str> = events.iter().map(|(id, ..)| id.as_str()).collect();
    ensure!(
        seen == written,
        "{name} was told of {} of {} events",
        seen.intersection(&written).count(),
        written.len()
    );
    let mut by_person: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, user, kind) in &events {
        by_person.entry(user).or_default().push(kind);
    }
    for (user, kinds) in by_person {
        ensure!(people.contains_key(user), "{name} was told of {user}, who is nobody");
        ensure_eq!(kinds, ["user_authenticated", "user_logged_out"], "what {name} was told of {user}");
    }
    Ok(())
}
