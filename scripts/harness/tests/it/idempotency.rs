//! One key, one turn [T5].

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use harness::client::Chat;

use crate::run::{SOON, ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_with_one_key_make_one_turn() -> Result<()> {
    run(here().apis(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let chat = Chat::new("only once [[tool:add_task {\"title\":\"once\"}]]").idempotency("the-key");
        let answers = try_join_all((0..100).map(|number| {
            let client = client.at(&bases[number % 2]);
            let chat = chat.clone();
            async move { client.accept(&chat).await }
        }))
        .await?;
        let jobs: BTreeSet<_> = answers.iter().map(|posted| posted.job.clone()).collect();
        let sessions: BTreeSet<_> = answers.iter().map(|posted| posted.session.clone()).collect();
        ensure_eq!(jobs.len(), 1, "jobs");
        ensure_eq!(sessions.len(), 1, "session tokens");
        ensure_eq!(stack.database.count("turns").await?, 1, "stored turns");
        client.until(&answers[0].job, &["succeeded"], SOON).await?;
        // Also when the first has long finished, and waiting is no part of the body.
        let again = client.accept(&chat.clone().wait(5)).await?;
        ensure_eq!(again.job, answers[0].job, "the job of a late repetition");
        ensure_eq!(again.answer.status, 200, "{}", again.answer.body);
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_with_another_body_is_a_conflict() -> Result<()> {
    run(here().tenants(2), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("one").idempotency("k").wait(10)).await?;
        let other = client.chat(&Chat::new("two").idempotency("k")).await?;
        ensure_eq!(other.status, 409, "{}", other.body);
        ensure_eq!(other.error_code(), "APP-409-CONFLICT", "{}", other.body);
        // Another caller's key is another key.
        let stranger = stack.client(1).accept(&Chat::new("two").idempotency("k").wait(10)).await?;
        ensure!(stranger.job != first.job, "two tenants share a job");
        ensure_eq!(stack.database.count("turns").await?, 2, "stored turns");
        stack.check().await
    })
    .await
}
