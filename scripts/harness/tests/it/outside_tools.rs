//! Tools whose effect lies beyond the database: at most once, or reported as unknown [T7].

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{client::Chat, fakes::outside::FakeOutside, oracle::Expectations};

use crate::run::{SOON, ensure_eq, processes, run};

/// A worker that has the outside tools dies at this point; another takes over. Answers how often the tool was called.
async fn dies_at(failpoint: &'static str, tool: &'static str, calls: usize) -> Result<()> {
    let outside = FakeOutside::start().await?;
    let builder = processes()
        .worker_binary(env!("CARGO_BIN_EXE_worker_with_outside_tools"))
        .env("OUTSIDE_URL", &outside.url)
        .workers(0);
    run(builder, async |stack| {
        let variable = format!("{failpoint}=abort");
        let doomed = stack.start_worker(&[("ALFRED_FAILPOINT", &variable)]).await?;
        let client = stack.client(0);
        let posted = client.accept(&Chat::new(&format!("[[tool:{tool} {{\"what\":\"bell\"}}]]"))).await?;
        stack.workers[doomed].real().wait(Duration::from_secs(8)).await?;
        stack.start_worker(&[]).await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        client.follow(&posted.job).to_done().await?;
        let received = outside.received();
        ensure_eq!(received.len(), calls, "calls of {tool}: {received:?}");
        let keys: std::collections::BTreeSet<_> = received.iter().map(|call| call.key.clone()).collect();
        ensure!(keys.len() <= 1, "one call under several keys: {keys:?}");
        let told = String::from_utf8_lossy(&stack.model().received().last().unwrap().body).to_lowercase();
        let unknown = told.contains("unknown");
        let expects_unknown = tool == "ring_once" && failpoint != "outside_tool_after_commit";
        ensure_eq!(unknown, expects_unknown, "whether the model was told that the outcome is unknown");
        stack
            .check_as(Expectations {
                outside: received,
                outside_repeatable: vec!["ring_safely".to_owned()],
                takeovers_at_least: 1,
                ..Expectations::default()
            })
            .await
    })
    .await
}

#[tokio::test]
async fn a_write_that_was_announced_is_not_made() -> Result<()> {
    dies_at("outside_tool_after_intent", "ring_once", 0).await
}

#[tokio::test]
async fn a_write_that_was_made_is_not_made_again() -> Result<()> {
    dies_at("outside_tool_after_call", "ring_once", 1).await
}

#[tokio::test]
async fn an_idempotent_write_is_made_again_under_its_key() -> Result<()> {
    dies_at("outside_tool_after_call", "ring_safely", 2).await
}

#[tokio::test]
async fn an_idempotent_write_that_was_announced_is_made() -> Result<()> {
    dies_at("outside_tool_after_intent", "ring_safely", 1).await
}

#[tokio::test]
async fn a_value_that_the_database_refuses_is_told_to_the_model() -> Result<()> {
    let builder = processes().worker_binary(env!("CARGO_BIN_EXE_worker_with_outside_tools"));
    run(builder, async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tool:overflow {}]]").wait(20)).await?;
        let view = client.job(&posted.job).await?;
        ensure_eq!((&view["status"], &view["attempts"]), (&"succeeded".into(), &1.into()), "{view}");
        let call = &view["toolCalls"][0];
        ensure!(call["isError"] == true && call["result"].to_string().contains("out of range"), "{call}");
        stack.check().await
    })
    .await
}
