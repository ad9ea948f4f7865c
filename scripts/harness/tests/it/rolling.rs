//! SIGTERM during load: every process is replaced, one after the other, and nobody notices [O6].

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    client::Chat,
    load::{busy_text, crowd},
    oracle::Expectations,
};

use crate::run::{SOON, processes, run};

#[tokio::test]
async fn a_rolling_restart_loses_nothing() -> Result<()> {
    run(processes().workers(2).apis(2).env("DRAIN_SECONDS", "1"), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let serving =
            tokio::spawn(
                async move { crowd(&[client], &bases, 8, 4, busy_text, Duration::from_secs(40)).await },
            );
        let started = tokio::time::Instant::now();
        while stack.ledger.accepted().len() < 8 {
            ensure!(started.elapsed() < SOON, "the load does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for index in 0..2 {
            stack.start_worker(&[]).await?;
            stack.workers[0].stop().await?;
            stack.workers.remove(0);
            stack.apis[index].stop().await?;
            stack.restart_api(index).await?;
        }
        serving.await??;
        // A hand-over is no takeover and uses no attempt.
        stack.check_as(Expectations { takeovers_at_most: Some(0), ..Expectations::default() }).await
    })
    .await
}

#[tokio::test]
async fn a_long_turn_is_handed_over() -> Result<()> {
    run(processes().env("DRAIN_SECONDS", "1"), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tool:list_tasks {}]][[tokens:40]][[delay:50]]")).await?;
        stack.database.until(&posted.job, SOON, |turn| turn.tokens > 3).await?;
        stack.start_worker(&[]).await?;
        stack.workers[0].stop().await?;
        let handed = std::time::Instant::now();
        let transcript = client.follow(&posted.job).to_done().await?;
        ensure!(handed.elapsed() < Duration::from_secs(10), "it took {:?}", handed.elapsed());
        ensure!(transcript.kinds().contains(&"resumed"), "{:?}", transcript.kinds());
        let job = client.job(&posted.job).await?;
        ensure!(
            job["attempts"].as_i64().is_some_and(|attempts| attempts <= 1),
            "a hand-over used an attempt: {job}"
        );
        stack.check_as(Expectations { takeovers_at_most: Some(0), ..Expectations::default() }).await
    })
    .await
}
