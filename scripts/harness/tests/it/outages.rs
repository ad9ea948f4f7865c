//! Postgres restarted, crashed and away under load; listeners cut [S5], [O6].

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    client::Chat,
    load::{busy_text, crowd},
    oracle::Expectations,
    postgres::Stop,
};
use shared::{
    counters::Counters,
    db::{self, DbRole},
};

use crate::run::{SOON, ensure_eq, here, processes, run};

const LONG: Duration = Duration::from_secs(40);

/// Runs a crowd, breaks Postgres so in the middle of it, and expects everybody to be served.
async fn under_load(how: Stop, away: Duration, expected: Expectations) -> Result<()> {
    run(processes().own_cluster().workers(2).apis(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let ledger = stack.ledger.clone();
        let serving = tokio::spawn(async move { crowd(&[client], &bases, 6, 3, busy_text, LONG).await });
        let deadline = tokio::time::Instant::now() + SOON;
        while ledger.accepted().len() < 8 {
            ensure!(tokio::time::Instant::now() < deadline, "the load does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cluster = stack.database.cluster();
        cluster.stop(how).await?;
        tokio::time::sleep(away).await;
        cluster.start_again().await?;
        serving.await??;
        for api in &mut stack.apis {
            ensure!(api.real().ended().is_none(), "an api process ended");
        }
        for worker in &mut stack.workers {
            ensure!(worker.real().ended().is_none(), "a worker ended");
        }
        stack.check_as(expected).await
    })
    .await
}

#[tokio::test]
async fn a_fast_restart() -> Result<()> {
    under_load(Stop::Fast, Duration::ZERO, Expectations::default()).await
}

#[tokio::test]
async fn a_crash() -> Result<()> {
    under_load(Stop::Immediate, Duration::ZERO, Expectations::default()).await
}

#[tokio::test]
async fn an_absence_longer_than_the_lease_makes_nobody_look_dead() -> Result<()> {
    let expected = Expectations { takeovers_at_most: Some(0), ..Expectations::default() };
    under_load(Stop::Immediate, Duration::from_secs(4), expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_database_gives_no_id_to_two() -> Result<()> {
    run(here().own_cluster(), async |stack| {
        let tenant = stack.tenants[0].id;
        let counters = || -> Result<Counters> {
            let options = db::options(&stack.database.engine_url, DbRole::Engine, "test")
                .map_err(anyhow::Error::msg)?;
            Ok(Counters::start(db::relaxed_pool(options)))
        };
        let (before, after) = (counters()?, counters()?);
        // A process takes ids of messages in blocks, and keeps them in its memory.
        let first = before.next(tenant, "chat_message").await?;
        stack.database.cluster().stop(Stop::Immediate).await?;
        stack.database.cluster().start_again().await?;
        let of_another = after.next_many(tenant, "chat_message", 8).await?;
        let second = before.next(tenant, "chat_message").await?;
        ensure_eq!(second, first + 1, "the block");
        ensure!(!(of_another..of_another + 8).contains(&second), "{second} was given to two");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_listener_costs_a_delay_and_no_event() -> Result<()> {
    run(here().apis(2).workers(2), async |stack| {
        let client = stack.client(0);
        let bases = stack.bases();
        let posted = client.accept(&Chat::new("[[tokens:10]][[gate:go]]")).await?;
        let reader = tokio::spawn(client.follow(&posted.job).over(&bases).to_done());
        ensure!(stack.model().gate("go").reached(1, SOON).await, "the model was not asked");
        let cut = stack.database.cut_listeners().await?;
        ensure_eq!(cut, 4, "listening connections: one a process");
        stack.model().gate("go").release();
        reader.await??;
        // And again, with everything cut at once and work arriving in the gap.
        stack.database.cut_everybody().await?;
        crowd(std::slice::from_ref(&client), &bases, 4, 2, |_, _| "go on".to_owned(), SOON).await?;
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_wait_for_a_database_that_is_away() -> Result<()> {
    run(here().own_cluster(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("hello").wait(10)).await?;
        stack.database.cluster().stop(Stop::Fast).await?;
        let early = tokio::spawn(client.follow(&posted.job).to_done());
        let ready = client.get("/readyz").await?;
        ensure_eq!(ready.status, 503, "{}", ready.body);
        ensure_eq!(client.get("/healthz").await?.status, 200, "healthz");
        let before = std::time::Instant::now();
        let refused = client.chat(&Chat::new("now")).await?;
        ensure!(refused.status >= 500, "{} {}", refused.status, refused.body);
        ensure!(before.elapsed() < Duration::from_secs(12), "a refusal took {:?}", before.elapsed());
        stack.database.cluster().start_again().await?;
        let seen = early.await??;
        ensure_eq!(seen.kinds().last(), Some(&"done"), "{:?}", seen.kinds());
        client.accept_stubbornly(&Chat::new("and again").idempotency("again"), SOON).await?;
        stack.check().await
    })
    .await
}
