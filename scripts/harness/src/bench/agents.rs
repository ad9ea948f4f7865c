//! Agents that are told of sign-ins and changes: what that costs a sign-in, how soon they know, and how many deliveries a second
//! there are, one by one and together.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Plan,
    login::{Api, CHEAP},
    report::Table,
    stack::{KEY, Stack},
    statistics::{Samples, figure, float, milliseconds},
};
use crate::fakes::agent::{FakeAgent, Manner, Received};

/// Three that are well, one that refuses, one that never answers.
const MANNERS: [Manner; 5] = [Manner::Well, Manner::Well, Manner::Well, Manner::Status(500), Manner::Silent];
const WELL: usize = 3;
/// Of those that are well, these may see preferences.
const SEEING: usize = 2;
/// Logins between two changes of what is measured.
const ROUND: usize = 25;
/// From one login to the next: as people come, and as fast as they are answered, which is more than this machine can tell of.
const PACES: [(&str, Duration); 2] =
    [("20 logins a second", Duration::from_millis(50)), ("one login after the other", Duration::ZERO)];

/// Measures.
///
/// # Errors
/// Somebody is not signed in, or an agent that is well is not told.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> Result<Table> {
    let (_process, address) =
        stack.another_api(&[CHEAP[0], CHEAP[1], ("TRUSTED_PROXIES", "127.0.0.0/8")]).await?;
    let api = Api::at(address);
    let admin = Admin { http: crate::client::http(), base: format!("http://{address}") };
    let account = api.account("told@bench.example").await?;
    api.logins(&account, 30).await?;
    let mut agents = Vec::new();
    for (number, manner) in MANNERS.into_iter().enumerate() {
        let agent = FakeAgent::start(manner).await?;
        let sees: &[&str] = if number < SEEING { &["read:preferences"] } else { &[] };
        admin.register(&format!("agent_{number}"), &agent, sees).await?;
        agents.push(agent);
    }

    let mut table = Table::new("Agents that are told of sign-ins", &["", "p50 ms", "p95", "p99"]);
    let mut add = |name: &str, times: &Samples| {
        table.row([
            name.to_owned(),
            milliseconds(times.median()),
            figure(times.percentile(95.0)),
            figure(times.percentile(99.0)),
        ]);
    };
    let mut longer = Vec::new();
    for (name, pace) in PACES {
        let [alone, told] = logins(plan, &api, &admin, &account, pace).await?;
        add(&format!("{name}, without the hash's time, no agents"), &alone);
        add("the same, five agents, two of them down", &told);
        longer.push(figure(told.percentile(95.0) - alone.percentile(95.0)));
    }

    let soon = sooner(plan, &api, &agents).await?;
    add("from the login's answer to the agents that are well", &soon);

    let changed = changes(plan, &api, &admin, &agents).await?;
    add("from a changed preference's request to the agents that may see it", &changed);

    for agent in &agents {
        agent.set(Manner::Well);
    }
    // Open breakers close with the first success.
    admin.change(&json!({"enabled": true})).await?;
    let (count, rate) = backlog(plan, stack, &api, &agents, "late").await?;
    admin.change(&json!({"acceptsBatches": true})).await?;
    let (_, together) = backlog(plan, stack, &api, &agents, "later").await?;
    table.note(format!(
        "The 95th percentile of a login is {} ms longer with agents at 20 a second (aim: 5 at most), {} ms when there is no pause between logins. A backlog of {count} deliveries to five agents went out at {} a second, and at {} a second when the agents accept batches.",
        longer[0],
        longer[1],
        figure(rate),
        figure(together)
    ));
    table.note("One agent answers 500, one never; their breakers open as they would. Agents, callers and workers share the machine.");
    table.note("Aims: agents told within 1 s. A change is told to nobody who may not see it, or the measurement ends.");
    Ok(table)
}

/// Logins without agents and with them, in turns.
async fn logins(
    plan: &Plan,
    api: &Api,
    admin: &Admin,
    account: &Value,
    pace: Duration,
) -> Result<[Samples; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..plan.pick(4, 12) {
        for (is_on, times) in [false, true].into_iter().zip(&mut times) {
            admin.change(&json!({"enabled": is_on})).await?;
            for _ in 0..ROUND {
                let begun = Instant::now();
                api.post("login", account).await?.bytes().await?;
                times.push(begun.elapsed());
                tokio::time::sleep_until(begun + pace).await;
            }
        }
    }
    Ok(times.map(Samples::of_times))
}

struct Admin {
    http: reqwest::Client,
    base: String,
}

impl Admin {
    async fn register(&self, name: &str, agent: &FakeAgent, sees: &[&str]) -> Result<()> {
        let body = json!({"name": name, "endpoint": agent.endpoint, "permissions": {"required": sees}});
        let url = format!("{}/admin/agents", self.base);
        self.http.post(url).header("X-API-Key", KEY).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Changes all agents.
    async fn change(&self, body: &Value) -> Result<()> {
        for number in 0..MANNERS.len() {
            let url = format!("{}/admin/agents/agent_{number}", self.base);
            self.http.patch(url).header("X-API-Key", KEY).json(body).send().await?.error_for_status()?;
        }
        Ok(())
    }
}

fn user_of(received: &Received) -> String {
    received.json()["user_context"]["user_id"].as_str().unwrap_or_default().to_owned()
}

/// How soon the agents that are well know of somebody, while the others fail.
async fn sooner(plan: &Plan, api: &Api, agents: &[FakeAgent]) -> Result<Samples> {
    let mut answered = HashMap::new();
    for number in 0..plan.pick(40, 150) {
        let account = api.account(&format!("soon-{number}@bench.example")).await?;
        let answer: Value = api.post("login", &account).await?.json().await?;
        let user = answer["user"]["id"].as_str().context("who signed in")?.to_owned();
        answered.insert(user, Instant::now());
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut times = Vec::new();
    for agent in agents.iter().take(WELL) {
        loop {
            let received = agent.received();
            let known: HashMap<String, Instant> =
                received.iter().map(|delivery| (user_of(delivery), delivery.at)).collect();
            if answered.keys().all(|user| known.contains_key(user)) {
                times.extend(answered.iter().map(|(user, at)| known[user].saturating_duration_since(*at)));
                break;
            }
            ensure!(Instant::now() < deadline, "an agent that is well was not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(Samples::of_times(times))
}

/// How soon the agents that may see a preference know that it changed; the others never do.
async fn changes(plan: &Plan, api: &Api, admin: &Admin, agents: &[FakeAgent]) -> Result<Samples> {
    let account = api.account("changes@bench.example").await?;
    let signed_in: Value = api.post("login", &account).await?.json().await?;
    let token = signed_in["access_token"].as_str().context("a token")?;
    let user = signed_in["user"]["id"].as_str().context("who signed in")?;
    let mut times = Vec::new();
    for number in 0..plan.pick(20, 100) {
        let style = ["conservative", "moderate", "aggressive"][number % 3];
        let change = json!({"preferences": {"trading_style": style}});
        let request = admin.http.patch(format!("{}/api/v1/me/context", admin.base)).bearer_auth(token);
        let at = Instant::now();
        let changed: Value = request.json(&change).send().await?.error_for_status()?.json().await?;
        let version = changed["version"].as_i64().context("a version")?;
        for agent in agents.iter().take(SEEING) {
            times.push(told_of(agent, user, version).await?.saturating_duration_since(at));
        }
    }
    for agent in &agents[SEEING..] {
        let knows = agent.received().iter().any(|told| told.json()["event_type"] == "context_updated");
        ensure!(!knows, "an agent was told of a change that it may not see");
    }
    Ok(Samples::of_times(times))
}

/// When the agent was told of this version of the user's context.
async fn told_of(agent: &FakeAgent, user: &str, version: i64) -> Result<Instant> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut seen = 0;
    loop {
        let received = agent.received();
        let told =
            received[seen..].iter().find(|told| told.json()["version"] == version && user_of(told) == user);
        if let Some(told) = told {
            return Ok(told.at);
        }
        seen = received.len();
        ensure!(Instant::now() < deadline, "an agent was not told of version {version}");
        agent.until(seen + 1, Duration::from_secs(10)).await?;
    }
}

/// Deliveries that waited for workers: how many, and how many a second go out.
async fn backlog(
    plan: &Plan,
    stack: &mut Stack,
    api: &Api,
    agents: &[FakeAgent],
    name: &str,
) -> Result<(usize, f64)> {
    stack.stop_workers().await?;
    let people = plan.pick(60, 300);
    for number in 0..people {
        let account = api.account(&format!("{name}-{number}@bench.example")).await?;
        api.post("login", &account).await?.bytes().await?;
    }
    let before: Vec<usize> = agents.iter().map(|agent| agent.received().len()).collect();
    let begun = Instant::now();
    for _ in 0..plan.workers {
        stack.start_worker()?;
    }
    let mut first = None;
    let well = agents.iter().zip(&before).take(WELL);
    for (agent, before) in well {
        agent.until(before + 1, Duration::from_secs(30)).await?;
        first.get_or_insert_with(Instant::now);
        agent.until(before + people, Duration::from_secs(60)).await?;
    }
    let since = first.unwrap_or(begun);
    let took = since.elapsed().as_secs_f64();
    let count: usize =
        agents.iter().zip(&before).map(|(agent, before)| agent.received().len() - before).sum();
    Ok((count, float(count) / took))
}
