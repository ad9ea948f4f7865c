//! What a model is sent of what is stored [M6].

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{
    client::{Chat, Client},
    fakes::model::{ReceivedRequest, Script},
    thrift::{self, Session},
};
use serde_json::{Value, json};

use crate::run::{SOON, ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figure is what the test is asked for")]
async fn repeated_reads_cost_a_tenth() -> Result<()> {
    let mut billed = Vec::new();
    for on in [false, true] {
        run(thrift::stack(on), async |stack| {
            billed.push(thrift::run(stack, Session::SamePages, on).await?);
            stack.check().await
        })
        .await?;
    }
    let saved = 1.0 - billed[1].billed() / billed[0].billed();
    eprintln!(
        "input tokens as billed: {:.0} with everything off, {:.0} with everything on, {:.1} % saved",
        billed[0].billed(),
        billed[1].billed(),
        saved * 100.0
    );
    ensure!(saved >= 0.9, "{:.1} % are saved: {billed:?}", saved * 100.0);
    Ok(())
}

fn texts(request: &ReceivedRequest) -> String {
    request.json()["messages"].to_string()
}

fn tools(request: &ReceivedRequest) -> Vec<String> {
    let body = request.json();
    let names = body["tools"].as_array().into_iter().flatten();
    names.filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect()
}

async fn say(client: &Client, text: &str, token: &mut Option<String>) -> Result<Value> {
    let mut chat = Chat::new(text).wait(20);
    if let Some(token) = token {
        chat = chat.session(token);
    }
    let posted = client.accept(&chat).await?;
    *token = Some(posted.session);
    client.until(&posted.job, &["succeeded"], SOON).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tools_are_found_on_demand() -> Result<()> {
    run(thrift::stack(true), async |stack| {
        let client = &stack.client(0);
        let mut token = None;
        let search = r#"[[tool:search_tools {"query":"read a wiki page"}]]"#;
        let read = r#"[[tool:wiki__get_page {"id":"a"}]]"#;
        let job = say(client, &format!("{search} [[next]] {read} [[tokens:3]]"), &mut token).await?;
        ensure!(job["toolCalls"][0]["result"]["tools"][0]["name"] == "wiki__get_page", "{job}");
        ensure!(job["toolCalls"][1]["result"]["id"] == "a", "{job}");
        say(client, "[[tokens:3]]", &mut token).await?;
        let received = stack.model().received();
        let offers: Vec<Vec<String>> = received.iter().map(tools).collect();
        ensure_eq!(offers.len(), 4, "requests");
        ensure!(
            offers[0].last().is_some_and(|name| name == "search_tools") && offers[0].len() < 40,
            "{:?}",
            offers[0]
        );
        for offer in &offers[1..] {
            ensure!(offer.starts_with(&offers[0]), "what lasts comes first: {offer:?}");
            ensure!(offer.contains(&"wiki__get_page".to_owned()), "what was found is offered: {offer:?}");
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_turns_become_a_summary_in_what_is_sent_alone() -> Result<()> {
    let builder = here().env("HISTORY_COMPACT_ABOVE_TOKENS", "600");
    run(builder, async |stack| {
        let client = &stack.client(0);
        stack.model().rule(|request| {
            let summing_up = request.json()["system"].to_string().contains("older part of a conversation");
            summing_up.then(|| Script::new().text("SUMMED-UP: the person likes herons."))
        });
        let mut token = None;
        for number in 0..9 {
            let text = format!("turn-{number}-says {} [[tokens:2]]", "I like herons. ".repeat(30));
            say(client, &text, &mut token).await?;
            stack.database.summaries_settled().await?;
        }
        let deadline = tokio::time::Instant::now() + SOON;
        let sent = loop {
            say(client, "and now? [[tokens:2]]", &mut token).await?;
            // The summaries' own requests aside.
            let received = stack.model().received();
            let last = received.iter().map(texts).rfind(|text| !text.contains("<conversation>"));
            let last = last.context("a request")?;
            if last.contains("SUMMED-UP") {
                break last;
            }
            ensure!(tokio::time::Instant::now() < deadline, "no summary is sent: {last}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        ensure!(!sent.contains("turn-0-says") && sent.contains("turn-8-says"), "{sent}");
        let asked = stack.model().received();
        let material =
            asked.iter().find(|request| texts(request).contains("<conversation>")).context("material")?;
        ensure!(texts(material).contains("turn-0-says"), "{}", texts(material));
        // What is stored is whole, and the summary's tokens are in the usage.
        let stored = "items where kind = 'chat_message' and payload ->> 'content' like 'turn-0-says%'";
        ensure_eq!(stack.database.count(stored).await?, 1, "messages of the first turn");
        let metered =
            "model_calls m where outcome = 'ok' and not exists (select from turns t where t.id = m.turn_id)";
        ensure!(stack.database.count(metered).await? >= 1, "the summary's call is not in the ledger");
        stack.check().await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_result_is_named_and_stored_whole() -> Result<()> {
    run(thrift::stack(true), async |stack| {
        let client = &stack.client(0);
        let mut token = None;
        let read = r#"[[tool:wiki__get_page {"id":"same"}]] [[tokens:2]]"#;
        let first = say(client, read, &mut token).await?;
        let second = say(client, read, &mut token).await?;
        ensure_eq!(second["toolCalls"][0]["result"], first["toolCalls"][0]["result"], "what is stored");
        ensure_eq!(second["meta"]["cacheHit"], json!(true), "the repeat");
        let sent = texts(stack.model().received().last().context("a request")?);
        ensure_eq!(sent.matches("same says that the plan stands").count(), 90, "the page is sent once");
        ensure!(sent.contains("[Unchanged: "), "{sent}");
        stack.check().await
    })
    .await
}
