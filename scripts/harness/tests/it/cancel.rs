//! Cancelling within a second, wherever the turn is [T4].

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{client::Chat, fakes::model::Outcome};

use crate::run::{SOON, ensure_eq, here, processes, run};

/// The contract says one second; a debug build on a busy machine is given two.
const PROMPT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_turn_stops_within_a_second_and_so_does_its_model() -> Result<()> {
    run(processes().apis(2), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:8]][[gate:half]]")).await?;
        let gate = stack.model().gate("half");
        ensure!(gate.reached(1, SOON).await, "the model was not asked");
        stack.database.until(&posted.job, SOON, |turn| turn.tokens == 4).await?;
        let before = Instant::now();
        // By another API process than the one that took the turn.
        let answer = client.at(&stack.apis[1].base).cancel(&posted.job).await?;
        ensure_eq!(answer.status, 200, "{}", answer.body);
        let transcript = client.follow(&posted.job).within(PROMPT).to_done().await?;
        ensure!(before.elapsed() < PROMPT, "it took {:?}", before.elapsed());
        ensure_eq!(transcript.done().unwrap()["status"], "cancelled", "done");
        ensure!(
            stack.model().ended(Outcome::Disconnected, 1, PROMPT).await,
            "the model's stream was not dropped: {:?}",
            stack.model().served()
        );
        // What was said stays in the conversation, and the tokens are counted.
        let job = client.job(&posted.job).await?;
        ensure_eq!(job["status"], "cancelled", "{job}");
        ensure!(job["meta"]["tokens"]["input"].as_i64().is_some_and(|count| count > 0), "not metered: {job}");
        client.accept(&Chat::new("go on").session(&posted.session).wait(10)).await?;
        let asked = stack.model().received();
        let last = String::from_utf8_lossy(&asked.last().unwrap().body).into_owned();
        ensure!(last.contains("t0 t1 t2 t3"), "the next request does not have the text so far: {last}");
        stack.check_as(harness::oracle::Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_turn_and_a_finished_one() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("[[gate:first]]")).await?;
        let second = client.accept(&Chat::new("second").session(&first.session)).await?;
        let before = Instant::now();
        let answer = client.cancel(&second.job).await?;
        ensure_eq!(answer.status, 200, "{}", answer.body);
        client.until(&second.job, &["cancelled"], PROMPT).await?;
        ensure!(before.elapsed() < PROMPT, "it took {:?}", before.elapsed());
        let transcript = client.follow(&second.job).to_done().await?;
        ensure_eq!(transcript.kinds(), ["queued", "done"], "the events of a turn that never ran");
        stack.model().gate("first").release();
        let done = client.until(&first.job, &["succeeded"], SOON).await?;
        let again = client.cancel(&first.job).await?;
        ensure_eq!(again.status, 200, "{}", again.body);
        ensure_eq!(client.job(&first.job).await?["finishedAt"], done["finishedAt"], "a finished turn");
        stack.check_as(harness::oracle::Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_turn() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let posted = client.accept(&Chat::new("[[tool:add_task {\"title\":\"never\"}]]")).await?;
        client.until(&posted.job, &["awaiting_approval"], SOON).await?;
        let before = Instant::now();
        client.cancel(&posted.job).await?;
        client.until(&posted.job, &["cancelled"], PROMPT).await?;
        ensure!(before.elapsed() < PROMPT, "it took {:?}", before.elapsed());
        // The conversation goes on, and its history is one that a model accepts.
        stack.database.set_policy(stack.tenants[0].id, "add_task", "allow").await?;
        let next = client.accept(&Chat::new("go on").session(&posted.session).wait(10)).await?;
        ensure_eq!(next.answer.status, 200, "{}", next.answer.body);
        stack.check_as(harness::oracle::Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_turn_that_is_cancelled_is_a_conflict() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.chat(&Chat::new("[[gate:never]]").idempotency("w").wait(20)).await }
        });
        ensure!(stack.model().gate("never").reached(1, SOON).await, "the model was not asked");
        let job = client.accept(&Chat::new("[[gate:never]]").idempotency("w")).await?.job;
        client.cancel(&job).await?;
        let answer = waiting.await??;
        ensure_eq!(answer.status, 409, "{}", answer.body);
        ensure_eq!(answer.json()["jobId"], job.as_str(), "{}", answer.body);
        stack.check_as(harness::oracle::Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_whose_worker_stands_still_keeps_its_text_and_its_model() -> Result<()> {
    run(processes().env("TURN_LEASE_SECONDS", "30"), async |stack| {
        let client = stack.client(0);
        let posted =
            client.accept(&Chat::new("[[tool:list_tasks {}]][[next]][[tokens:8]][[gate:half]]")).await?;
        ensure!(stack.model().gate("half").reached(1, SOON).await, "the model was not asked");
        stack.database.until(&posted.job, SOON, |turn| turn.tokens >= 4).await?;
        stack.workers[0].real().signal("STOP")?;
        let answer = client.cancel(&posted.job).await?;
        ensure_eq!(answer.status, 200, "{}", answer.body);
        let job = client.job(&posted.job).await?;
        ensure_eq!(job["status"], "cancelled", "{job}");
        ensure_eq!(job["meta"]["model"], "anthropic:fake-1", "{job}");
        stack.workers[0].real().signal("CONT")?;
        client.accept(&Chat::new("go on").session(&posted.session).wait(10)).await?;
        let asked = stack.model().received();
        let last = String::from_utf8_lossy(&asked.last().unwrap().body).into_owned();
        ensure!(last.contains("\"t0 t1 t2 t3"), "the text so far begins with something else: {last}");
        stack.check_as(harness::oracle::Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}
