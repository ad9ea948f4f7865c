//! Agents, and workers, that are in trouble [A3]: whatever happens, each event arrives in the end, in its user's order, or is a
//! dead letter. Each test is run for deliveries that go one by one and for those that go together.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use harness::{
    fakes::agent::{FakeAgent, Manner, Received},
    proxy::Mode,
    stack::Through,
};
use serde_json::Value;

use crate::{
    agents::{
        Kind, admin, all, deliveries, deliveries_within, hold, let_go, register, run_both, sign_in,
        sign_in_again, sign_out, told,
    },
    run::{SOON, ensure_eq, here, processes},
};

/// `MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT` of these stacks, less what timers may be off.
const LEFT_ALONE: Duration = Duration::from_millis(450);

/// How often an event came whose every try failed: of a batch that is not taken each event has all its tries alone.
fn tries(kind: Kind, alone: usize) -> std::ops::RangeInclusive<usize> {
    match kind {
        Kind::OneByOne => alone..=alone,
        // Two that look for work at the same time part a batch, and what is left of it may be a single delivery.
        Kind::Together => alone..=alone + 1,
    }
}

/// What was taken, as event and kind of event, in the order in which it came.
fn taken(agent: &FakeAgent) -> Vec<(String, String)> {
    let all = agent.received();
    let taken = all.iter().filter(|one| one.is_taken());
    taken
        .map(|one| (one.event_id(), one.json()["event_type"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_answers_decides_what_becomes_of_a_delivery() -> Result<()> {
    let builder = || told(here()).env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000");
    run_both(builder, async |stack, kind| {
        let admin = admin(stack).await?;
        let mut agents = BTreeMap::new();
        for (name, manner) in [
            ("down", Manner::Status(500)),
            ("gone", Manner::Status(410)),
            ("busy", Manner::After(429, 1)),
            ("moved", Manner::Redirect),
            ("silent", Manner::Silent),
            ("slow", Manner::Slow(300)),
            ("long", Manner::Long(100_000)),
            ("wordy", Manner::Long(20_000)),
        ] {
            let agent = FakeAgent::start(manner).await?;
            register(&admin, name, &agent, kind.registered()).await?;
            hold(&admin, name).await?;
            agents.insert(name, agent);
        }
        for person in ["bob", "kit"] {
            sign_in(&stack.client(0), person).await?;
        }
        for name in agents.keys() {
            let_go(&admin, name).await?;
        }
        let busy = agents["busy"].until(2, SOON).await?;
        agents["busy"].set(Manner::Well);
        let again = agents["busy"].until(4, SOON).await?.split_off(2);
        for second in &again {
            let first = busy.iter().find(|one| one.event_id() == second.event_id());
            let pause = first.map(|first| second.at - first.at);
            ensure!(pause.is_some_and(|pause| pause >= Duration::from_millis(900)), "Retry-After: {pause:?}");
            ensure!(!second.in_batch, "what came back goes alone");
        }

        let ended = |items: &[Value]| {
            items.len() == 16
                && items.iter().all(|item| item["status"] == "failed" || item["status"] == "delivered")
        };
        let items = deliveries(&admin, "", ended).await?;
        let of =
            |name: &str| items.iter().filter(|item| item["targetAgent"] == name).cloned().collect::<Vec<_>>();
        for (name, status, alone) in
            [("down", Some(500), 4), ("moved", Some(307), 4), ("silent", None, 4), ("gone", Some(410), 1)]
        {
            let received = agents[name].received();
            for item in of(name) {
                ensure_eq!(item["status"], "failed", "{name}");
                ensure_eq!(item["responseStatus"].as_u64(), status, "{name}");
                ensure_eq!(item["retryCount"], alone - 1, "the retries of {name}");
                let count = received.iter().filter(|one| item["eventId"] == one.event_id()).count();
                let wanted = if name == "gone" { 1..=1 } else { tries(kind, alone) };
                ensure!(wanted.contains(&count), "{name} was told {count} times, not {wanted:?}");
            }
        }
        for name in ["slow", "wordy", "long", "busy"] {
            ensure!(of(name).iter().all(|item| item["status"] == "delivered"), "{name}: {:#?}", of(name));
        }
        ensure_eq!(agents["slow"].received().len(), 2, "what an agent that is slow is told");
        for item in of("long") {
            ensure_eq!(item["responseStatus"], 200, "an answer that is not read to its end");
            ensure_eq!(
                item["responseBody"].as_str().map(str::len),
                Some(8192),
                "what is kept of a long answer"
            );
        }
        for item in of("wordy") {
            let kept = item["responseBody"].as_str().map(str::len).unwrap_or_default();
            let together = agents["wordy"].received().iter().filter(|one| one.in_batch).count().max(1);
            ensure_eq!(kept, 8192 / together, "what is kept of an answer");
        }
        let gone = admin.get("/admin/agents/gone").await?.json();
        ensure!(gone["enabled"] == false && gone["disabledBecause"].is_string(), "{gone}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_agent_is_left_alone_and_then_told_all_in_order() -> Result<()> {
    run_both(
        || told(here()).env("MCP_MAX_RETRY_ATTEMPTS", "20"),
        async |stack, kind| {
            let admin = admin(stack).await?;
            let (ill, well) =
                (FakeAgent::start(Manner::Status(503)).await?, FakeAgent::start(Manner::Well).await?);
            register(&admin, "ill", &ill, kind.registered()).await?;
            register(&admin, "well", &well, kind.registered()).await?;
            let client = stack.client(0);
            for turn in 0..3 {
                let (token, _) = match turn {
                    0 => sign_in(&client, "eve").await?,
                    _ => sign_in_again(&client, "eve").await?,
                };
                sign_out(&client, &token).await?;
            }
            well.until(6, Duration::from_secs(5)).await?;
            // It is asked five times and then only now and then.
            ill.until(6, SOON).await?;
            ill.set(Manner::Well);
            deliveries(&admin, "agent=ill", |items| all(items, 6, "delivered")).await?;
            let kinds: Vec<_> = taken(&well).into_iter().map(|(_, kind)| kind).collect();
            ensure_eq!(
                kinds,
                ["user_authenticated", "user_logged_out"].repeat(3),
                "the order at the one that is well"
            );
            ensure_eq!(taken(&ill), taken(&well), "what the other took, each once and in order");
            Ok(())
        },
    )
    .await
}

/// How many requests an agent had refused in a row, and when, before each next one came.
fn pauses_after_refusals(received: &[Received]) -> Vec<(usize, Duration)> {
    let mut requests: Vec<&Received> = Vec::new();
    for one in received {
        if requests.last().is_none_or(|last| last.request != one.request) {
            requests.push(one);
        }
    }
    let mut refused = 0;
    let pauses = requests.windows(2).map(|two| {
        refused = if two[0].is_taken() { 0 } else { refused + 1 };
        (refused, two[1].at - two[0].at)
    });
    pauses.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_agent_is_probed_once_at_a_time_and_told_each_event_once_in_order() -> Result<()> {
    let builder = || told(here()).env("MCP_MAX_RETRY_ATTEMPTS", "20").env("AGENT_RETRY_BASE_MS", "10");
    run_both(builder, async |stack, kind| {
        let admin = admin(stack).await?;
        let flapping = FakeAgent::start(Manner::Waves(7, 2)).await?;
        register(&admin, "flapping", &flapping, kind.registered()).await?;
        hold(&admin, "flapping").await?;
        let client = stack.client(0);
        let (token, _) = sign_in(&client, "eve").await?;
        sign_out(&client, &token).await?;
        for _ in 0..2 {
            let (token, _) = sign_in_again(&client, "eve").await?;
            sign_out(&client, &token).await?;
        }
        let_go(&admin, "flapping").await?;
        // After the fifth refusal it is left alone.
        flapping.until(5, SOON).await?;
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let breaker = admin.get("/admin/agents/flapping/breaker").await?.json();
            if breaker["state"] != "closed" {
                ensure!(breaker["failures"].as_u64() >= Some(5), "{breaker}");
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "its breaker stays closed: {breaker}");
        }
        let items = deliveries(&admin, "", |items| all(items, 6, "delivered")).await?;
        // One line: whatever was refused was asked for again before anything else, and each event was taken once.
        let order: Vec<_> =
            items.iter().rev().map(|item| item["eventId"].as_str().unwrap_or_default()).collect();
        let took: Vec<_> = taken(&flapping).into_iter().map(|(id, _)| id).collect();
        ensure_eq!(took, order, "what was taken, in order");
        let pauses = pauses_after_refusals(&flapping.received());
        let mut probes = 0;
        for (refused, pause) in &pauses {
            // Whoever failed five times and more is asked once and then left alone again.
            ensure!(
                *refused < 5 || *pause >= LEFT_ALONE,
                "asked {pause:?} after refusal {refused}: {pauses:?}"
            );
            probes += usize::from(*refused >= 5);
        }
        ensure!(probes >= 6, "three times down, three requests each while it was left alone: {pauses:?}");
        let breaker = admin.get("/admin/agents/flapping/breaker").await?.json();
        ensure!(breaker["state"] == "closed" && breaker["failures"] == 0, "{breaker}");

        // Many lines: it is asked by several at once until it is left alone, and then by one at a time.
        let down = FakeAgent::start(Manner::Status(503)).await?;
        register(&admin, "down", &down, kind.registered()).await?;
        hold(&admin, "down").await?;
        for person in ["ann", "bob", "cat", "dan", "fay"] {
            sign_in(&client, person).await?;
        }
        let_go(&admin, "down").await?;
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let pauses = pauses_after_refusals(&down.received());
            // Were there several who probe, it would never be left alone three times in a row.
            if pauses.iter().rev().take_while(|(_, pause)| *pause >= LEFT_ALONE).count() >= 3 {
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "it is asked on and on: {pauses:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        down.set(Manner::Well);
        deliveries(&admin, "agent=down", |items| all(items, 5, "delivered")).await?;
        ensure_eq!(taken(&down).len(), 5, "each taken once");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_the_middle_of_telling_is_replaced() -> Result<()> {
    run_both(
        || told(processes()),
        async |stack, kind| {
            let admin = admin(stack).await?;
            let agent = FakeAgent::start(Manner::Silent).await?;
            register(&admin, "patient", &agent, kind.registered()).await?;
            hold(&admin, "patient").await?;
            for person in ["zoe", "yan", "xia"] {
                sign_in(&stack.client(0), person).await?;
            }
            let_go(&admin, "patient").await?;
            agent.until(3, SOON).await?;
            stack.workers[0].kill();
            agent.set(Manner::Well);
            stack.start_worker(&[]).await?;
            deliveries(&admin, "", |items| all(items, 3, "delivered")).await?;
            came_twice_and_the_same(&agent, 3)
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_could_not_be_written_down_is_asked_for_again() -> Result<()> {
    run_both(
        || told(processes()).proxy(Through::Workers),
        async |stack, kind| {
            let admin = admin(stack).await?;
            let agent = FakeAgent::start(Manner::Held).await?;
            register(&admin, "patient", &agent, kind.registered()).await?;
            hold(&admin, "patient").await?;
            for person in ["ida", "ian"] {
                sign_in(&stack.client(0), person).await?;
            }
            let_go(&admin, "patient").await?;
            agent.until(2, SOON).await?;
            // The agent has it and is about to say so; the worker has no database to write that into.
            stack.proxy().mode(Mode::Refuse);
            stack.proxy().cut_all();
            agent.set(Manner::Well);
            agent.release();
            let before = deliveries(&admin, "", |_| true).await?;
            ensure!(
                before.iter().all(|one| one["status"] == "pending"),
                "nobody knows that it was delivered"
            );
            stack.proxy().mode(Mode::Pass);
            // At the latest when the schedule's ticket has it looked for.
            let minute = Duration::from_secs(60);
            let after = deliveries_within(minute, &admin, "", |items| all(items, 2, "delivered")).await?;
            ensure!(
                after.iter().all(|one| one["retryCount"] == 0),
                "an outage of ours is no failure of the agent's"
            );
            came_twice_and_the_same(&agent, 2)
        },
    )
    .await
}

/// Each of so many events came twice, with the same words and by an id by which the agent knows it.
fn came_twice_and_the_same(agent: &FakeAgent, events: usize) -> Result<()> {
    let received = agent.received();
    ensure_eq!(received.len(), 2 * events, "what was told: {received:#?}");
    let (first, second) = received.split_at(events);
    for first in first {
        let again = second.iter().find(|second| second.event_id() == first.event_id());
        ensure!(again.is_some_and(|again| again.body == first.body), "{first:#?} is not {again:#?}");
        let is_same = |again: &Received| again.header("webhook-id") == first.header("webhook-id");
        ensure!(
            again.is_some_and(|again| again.in_batch != first.in_batch || is_same(again)),
            "the id changed"
        );
    }
    Ok(())
}
