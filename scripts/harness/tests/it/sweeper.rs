//! The fast paths alone: with the sweeper switched off, nothing may be stranded by posts that meet finishes.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use harness::client::Chat;

use crate::run::{SOON, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_against_finishes_strand_nothing_without_the_sweeper() -> Result<()> {
    run(here().apis(2).workers(2).running_turns(2).env("TURN_SWEEP", "off"), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        for round in 0..8 {
            let burst = (0..12).map(|number| {
                let client = client.at(&bases[number % 2]);
                async move { client.accept(&Chat::new(&format!("burst {round} [[tokens:1]]"))).await }
            });
            let posted = try_join_all(burst).await?;
            // Half of them go on at once, while others finish.
            let more = posted.iter().step_by(2).map(|posted| {
                let client = client.clone();
                async move { client.accept(&Chat::new("and on [[tokens:1]]").session(&posted.session)).await }
            });
            try_join_all(more).await?;
        }
        for accepted in stack.ledger.accepted() {
            client.until(&accepted.job, &["succeeded"], SOON).await?;
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_starts_without_waiting_for_any_timer() -> Result<()> {
    run(here().env("TURN_SWEEP", "off"), async |stack| {
        let client = stack.client(0);
        client.accept(&Chat::new("warm up").wait(10)).await?;
        for _ in 0..5 {
            let before = std::time::Instant::now();
            client.accept(&Chat::new("now [[tokens:1]]").wait(10)).await?;
            ensure!(before.elapsed() < Duration::from_millis(900), "a turn took {:?}", before.elapsed());
        }
        stack.check().await
    })
    .await
}
