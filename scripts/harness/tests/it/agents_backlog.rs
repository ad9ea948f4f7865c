//! What waits for one agent, and what an open breaker is closed by [A3]: neither a long backlog nor what was under way changes
//! anything for others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{
    client::Client,
    fakes::agent::{FakeAgent, Manner},
    stack::Stack,
};
use serde_json::{Value, json};

use crate::{
    agents::{admin, all, deliveries, hold, register, sign_in, sign_in_again, told},
    run::{SOON, ensure_eq, here, processes, run},
};

/// A token of the agent, with new credentials.
async fn token(stack: &Stack, admin: &Client, name: &str) -> Result<String> {
    let made = admin.post(&format!("/admin/agents/{name}/credentials"), &json!({})).await?;
    ensure!(made.status == 201 || made.status == 200, "{} {}", made.status, made.body);
    let made = made.json();
    let body = json!({"agent_name": name, "api_key": made["apiKey"], "client_secret": made["clientSecret"]});
    let answer = stack.client(0).post("/api/v1/agents/token", &body).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(answer.json()["access_token"].as_str().context("a token")?.to_owned())
}

async fn acknowledge(stack: &Stack, token: &str, event: &str) -> Result<()> {
    let url = format!("{}/api/v1/agents/events/{event}/ack", stack.client(0).base);
    let request = harness::client::http().post(url).header("X-Agent-Authorization", token);
    let answer = stack.client(0).send(request).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}

async fn breaker(admin: &Client, name: &str) -> Result<Value> {
    Ok(admin.get(&format!("/admin/agents/{name}/breaker")).await?.json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_acknowledges_before_it_answers_has_answered_too() -> Result<()> {
    // It is held for longer than an answer usually may take.
    let builder =
        told(here()).env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1").env("MCP_NOTIFICATION_TIMEOUT", "20");
    run(builder, async |stack| {
        let admin = admin(stack).await?;
        let agent = FakeAgent::start(Manner::Status(500)).await?;
        register(&admin, "prompt", &agent, json!({})).await?;
        let token = token(stack, &admin, "prompt").await?;
        sign_in(&stack.client(0), "ann").await?;
        agent.until(1, SOON).await?;
        // The next one finds out whether the agent is well again: it acknowledges, then answers.
        agent.set(Manner::Held);
        let received = agent.until(2, SOON).await?;
        acknowledge(stack, &token, &received[1].event_id()).await?;
        agent.set(Manner::Well);
        agent.release();
        let settled = |items: &[Value]| items.iter().all(|item| item["responseStatus"] == 204);
        deliveries(&admin, "", |items| all(items, 1, "delivered") && settled(items)).await?;
        ensure_eq!(breaker(&admin, "prompt").await?["state"], "closed", "the breaker");
        // It is known which version it has.
        sign_in_again(&stack.client(0), "ann").await?;
        let next = agent.until(3, SOON).await?[2].json();
        ensure_eq!(next["prev_version"], received[1].json()["version"], "the version before");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_an_admin_opened_stays_open() -> Result<()> {
    for answers in [true, false] {
        let timeout = if answers { "20" } else { "1" };
        run(told(here()).env("MCP_NOTIFICATION_TIMEOUT", timeout), async |stack| {
            let admin = admin(stack).await?;
            let agent = FakeAgent::start(Manner::Held).await?;
            register(&admin, "held", &agent, json!({})).await?;
            sign_in(&stack.client(0), "ann").await?;
            agent.until(1, SOON).await?;
            hold(&admin, "held").await?;
            let until = breaker(&admin, "held").await?["openUntil"].clone();
            if answers {
                agent.release();
            }
            let is_settled = |items: &[Value]| items.iter().all(|item| !item["durationMs"].is_null());
            let settled = deliveries(&admin, "", is_settled).await?;
            ensure_eq!(settled[0]["responseStatus"] == 204, answers, "whether it answered");
            let after = breaker(&admin, "held").await?;
            ensure_eq!(
                (&after["state"], &after["openUntil"]),
                (&json!("open"), &until),
                "when it answers: {answers}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_of_one_agent_delays_nobody_else() -> Result<()> {
    run(told(here()), async |stack| {
        let admin = admin(stack).await?;
        let (well, down) = (FakeAgent::start(Manner::Well).await?, FakeAgent::start(Manner::Well).await?);
        register(&admin, "well", &well, json!({})).await?;
        register(&admin, "down", &down, json!({})).await?;
        hold(&admin, "down").await?;
        sign_in(&stack.client(0), "ann").await?;
        well.until(1, SOON).await?;
        // Without the triggers, which ask for flags a hundred thousand times.
        sqlx::raw_sql(
            "set session_replication_role = replica;
             insert into agent_notification_events (tenant_id, event_id, target_agent, user_id, event_type)
             select d.tenant_id, d.event_id, 'down', gen_random_uuid(), 'user_login'
             from agent_notification_events d, generate_series(1, 100000) where d.target_agent = 'well';
             reset session_replication_role",
        )
        .execute(&stack.database.admin)
        .await?;
        let begun = std::time::Instant::now();
        sign_in(&stack.client(0), "bob").await?;
        well.until(2, SOON).await?;
        ensure!(begun.elapsed() < Duration::from_secs(3), "it was told after {:?}", begun.elapsed());
        ensure_eq!(down.received().len(), 0, "what the agent that is left alone was told");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_finishes_what_it_tells() -> Result<()> {
    run(told(processes()).env("MCP_NOTIFICATION_TIMEOUT", "8"), async |stack| {
        let admin = admin(stack).await?;
        let agent = FakeAgent::start(Manner::Held).await?;
        register(&admin, "held", &agent, json!({})).await?;
        sign_in(&stack.client(0), "ann").await?;
        agent.until(1, SOON).await?;
        let worker = stack.workers[0].real();
        worker.signal("TERM")?;
        let deadline = tokio::time::Instant::now() + SOON;
        while !worker.log().contains("stopping: no more claims") {
            ensure!(tokio::time::Instant::now() < deadline, "it does not stop: {}", worker.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        agent.set(Manner::Well);
        agent.release();
        ensure!(worker.wait(SOON).await?.success(), "{}", worker.log_tail());
        let items = deliveries(&admin, "", |items| all(items, 1, "delivered")).await?;
        ensure_eq!(
            (&items[0]["responseStatus"], agent.received().len()),
            (&json!(204), 1),
            "how it was told"
        );
        Ok(())
    })
    .await
}
