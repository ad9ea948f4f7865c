//! A worker that sleeps past its lease and wakes up again finds itself fenced off [T7].

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{client::Chat, oracle::Expectations};

use crate::run::{SOON, ensure_eq, processes, run};

/// The worker stops itself at this point, for longer than its lease, and is woken after another has taken over.
async fn sleeps_at(failpoint: &'static str) -> Result<()> {
    run(processes().workers(0), async |stack| {
        let variable = format!("{failpoint}=stop");
        let zombie = stack.start_worker(&[("ALFRED_FAILPOINT", &variable)]).await?;
        let client = stack.client(0);
        let posted = client
            .accept(&Chat::new("[[tool:add_task {\"title\":\"only one\"}]][[tokens:12]][[delay:10]]"))
            .await?;
        let deadline = tokio::time::Instant::now() + SOON;
        while !stack.workers[zombie].real().is_stopped() {
            ensure!(tokio::time::Instant::now() < deadline, "the worker does not stop at {failpoint}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.start_worker(&[]).await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        let log = stack.database.turn(&posted.job).await?;
        stack.workers[zombie].real().signal("CONT")?;
        // It comes back and takes part again, under a new name.
        for number in 0..6 {
            client.accept(&Chat::new(&format!("after {number}")).session(&posted.session).wait(10)).await?;
        }
        let after = stack.database.turn(&posted.job).await?;
        ensure_eq!(after.last_seq, log.last_seq, "events of the turn after the zombie woke");
        ensure_eq!(stack.database.count("items_task").await?, 1, "tasks");
        ensure!(stack.workers[zombie].real().ended().is_none(), "the zombie ended");
        client.follow(&posted.job).to_done().await?;
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}

#[tokio::test]
async fn in_the_middle_of_tokens() -> Result<()> {
    sleeps_at("mid_tokens").await
}

#[tokio::test]
async fn between_a_tools_insert_and_its_commit() -> Result<()> {
    sleeps_at("tool_before_commit").await
}

#[tokio::test]
async fn between_a_replys_insert_and_its_commit() -> Result<()> {
    sleeps_at("model_step_before_commit").await
}

#[tokio::test]
async fn before_the_end_is_committed() -> Result<()> {
    sleeps_at("before_finish_commit").await
}

#[tokio::test]
async fn from_outside_with_turns_in_full_flow() -> Result<()> {
    run(processes().workers(2), async |stack| {
        let client = stack.client(0);
        let mut jobs = Vec::new();
        for _ in 0..6 {
            jobs.push(client.accept(&Chat::new("[[tokens:40]][[delay:50]]")).await?.job);
        }
        let sleeper = stack.runner_of(&jobs[0], SOON).await?;
        stack.database.until(&jobs[0], SOON, |turn| turn.tokens > 3).await?;
        stack.workers[sleeper].real().signal("STOP")?;
        stack.database.until(&jobs[0], SOON, |turn| turn.takeovers_total > 0).await?;
        stack.workers[sleeper].real().signal("CONT")?;
        for job in &jobs {
            client.follow(job).to_done().await?;
        }
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}
