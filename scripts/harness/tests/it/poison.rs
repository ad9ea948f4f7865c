//! A turn that kills whatever process runs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{client::Chat, oracle::Expectations};

use crate::run::{SOON, ensure_eq, processes, run};

#[tokio::test]
async fn a_poison_turn_dies_and_its_neighbours_live() -> Result<()> {
    let binary = env!("CARGO_BIN_EXE_worker_with_outside_tools");
    let builder = processes().worker_binary(binary).workers(2).env("TURN_LEASE_SECONDS", "1");
    run(builder, async |stack| {
        let client = stack.client(0);
        let neighbours: Vec<_> = {
            let mut jobs = Vec::new();
            for number in 0..6 {
                let text = format!("neighbour {number} [[tokens:30]][[delay:40]]");
                jobs.push(client.accept(&Chat::new(&text)).await?.job);
            }
            jobs
        };
        let poison = client.accept(&Chat::new("[[tool:poison {}]]")).await?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let ended = stack.workers.iter_mut().position(|worker| worker.real().ended().is_some());
            if let Some(index) = ended {
                stack.workers.remove(index);
                // As whatever keeps processes running does.
                stack.start_worker(&[]).await?;
            }
            let state = stack.database.turn(&poison.job).await?;
            if state.state == "dead" {
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "the poison turn is still {state:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for job in &neighbours {
            client.until(job, &["succeeded"], SOON).await?;
            client.follow(job).to_done().await?;
        }
        let transcript = client.follow(&poison.job).to_done().await?;
        ensure!(transcript.kinds().ends_with(&["error", "done"]), "{:?}", transcript.kinds());
        ensure_eq!(transcript.done().unwrap()["status"], "dead", "done");
        stack
            .check_as(Expectations { succeeded: 6.0 / 7.0, takeovers_at_least: 3, ..Expectations::default() })
            .await
    })
    .await
}
