//! Figures of workers, and of all of them together [O4].

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use harness::{client::Chat, fakes::model::Script, process::free_port};
use shared::model::Usage;

use crate::run::{SOON, ensure_eq, processes, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_share_a_setting_each_tell_what_they_counted() -> Result<()> {
    let first = free_port()?;
    run(processes().workers(2).env("WORKER_METRICS_PORT", &first.to_string()), async |stack| {
        let client = stack.client(0);
        let usage = Usage { input: 100, output: 20, cache_read: 30, cache_write: 10 };
        for _ in 0..4 {
            stack.model().push(Script::new().text("fine").usage(usage));
            client.accept(&Chat::new("hello").wait(10)).await?;
        }
        // A call is settled beside its turn.
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let counted = tokens(first).await?;
            if counted.get("input") == Some(&400) {
                let expected = [("cache_read", 120), ("cache_write", 40), ("input", 400), ("output", 80)];
                let expected = expected.map(|(kind, tokens)| (kind.to_owned(), tokens)).into();
                ensure_eq!(counted, expected, "model_call_tokens_total");
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "not all was counted: {counted:?}");
        }
        // An api tells of both, when their ends are some seconds old.
        loop {
            let told = sum("model_tokens_total", &client.get("/metrics").await?.body)?;
            if told.get("input") == Some(&400) {
                let expected = [("cache_read", 120), ("cache_write", 40), ("input", 400), ("output", 80)];
                let expected = expected.map(|(kind, tokens)| (kind.to_owned(), tokens)).into();
                ensure_eq!(told, expected, "model_tokens_total");
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "not all was told: {told:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        stack.check().await
    })
    .await
}

/// Tokens by kind, summed up over the workers at the ports from `first` on.
async fn tokens(first: u16) -> Result<BTreeMap<String, i64>> {
    let (mut sums, mut workers) = (BTreeMap::new(), 0);
    for port in first..first + 32 {
        let Ok(answered) = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await else { continue };
        let text = answered.text().await?;
        if !text.contains("db_pool_connections{pool=\"engine\"") {
            continue;
        }
        workers += 1;
        for (kind, tokens) in sum("model_call_tokens_total", &text)? {
            *sums.entry(kind).or_default() += tokens;
        }
        if workers == 2 {
            return Ok(sums);
        }
    }
    // The second may not listen yet.
    Ok(BTreeMap::new())
}

/// Tokens by kind, as one process tells them.
fn sum(metric: &str, text: &str) -> Result<BTreeMap<String, i64>> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let Some(labels) = line.strip_prefix(metric).and_then(|rest| rest.strip_prefix('{')) else {
            continue;
        };
        ensure!(labels.contains("provider=\"anthropic\""), "{line}");
        let (labels, value) = labels.split_once("} ").context("a figure has a value")?;
        let kind = labels.split("kind=\"").nth(1).and_then(|rest| rest.strip_suffix('"'));
        *sums.entry(kind.context("a figure has a kind")?.to_owned()).or_default() += value.parse::<i64>()?;
    }
    Ok(sums)
}
