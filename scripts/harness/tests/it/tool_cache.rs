//! The cache of tool results as a client sees it [R3], [R4]: through turns of real processes, with a server of pages
//! beyond them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{
    client::{Chat, Client},
    fakes::outside::FakeOutside,
    oracle::Expectations,
    stack::Builder,
};
use serde_json::{Value, json};

use crate::run::{SOON, ensure_eq, processes, run};

fn with_pages(outside: &FakeOutside) -> Builder {
    processes()
        .worker_binary(env!("CARGO_BIN_EXE_worker_with_outside_tools"))
        .env("OUTSIDE_URL", &outside.url)
}

/// A turn that calls these tools, and the job as it is afterwards.
async fn turn(client: &Client, calls: &str) -> Result<Value> {
    let posted = client.accept(&Chat::new(&format!("{calls} [[tokens:2]]")).wait(20)).await?;
    client.until(&posted.job, &["succeeded"], SOON).await
}

async fn read(client: &Client, page: &str) -> Result<Value> {
    turn(client, &format!("[[tool:pages__get_page {}]]", json!({"id": page}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_read_is_told_as_a_hit_and_a_write_ends_it() -> Result<()> {
    let outside = FakeOutside::start().await?;
    run(with_pages(&outside).workers(2), async |stack| {
        let client = &stack.client(0);
        let first = read(client, "plan").await?;
        ensure_eq!(first["meta"]["cacheHit"], json!(false), "the first read: {first}");
        ensure!(first["meta"]["cacheTtlRemaining"].is_null(), "{first}");

        // Whichever of the two workers has it: the answer is Postgres's.
        for _ in 0..4 {
            let again = read(client, "plan").await?;
            ensure_eq!(again["meta"]["cacheHit"], json!(true), "a repeat: {again}");
            let ttl = again["meta"]["cacheTtlRemaining"].as_i64().context("a time to live")?;
            ensure!((14_000..=14_400).contains(&ttl), "{ttl} s are left");
            ensure_eq!(again["toolCalls"][0]["result"], first["toolCalls"][0]["result"], "the answer");
            ensure_eq!(again["toolCalls"][0]["cacheHit"], json!(true), "the call");
            let seen = client.follow(again["id"].as_str().context("an id")?).to_done().await?;
            let kinds: Vec<&str> = seen.frames.iter().map(|frame| frame.event.as_str()).collect();
            let at = |kind| kinds.iter().position(|seen| *seen == kind);
            ensure!(at("tool_call") < at("cache_hit") && at("cache_hit") < at("tool_result"), "{kinds:?}");
            let hit = seen.frames.iter().find(|frame| frame.event == "cache_hit").context("a hit")?;
            let hit: Value = serde_json::from_str(&hit.data)?;
            let key = hit["key"].as_str().context("a key")?;
            ensure!(hit["tool"] == "pages.get_page" && key.starts_with("pages.get_page:1:"), "{hit}");
        }
        ensure_eq!(outside.reads(), 1, "reads of the server");

        // What is not there, and what is empty, is asked for each time.
        for page in ["none-1", "none-1", "empty-1", "empty-1"] {
            ensure_eq!(read(client, page).await?["meta"]["cacheHit"], json!(false), "a read of {page}");
        }
        ensure_eq!(outside.reads(), 5, "reads of the server");

        // A write outdates what was read, whichever worker makes it and whichever reads next.
        turn(client, r#"[[tool:pages__edit_page {"id":"plan"}]]"#).await?;
        for expected in [false, true, true] {
            let after = read(client, "plan").await?;
            ensure_eq!(after["toolCalls"][0]["result"]["edits"], json!(1), "edits seen after the write");
            ensure_eq!(after["meta"]["cacheHit"], json!(expected), "after the write: {after}");
        }

        // forceRefresh asks the server, and keeps what it says.
        let body = json!({
            "messages": [{"role": "user", "content": "[[tool:pages__get_page {\"id\":\"plan\"}]]"}],
            "forceRefresh": true,
        });
        let posted = client.accept(&Chat::raw(body).wait(20)).await?;
        let forced = client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure_eq!(forced["meta"]["cacheHit"], json!(false), "a forced read");
        ensure_eq!(outside.reads(), 7, "reads of the server");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figure is what the test is asked for")]
async fn a_mix_of_repeated_reads_is_served_from_the_cache() -> Result<()> {
    let outside = FakeOutside::start().await?;
    run(with_pages(&outside), async |stack| {
        let client = &stack.client(0);
        let (mut calls, mut hits) = (0, 0);
        // Six pages, read over and over, four at a time, and one of them edited once on the way.
        for round in 0..40_usize {
            let reads: String = (0..5)
                .map(|n| {
                    format!(
                        "[[tool:pages__get_page {}]]",
                        json!({"id": format!("page-{}", (round * 3 + n) % 6)})
                    )
                })
                .collect();
            let job = turn(client, &reads).await?;
            for call in job["toolCalls"].as_array().context("calls")? {
                calls += 1;
                hits += usize::from(call["cacheHit"] == true);
            }
        }
        let ratio = f64::from(u32::try_from(hits)?) / f64::from(u32::try_from(calls)?);
        eprintln!("{hits} of {calls} reads came from the cache: {:.1} %", ratio * 100.0);
        ensure!(calls == 200 && ratio >= 0.95, "{hits} of {calls} reads came from the cache");
        ensure_eq!(calls - hits, outside.reads(), "reads of the server");
        stack.check().await
    })
    .await
}

/// How long a turn takes that reads what the cache has, however slow the server is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figure is what the test is asked for")]
async fn a_repeated_read_does_not_wait_for_the_server() -> Result<()> {
    let outside = FakeOutside::start().await?;
    run(with_pages(&outside), async |stack| {
        let client = &stack.client(0);
        outside.slow_down(Duration::from_secs(2));
        read(client, "slow").await?;
        let mut times = Vec::new();
        for _ in 0..15 {
            let begun = Instant::now();
            let job = read(client, "slow").await?;
            times.push(begun.elapsed());
            ensure_eq!(job["meta"]["cacheHit"], json!(true), "a repeat");
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        eprintln!(
            "a turn with a repeated read took {median:?} (median), {:?} at most",
            times.last().unwrap()
        );
        // Two model calls of no length among them; `scripts/bench` says how it is on a machine that does nothing else.
        ensure!(median < Duration::from_secs(1), "a turn with a repeated read took {median:?}");
        ensure_eq!(outside.reads(), 1, "reads of the server");
        stack.check().await
    })
    .await
}

/// kill -9 of a worker that is fetching what others wait for: its flight runs out, and one of them asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_fetching_holds_nobody_up() -> Result<()> {
    let outside = FakeOutside::start().await?;
    run(with_pages(&outside), async |stack| {
        let client = &stack.client(0);
        outside.slow_down(Duration::from_secs(8));
        let text = format!("[[tool:pages__get_page {}]] [[tokens:2]]", json!({"id": "plan"}));
        let posted = client.accept(&Chat::new(&text)).await?;
        let deadline = Instant::now() + SOON;
        while outside.reads() == 0 {
            ensure!(Instant::now() < deadline, "the page is not asked for");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stack.workers[0].kill();
        outside.slow_down(Duration::ZERO);
        let killed = Instant::now();
        stack.start_worker(&[]).await?;
        let job = read(client, "plan").await?;
        ensure!(killed.elapsed() < Duration::from_secs(8), "another read took {:?}", killed.elapsed());
        ensure_eq!(job["toolCalls"][0]["isError"], json!(false), "the other read: {job}");
        client.until(&posted.job, &["succeeded"], SOON).await?;
        client.follow(&posted.job).to_done().await?;
        ensure_eq!(outside.reads(), 2, "reads of the server: the dead worker's, and one for both turns");
        stack.check_as(Expectations { takeovers_at_least: 1, ..Expectations::default() }).await
    })
    .await
}
