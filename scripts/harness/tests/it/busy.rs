//! A conversation that is busy [T6]: enqueue, reject, interrupt, and the order in which turns run.

use anyhow::{Result, ensure};
use harness::{client::Chat, oracle::Expectations};

use crate::run::{SOON, ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_a_conversation_run_in_their_order() -> Result<()> {
    run(here().workers(2).apis(2), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("number 0 [[gate:go]]")).await?;
        let mut jobs = vec![first.job];
        for number in 1..8 {
            let chat = Chat::new(&format!("number {number}")).session(&first.session);
            jobs.push(client.at(&stack.apis[number % 2].base).accept(&chat).await?.job);
        }
        let waiting = client.job(&jobs[3]).await?;
        ensure_eq!(waiting["status"], "queued", "{waiting}");
        ensure!(!waiting["waitingFor"].is_null(), "it does not say what it waits for: {waiting}");
        stack.model().gate("go").release();
        for job in &jobs {
            client.until(job, &["succeeded"], SOON).await?;
        }
        let asked: Vec<String> =
            stack.model().received().iter().map(|request| request.last_user.clone()).collect();
        for (number, text) in asked.iter().enumerate() {
            ensure!(text.contains(&format!("number {number}")), "request {number} was {text:?}");
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reject_names_the_running_job_and_stores_nothing() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("[[gate:go]]")).await?;
        let refused = client.chat(&Chat::new("two").session(&first.session).on_busy("reject")).await?;
        ensure_eq!(refused.status, 409, "{}", refused.body);
        ensure!(refused.body.contains(&first.job), "the running job is not named: {}", refused.body);
        ensure_eq!(stack.database.count("turns").await?, 1, "stored turns");
        stack.model().gate("go").release();
        client.until(&first.job, &["succeeded"], SOON).await?;
        client.accept(&Chat::new("two").session(&first.session).on_busy("reject").wait(10)).await?;
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupt_cancels_the_running_turn_and_runs() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("[[gate:never]]")).await?;
        ensure!(stack.model().gate("never").reached(1, SOON).await, "the model was not asked");
        let second =
            client.accept(&Chat::new("now this").session(&first.session).on_busy("interrupt")).await?;
        client.until(&first.job, &["cancelled"], SOON).await?;
        client.until(&second.job, &["succeeded"], SOON).await?;
        stack.check_as(Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_turn_keeps_its_place_unless_it_is_interrupted() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        let first = client.accept(&Chat::new("[[tool:add_task {\"title\":\"ask me\"}]]")).await?;
        client.until(&first.job, &["awaiting_approval"], SOON).await?;
        let second = client.accept(&Chat::new("two").session(&first.session)).await?;
        let warnings = second.answer.json()["meta"]["warnings"].clone();
        ensure!(
            warnings.as_array().is_some_and(|list| !list.is_empty()),
            "no warning: {}",
            second.answer.body
        );
        ensure_eq!(client.job(&second.job).await?["status"], "queued", "the turn behind a parked one");
        let third = client.accept(&Chat::new("three").session(&first.session).on_busy("interrupt")).await?;
        for job in [&first.job, &second.job, &third.job] {
            client.until(job, &["succeeded", "cancelled"], SOON).await?;
        }
        ensure_eq!(client.job(&third.job).await?["status"], "succeeded", "the interrupting turn");
        // The approval was denied: nothing was written.
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks");
        stack.check_as(Expectations { succeeded: 0.3, ..Default::default() }).await
    })
    .await
}
