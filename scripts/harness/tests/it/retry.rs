//! Turns that fail, die and are tried again as new ones [T8].

use anyhow::{Result, ensure};
use harness::{client::Chat, oracle::Expectations};

use crate::run::{SOON, ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_turn_stays_dead_and_its_retry_is_a_new_turn() -> Result<()> {
    run(here().env("MODEL_RETRIES", "0").env("TURN_MAX_ATTEMPTS", "2"), async |stack| {
        let client = stack.client(0);
        let dead = client.accept(&Chat::new("please [[always:500]]")).await?;
        let view = client.until(&dead.job, &["dead"], SOON).await?;
        ensure_eq!(view["attempts"], 2, "{view}");
        ensure_eq!(view["maxAttempts"], 2, "{view}");
        ensure_eq!(view["error"]["error"], "MODEL-UNAVAILABLE", "{view}");
        let transcript = client.follow(&dead.job).to_done().await?;
        let kinds = transcript.kinds();
        ensure!(kinds.ends_with(&["error", "done"]), "{kinds:?}");
        // A turn that did not die cannot be retried.
        let fine = client.accept(&Chat::new("fine").session(&dead.session).wait(10)).await?;
        ensure_eq!(client.retry(&fine.job).await?.status, 409, "a retry of a turn that succeeded");
        stack.model().rule(|_| Some(harness::fakes::model::Script::new().text("better now")));
        let retried = client.retry(&dead.job).await?;
        ensure_eq!(retried.status, 202, "{}", retried.body);
        let job = retried.json()["jobId"].as_str().unwrap_or_default().to_owned();
        ensure!(job != dead.job, "the retry is the same job");
        let view = client.until(&job, &["succeeded"], SOON).await?;
        ensure_eq!(view["retryOf"], dead.job.as_str(), "{view}");
        ensure_eq!(client.job(&dead.job).await?["status"], "dead", "the dead turn");
        stack.check_as(Expectations { succeeded: 0.6, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_no_retry_mends_fails_at_once() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("please [[always:400]]")).await?;
        let view = client.until(&posted.job, &["failed"], SOON).await?;
        ensure_eq!(view["error"]["error"], "MODEL-REJECTED", "{view}");
        ensure_eq!(stack.model().received().len(), 1, "requests");
        ensure_eq!(client.retry(&posted.job).await?.status, 409, "a retry of a failed turn");
        stack.check_as(Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_budget_ends_a_turn() -> Result<()> {
    run(here().env("TURN_TOKEN_BUDGET", "20000"), async |stack| {
        let client = stack.client(0);
        stack.model().rule(|_| {
            let usage = shared::model::Usage { input: 9000, output: 1000, ..Default::default() };
            Some(harness::fakes::model::Script::new().call("list_tasks", "{}").usage(usage))
        });
        let posted = client.accept(&Chat::new("for ever")).await?;
        let view = client.until(&posted.job, &["failed"], SOON).await?;
        ensure_eq!(view["error"]["error"], "MODEL-BUDGET", "{view}");
        ensure!(stack.model().received().len() <= 3, "{} requests", stack.model().received().len());
        stack.check_as(Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_calls_tools_for_ever_is_stopped() -> Result<()> {
    run(here().env("TURN_MAX_STEPS", "4"), async |stack| {
        let client = stack.client(0);
        stack.model().rule(|_| Some(harness::fakes::model::Script::new().call("list_tasks", "{}")));
        let posted = client.accept(&Chat::new("for ever")).await?;
        client.until(&posted.job, &["failed", "succeeded"], SOON).await?;
        ensure!(stack.model().received().len() <= 5, "{} requests", stack.model().received().len());
        stack.check_as(Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_budget_is_the_sum_of_all_attempts() -> Result<()> {
    let stack = here().env("MODEL_RETRIES", "0").env("TURN_MAX_ATTEMPTS", "50");
    run(stack.env("MODEL_IDLE_TIMEOUT_SECONDS", "0.6").env("TURN_TIME_BUDGET_SECONDS", "2"), async |stack| {
        let client = stack.client(0);
        // No attempt takes as long as the budget, and all of them would take half a minute.
        let posted = client.accept(&Chat::new("please [[always:stall]]")).await?;
        let view = client.until(&posted.job, &["failed", "dead"], SOON).await?;
        ensure_eq!(view["status"], "failed", "{view}");
        ensure_eq!(view["error"]["error"], "MODEL-BUDGET", "{view}");
        ensure!((2..=5).contains(&view["attempts"].as_i64().unwrap()), "{view}");
        stack.check_as(Expectations { succeeded: 0.0, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_not_told_twice_what_a_retry_repeats() -> Result<()> {
    run(here().env("MODEL_RETRIES", "0").env("TURN_MAX_ATTEMPTS", "1"), async |stack| {
        let client = stack.client(0);
        let dead = client.accept(&Chat::new("please [[always:500]]")).await?;
        client.until(&dead.job, &["dead"], SOON).await?;
        let other = client.accept(&Chat::new("and this [[always:500]]").session(&dead.session)).await?;
        client.until(&other.job, &["dead"], SOON).await?;
        stack.model().rule(|_| Some(harness::fakes::model::Script::new().text("better now")));
        let retried = client.retry(&other.job).await?.json()["jobId"].as_str().unwrap_or_default().to_owned();
        client.until(&retried, &["succeeded"], SOON).await?;
        let asked = stack.model().received();
        let body: serde_json::Value = serde_json::from_slice(&asked.last().unwrap().body)?;
        let roles: Vec<_> = body["messages"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|message| message["role"].clone())
            .collect();
        ensure_eq!(roles, ["user", "assistant", "user"], "{body}");
        let text = body.to_string();
        ensure_eq!(text.matches("please").count(), 1, "{text}");
        ensure_eq!(text.matches("and this").count(), 1, "{text}");
        stack.check_as(Expectations { succeeded: 0.3, ..Default::default() }).await
    })
    .await
}
