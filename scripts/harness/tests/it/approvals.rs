//! Write tools that ask first [M8].

use anyhow::{Context, Result, ensure};
use harness::client::{Chat, Client, Posted};

use crate::run::{SOON, ensure_eq, here, run};

const ASKING: &str = "[[tool:add_task {\"title\":\"with leave\"}]]";

/// Posts a turn that parks; gives the call that it asks about.
async fn parked(client: &Client) -> Result<(Posted, String)> {
    let posted = client.accept(&Chat::new(ASKING)).await?;
    let job = client.until(&posted.job, &["awaiting_approval"], SOON).await?;
    let waiting = &job["waitingFor"];
    ensure!(waiting.to_string().contains("with leave"), "the arguments are not shown: {waiting}");
    let transcript = client
        .follow(&posted.job)
        .until(|frames| frames.last().is_some_and(|frame| frame.event == "approval_required"))
        .await?;
    let asked = transcript.frames.last().context("no events")?.json();
    ensure_eq!(asked["args"]["title"], "with leave", "{asked}");
    ensure!(asked["expiresAt"].is_string(), "{asked}");
    let call = asked["id"].as_str().context("no call id")?.to_owned();
    Ok((posted, call))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_call_runs() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let (posted, call) = parked(&client).await?;
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks before the approval");
        ensure_eq!(
            client.decide(&posted.job, "no-such-call", "approve").await?.status,
            404,
            "an unknown call"
        );
        ensure_eq!(client.decide(&posted.job, &call, "perhaps").await?.status, 422, "an unknown decision");
        let answer = client.decide(&posted.job, &call, "approve").await?;
        ensure!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.body);
        client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure_eq!(stack.database.count("items_task").await?, 1, "tasks");
        ensure_eq!(client.decide(&posted.job, &call, "deny").await?.status, 409, "a second, other decision");
        client.follow(&posted.job).to_done().await?;
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_call_does_not_and_the_model_is_told() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let (posted, call) = parked(&client).await?;
        client.decide(&posted.job, &call, "deny").await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks");
        let told = String::from_utf8_lossy(&stack.model().received().last().unwrap().body).to_lowercase();
        ensure!(told.contains("denied") || told.contains("declined"), "the model was not told: {told}");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_nobody_gives_is_a_denial() -> Result<()> {
    run(here().env("APPROVAL_TIMEOUT_SECONDS", "1"), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let (posted, call) = parked(&client).await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks");
        ensure_eq!(client.decide(&posted.job, &call, "approve").await?.status, 409, "a late approval");
        client.follow(&posted.job).to_done().await?;
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_tool_is_refused_to_the_model() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "deny").await?;
        client.accept(&Chat::new(ASKING).wait(10)).await?;
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_turn_that_parks_answers_202() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let before = std::time::Instant::now();
        let posted = client.accept(&Chat::new(ASKING).wait(20)).await?;
        ensure_eq!(posted.answer.status, 202, "{}", posted.answer.body);
        ensure!(before.elapsed() < SOON, "it waited for {:?}", before.elapsed());
        client.cancel(&posted.job).await?;
        client.until(&posted.job, &["cancelled"], SOON).await?;
        stack.check_as(harness::oracle::Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}
