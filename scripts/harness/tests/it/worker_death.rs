//! kill -9 of a worker at every step boundary and in the middle of tokens [T7].

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{
    client::{Chat, Ledger},
    load::{busy_text, crowd},
    oracle::Expectations,
};

use crate::run::{SOON, ensure_eq, processes, run};

/// The takeover's bound with a lease of two seconds, from the start of the process that takes over.
const TAKEOVER: Duration = Duration::from_secs(12);

/// A first worker that dies at this point, and a second one that takes over.
async fn dies_at(failpoint: &'static str) -> Result<()> {
    run(processes().workers(0).apis(2), async |stack| {
        let variable = format!("{failpoint}=abort");
        let doomed = stack.start_worker(&[("ALFRED_FAILPOINT", &variable)]).await?;
        let client = stack.client(0);
        let bases = stack.bases();
        let posted = client.accept(&Chat::new(&busy_text(0, 0))).await?;
        let whole = tokio::spawn(client.follow(&posted.job).over(&bases).within(SOON).to_done());
        let cut =
            tokio::spawn(client.follow(&posted.job).over(&bases).within(SOON).cut_when(|_| true).to_done());
        let status = stack.workers[doomed].real().wait(Duration::from_secs(8)).await?;
        ensure!(!status.success(), "the worker ended by itself with {status}");
        let died = Instant::now();
        stack.start_worker(&[]).await?;
        client.until(&posted.job, &["succeeded"], TAKEOVER).await?;
        ensure!(died.elapsed() < TAKEOVER, "the takeover took {:?}", died.elapsed());
        let (whole, cut) = (whole.await??, cut.await??);
        ensure!(whole.bytes() == cut.bytes(), "two readers saw different streams");
        ensure_eq!(client.job(&posted.job).await?["reply"], whole.text().as_str(), "the reply");
        // Its conversation goes on.
        client.accept(&Chat::new("and now?").session(&posted.session).wait(10)).await?;
        let takeovers = i64::from(failpoint != "after_finish_commit");
        stack
            .check_as(Expectations {
                takeovers_at_least: takeovers,
                takeovers_at_most: Some(1),
                ..Expectations::default()
            })
            .await
    })
    .await
}

macro_rules! deaths {
    ($($name:ident: $point:literal;)*) => {$(
        #[tokio::test]
        async fn $name() -> Result<()> {
            dies_at($point).await
        }
    )*};
}

deaths! {
    when_a_turn_is_claimed: "claimed";
    before_the_model_is_asked: "before_model";
    before_the_model_is_asked_again: "before_model:2";
    in_the_middle_of_tokens: "mid_tokens";
    before_a_reply_is_committed: "model_step_before_commit";
    after_a_reply_is_committed: "model_step_after_commit";
    after_the_second_reply_is_committed: "model_step_after_commit:2";
    before_a_tool_is_committed: "tool_before_commit";
    after_a_tool_is_committed: "tool_after_commit";
    before_the_third_tool_is_committed: "tool_before_commit:3";
    before_the_end_is_committed: "before_finish_commit";
    after_the_end_is_committed: "after_finish_commit";
}

#[tokio::test]
async fn the_takeover_comes_within_fifteen_seconds_as_shipped() -> Result<()> {
    run(processes().workers(2).env("TURN_LEASE_SECONDS", "10"), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:40]][[delay:100]]")).await?;
        let runner = stack.runner_of(&posted.job, SOON).await?;
        stack.database.until(&posted.job, SOON, |turn| turn.tokens > 3).await?;
        stack.workers[runner].kill();
        let killed = Instant::now();
        let resumed = |frames: &[harness::client::Frame]| frames.iter().any(|frame| frame.event == "resumed");
        client.follow(&posted.job).within(Duration::from_secs(20)).until(resumed).await?;
        ensure!(killed.elapsed() < Duration::from_secs(15), "the takeover came after {:?}", killed.elapsed());
        client.until(&posted.job, &["succeeded"], SOON).await?;
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}

#[tokio::test]
async fn from_outside_while_many_turns_run() -> Result<()> {
    run(processes().workers(2).apis(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let serving = tokio::spawn(async move { crowd(&[client], &bases, 8, 2, busy_text, 2 * SOON).await });
        for killed in 0..3 {
            // In the middle of something, each time.
            let job = latest_beyond(&stack.ledger, 8 + 2 * killed).await?;
            stack.database.until(&job, SOON, |turn| turn.last_seq > 3).await?;
            stack.workers[0].kill();
            stack.workers.remove(0);
            stack.start_worker(&[]).await?;
        }
        serving.await??;
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}

/// Waits until so many turns were accepted; gives one of them.
async fn latest_beyond(ledger: &Ledger, count: usize) -> Result<String> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let accepted = ledger.accepted();
        if let Some(turn) = accepted.get(count - 1) {
            return Ok(turn.job.clone());
        }
        ensure!(tokio::time::Instant::now() < deadline, "only {} turns were accepted", accepted.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
