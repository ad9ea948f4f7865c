//! What models cost [M5].

use anyhow::{Result, ensure};
use harness::{client::Chat, fakes::model::Script};
use shared::model::Usage;

use crate::run::{ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_the_providers_own_figures() -> Result<()> {
    run(here().tenants(2), async |stack| {
        let client = stack.client(0);
        let usage = Usage { input: 100, output: 20, cache_read: 30, cache_write: 10 };
        stack.model().push(Script::new().call("list_tasks", "{}").usage(usage));
        stack.model().push(Script::new().text("none").usage(usage));
        let posted = client.accept(&Chat::new("list").wait(10)).await?;
        let tokens = posted.answer.json()["meta"]["tokens"].clone();
        ensure_eq!(tokens, serde_json::json!({"input": 200, "output": 40, "used": 240}), "meta.tokens");
        let view = client.get("/v1/usage").await?;
        ensure_eq!(view.status, 200, "{}", view.body);
        for figure in ["200", "40", "60", "20"] {
            ensure!(view.body.contains(figure), "no {figure} in {}", view.body);
        }
        let other = stack.client(1).get("/v1/usage").await?;
        ensure!(!other.body.contains("200"), "another tenant sees it: {}", other.body);
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_is_nearly_full_brings_a_warning() -> Result<()> {
    run(here().env("CONTEXT_BUDGET_TOKENS", "10000"), async |stack| {
        let client = stack.client(0);
        let usage = Usage { input: 8500, output: 5, ..Usage::default() };
        stack.model().push(Script::new().text("fine").usage(usage));
        let posted = client.accept(&Chat::new("hello").wait(10)).await?;
        ensure!(posted.answer.body.contains("CONTEXT_NEAR_LIMIT"), "{}", posted.answer.body);
        let transcript = client.follow(&posted.job).to_done().await?;
        ensure!(transcript.kinds().contains(&"warning"), "{:?}", transcript.kinds());
        stack.check().await
    })
    .await
}
