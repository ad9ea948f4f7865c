//! Slow readers and herds of them [S4].

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use harness::client::{Chat, Pace};

use crate::run::{SOON, ensure_eq, here, processes, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_at_a_byte_a_second_slows_nobody() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:3000]][[gate:go]]")).await?;
        let crawling = tokio::spawn({
            let slow = client.follow(&posted.job).pace(Pace::Slow(1, Duration::from_secs(1)));
            async move {
                let mut slow = slow.within(Duration::from_secs(5));
                // It gets nowhere; that is the point.
                slow.connect_once().await.is_err()
            }
        });
        let strolling = tokio::spawn(
            client.follow(&posted.job).pace(Pace::Slow(512, Duration::from_millis(1))).to_done(),
        );
        let before = Instant::now();
        stack.model().gate("go").release();
        let quick = client.follow(&posted.job).to_done().await?;
        ensure!(before.elapsed() < Duration::from_secs(8), "a quick reader needed {:?}", before.elapsed());
        let strolling = strolling.await??;
        ensure!(quick.bytes() == strolling.bytes(), "the slow reader saw something else");
        ensure!(crawling.await?, "a byte a second was enough");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_readers_reconnect_at_once() -> Result<()> {
    run(processes().apis(1), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:40]][[gate:go]]")).await?;
        ensure!(stack.model().gate("go").reached(1, SOON).await, "the model was not asked");
        stack.database.until(&posted.job, SOON, |turn| turn.tokens == 20).await?;
        let readers = readers_allowed();
        let herd = (0..readers).map(|_| client.follow(&posted.job).within(Duration::from_secs(45)).to_done());
        let herd = tokio::spawn(try_join_all(herd));
        // They are all there when the api goes away, and come back when it does.
        let deadline = tokio::time::Instant::now() + 2 * SOON;
        loop {
            let metrics = client.get("/metrics").await?.body;
            let streams =
                metrics.lines().find_map(|line| line.strip_prefix("sse_streams ")?.parse::<f64>().ok());
            #[expect(clippy::cast_precision_loss, reason = "thousands")]
            if streams.is_some_and(|streams| streams >= readers as f64) {
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "only {streams:?} of {readers} streams are open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stack.apis[0].real().kill();
        stack.restart_api(0).await?;
        let back = Instant::now();
        stack.model().gate("go").release();
        let seen = herd.await??;
        ensure!(back.elapsed() < Duration::from_secs(20), "the herd was served after {:?}", back.elapsed());
        let connections = stack.database.backends().await?.len();
        ensure!(connections <= 40, "{connections} connections to Postgres");
        ensure!(seen.iter().all(|one| one.bytes() == seen[0].bytes()), "readers saw different streams");
        ensure_eq!(seen[0].kinds().iter().filter(|kind| **kind == "token").count(), 40, "tokens");
        stack.check().await
    })
    .await
}

/// 2 000, or what the limit on open files leaves.
fn readers_allowed() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let soft: usize = line.split_whitespace().nth(3).and_then(|word| word.parse().ok()).unwrap_or(1024);
    2000.min(soft.saturating_sub(300))
}
