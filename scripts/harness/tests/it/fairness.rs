//! One tenant's flood does not starve another's turns [T6].

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use harness::client::Chat;

use crate::run::{SOON, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_turn_of_a_tenant_passes_a_flood_of_another() -> Result<()> {
    run(here().tenants(2).running_turns(16).env("WORKER_CONCURRENCY", "2"), async |stack| {
        let (flooder, other) = (stack.client(0), stack.client(1));
        let flood = try_join_all((0..40).map(|_| async {
            flooder.accept(&Chat::new("flood [[tokens:5]][[delay:20]]")).await.map(|posted| posted.job)
        }))
        .await?;
        let own = other.accept(&Chat::new("mine [[tokens:5]][[delay:20]]").wait(15)).await?;
        let mut ended = 0;
        for job in &flood {
            ended += usize::from(flooder.job(job).await?["status"] == "succeeded");
        }
        ensure!(own.answer.status == 200, "it did not end in time: {}", own.answer.body);
        ensure!(ended < 25, "{ended} of 40 turns of the flood had ended before the other tenant's first");
        for job in &flood {
            flooder.until(job, &["succeeded"], SOON).await?;
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_runs_no_more_turns_at_once_than_it_may() -> Result<()> {
    run(here().running_turns(3), async |stack| {
        let client = stack.client(0);
        let jobs = try_join_all((0..10).map(|number| {
            let client = client.clone();
            async move {
                client.accept(&Chat::new(&format!("{number} [[gate:all]]"))).await.map(|posted| posted.job)
            }
        }))
        .await?;
        let gate = stack.model().gate("all");
        ensure!(gate.reached(3, SOON).await, "three should run");
        ensure!(!gate.reached(4, std::time::Duration::from_millis(300)).await, "a fourth ran");
        gate.release();
        for job in &jobs {
            client.until(job, &["succeeded"], SOON).await?;
        }
        stack.check().await
    })
    .await
}
