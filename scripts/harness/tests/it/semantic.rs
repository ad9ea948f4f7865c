//! Search by meaning [W7]: what people write is embedded by the queue, and found by what it means.

use anyhow::{Context, Result, ensure};
use harness::{
    client::{Chat, Client},
    fakes::embeddings::FakeEmbeddings,
    stack::Builder,
};
use serde_json::{Value, json};

use crate::run::{SOON, ensure_eq, here, offline, run};

fn embedding(fake: &FakeEmbeddings) -> Builder {
    with_embeddings(offline(), fake)
}

fn with_embeddings(builder: Builder, fake: &FakeEmbeddings) -> Builder {
    builder
        .env("EMBEDDING_PROVIDER", "openai-compatible")
        .env("EMBEDDING_BASE_URL", &fake.base_url)
        .env("EMBEDDING_MODEL", "fake-embeddings")
}

async fn write(client: &Client, kind: &str, payload: &Value) -> Result<Value> {
    let answer = client.post(&format!("/v1/{kind}"), payload).await?;
    ensure_eq!(answer.status, 201, "{}", answer.body);
    Ok(answer.json())
}

/// The titles that are found, best first.
async fn titles(client: &Client, query: &str) -> Result<Vec<String>> {
    let answer = client.get(&format!("/v1/search?{query}")).await?;
    ensure_eq!(answer.status, 200, "{}", answer.body);
    let page = answer.json();
    let results = page["results"].as_array().context("no results")?;
    Ok(results.iter().map(|hit| hit["title"].as_str().unwrap_or("(none)").to_owned()).collect())
}

/// Asks until these are found, in this order and at the head of the results.
async fn until_found(client: &Client, query: &str, wanted: &[&str]) -> Result<()> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let found = titles(client, query).await?;
        if found.len() >= wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found == wanted) {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{query} finds {found:?}, not {wanted:?}");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_found_by_what_they_mean() -> Result<()> {
    let fake = FakeEmbeddings::start().await?;
    run(embedding(&fake).tenants(2), async |stack| {
        let (client, foreign) = (stack.client(0), stack.client(1));
        write(&client, "notes", &json!({"title": "Tyres", "content": "The automobile needs new ones"}))
            .await?;
        write(&client, "tasks", &json!({"title": "Call the physician"})).await?;
        write(&client, "notes", &json!({"title": "Car", "content": "Sell it"})).await?;
        write(&foreign, "notes", &json!({"title": "Theirs", "content": "A vehicle for cash"})).await?;
        until_found(&client, "q=doctor&mode=semantic", &["Call the physician"]).await?;
        until_found(&foreign, "q=money&mode=semantic", &["Theirs"]).await?;

        // By words nothing, by meaning both, by both the one first that has the word as well.
        ensure_eq!(titles(&client, "q=vehicle").await?.len(), 0, "by words");
        let found = titles(&client, "q=vehicle&mode=semantic&kinds=notes").await?;
        ensure_eq!(found, ["Car", "Tyres"], "by meaning");
        ensure_eq!(titles(&client, "q=automobile&mode=hybrid&limit=1").await?, ["Tyres"], "by both");
        ensure_eq!(
            titles(&client, "q=doctor&mode=semantic&kinds=notes")
                .await?
                .contains(&"Call the physician".to_owned()),
            false,
            "of a kind"
        );
        ensure_eq!(
            titles(&client, "q=cash&mode=semantic").await?.contains(&"Theirs".to_owned()),
            false,
            "of others"
        );

        // As a tool.
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "search_workspace", "arguments": {"query": "surgeon", "mode": "semantic", "limit": 1}}});
        let request = client
            .request("POST", "/mcp")
            .json(&call)
            .header("accept", "application/json, text/event-stream");
        let answer = client.send(request.header("mcp-protocol-version", "2025-11-25")).await?;
        let results = &answer.json()["result"]["structuredContent"]["results"];
        ensure_eq!(results[0]["title"], "Call the physician", "{}", answer.body);

        // One page, and no other.
        let answer = client.get("/v1/search?q=x&mode=semantic&cursor=y").await?;
        ensure_eq!(answer.status, 422, "{}", answer.body);
        let answer = client.get("/v1/search?q=x&mode=telepathic").await?;
        ensure_eq!(answer.status, 422, "{}", answer.body);

        let metrics = client.get("/metrics").await?.body;
        ensure!(
            metrics.contains("model_tokens_total{") && metrics.contains("kind=\"embedding\""),
            "{metrics}"
        );
        ensure!(metrics.contains("queue_depth{queue=\"embeddings\"} 0"), "{metrics}");
        // What the oracle looks for are items of turns; here people made them.
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_text_is_not_sent_twice_and_what_was_deleted_is_not_found() -> Result<()> {
    let fake = FakeEmbeddings::start().await?;
    run(embedding(&fake), async |stack| {
        let client = stack.client(0);
        let note = write(&client, "notes", &json!({"title": "Savings", "content": "All the money"})).await?;
        until_found(&client, "q=cash&mode=semantic", &["Savings"]).await?;
        let place = format!("/v1/notes/{}", note["uid"].as_str().context("no uid")?);
        let pin = client.request("PATCH", &place).json(&json!({"pinned": true}));
        ensure_eq!(client.send(pin).await?.status, 200, "pinning");
        // Whatever comes later shows that the change was looked at.
        write(&client, "notes", &json!({"title": "Later"})).await?;
        fake.until("Later", 1, SOON).await?;
        ensure_eq!(
            fake.received().iter().filter(|text| text.starts_with("Savings")).count(),
            1,
            "the same text"
        );

        let change =
            client.request("PATCH", &place).json(&json!({"title": "Health", "content": "The doctor"}));
        ensure_eq!(client.send(change).await?.status, 200, "changing");
        until_found(&client, "q=physician&mode=semantic", &["Health"]).await?;
        ensure_eq!(client.send(client.request("DELETE", &place)).await?.status, 200, "deleting");
        ensure_eq!(
            titles(&client, "q=physician&mode=semantic").await?.contains(&"Health".to_owned()),
            false,
            "deleted"
        );
        // What the oracle looks for are items of turns; here people made them.
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_harms_nothing_else() -> Result<()> {
    let fake = FakeEmbeddings::start().await?;
    run(embedding(&fake), async |stack| {
        let client = stack.client(0);
        fake.fail(503);
        write(&client, "notes", &json!({"title": "Bank", "content": "Ask for money"})).await?;
        fake.until("Bank", 2, SOON).await?;
        ensure_eq!(titles(&client, "q=bank").await?, ["Bank"], "by words");
        for mode in ["semantic", "hybrid"] {
            let answer = client.get(&format!("/v1/search?q=cash&mode={mode}")).await?;
            ensure_eq!((answer.status, answer.error_code()), (503, "MODEL-UNAVAILABLE".to_owned()), "{mode}");
        }
        fake.fail(0);
        until_found(&client, "q=cash&mode=semantic", &["Bank"]).await?;
        // A text that the model will not have does not keep the others.
        write(&client, "notes", &json!({"title": "Odd", "content": "[[refuse]]"})).await?;
        write(&client, "notes", &json!({"title": "Even", "content": "My physician"})).await?;
        until_found(&client, "q=doctor&mode=semantic", &["Even"]).await?;
        // What the oracle looks for are items of turns; here people made them.
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_embeds_everything_again() -> Result<()> {
    let fake = FakeEmbeddings::start().await?;
    run(embedding(&fake), async |stack| {
        let client = stack.client(0);
        write(&client, "notes", &json!({"title": "Garage", "content": "The car"})).await?;
        until_found(&client, "q=vehicle&mode=semantic", &["Garage"]).await?;
        stack.workers[0].stop().await?;
        // Meanwhile nobody embeds, and what is written is not forgotten.
        write(&client, "notes", &json!({"title": "Street", "content": "An automobile"})).await?;
        stack.start_worker(&[("EMBEDDING_MODEL", "another")]).await?;
        let api = stack.start_api(&[("EMBEDDING_MODEL", "another")]).await?;
        let there = client.at(&stack.bases()[api]);
        until_found(&there, "q=vehicle&mode=semantic", &["Street", "Garage"]).await?;
        ensure_eq!(
            fake.received().iter().filter(|text| text.starts_with("Garage")).count(),
            2,
            "once a model"
        );
        // Without one, the mode says so, and nothing is put on the list.
        let none = stack
            .start_api(&[("EMBEDDING_PROVIDER", ""), ("EMBEDDING_BASE_URL", ""), ("EMBEDDING_MODEL", "")])
            .await?;
        let answer = client.at(&stack.bases()[none]).get("/v1/search?q=x&mode=semantic").await?;
        ensure_eq!(answer.status, 422, "{}", answer.body);
        // What the oracle looks for are items of turns; here people made them.
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_searches_by_meaning() -> Result<()> {
    let fake = FakeEmbeddings::start().await?;
    run(with_embeddings(here(), &fake), async |stack| {
        let client = stack.client(0);
        write(&client, "tasks", &json!({"title": "Call the physician"})).await?;
        until_found(&client, "q=doctor&mode=semantic", &["Call the physician"]).await?;
        let text = "[[tool:search_workspace {\"query\":\"surgeon\",\"mode\":\"semantic\"}]]";
        let posted = client.accept(&Chat::new(text).wait(10)).await?;
        ensure_eq!(posted.answer.json()["toolCalls"][0]["isError"], false, "{}", posted.answer.body);
        let told = stack.model().received().last().context("no request")?.json().to_string();
        ensure!(told.contains("Call the physician"), "the model is told: {told}");
        // A model of embeddings that is down costs the turn a sentence.
        fake.fail(503);
        let posted = client.accept(&Chat::new(text).wait(10)).await?;
        ensure_eq!(posted.answer.json()["toolCalls"][0]["isError"], true, "{}", posted.answer.body);
        let told = stack.model().received().last().context("no request")?.json().to_string();
        ensure!(told.contains("mode text works"), "the model is told: {told}");
        Ok(())
    })
    .await
}
