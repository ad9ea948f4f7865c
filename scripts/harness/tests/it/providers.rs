//! Providers that refuse, stall, break off and talk nonsense [M4].

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{client::Chat, fakes::model::Script};

use crate::run::{SOON, ensure_eq, here, run};

/// Goes wrong like this first, then well; the turn succeeds and nothing is said twice.
async fn recovers_from(scripts: Vec<Script>) -> Result<()> {
    run(here().env("MODEL_IDLE_TIMEOUT_SECONDS", "1"), async |stack| {
        let client = stack.client(0);
        let count = scripts.len();
        for script in &scripts {
            stack.model().push(script.clone());
        }
        stack.model().push(Script::new().tokens(4));
        let posted = client.accept(&Chat::new("hello")).await?;
        let transcript = client.follow(&posted.job).to_done().await?;
        ensure_eq!(transcript.done().unwrap()["status"], "succeeded", "{:?}", transcript.kinds());
        ensure!(transcript.text().trim() == "t0 t1 t2 t3", "the text is {:?}", transcript.text());
        ensure_eq!(stack.model().received().len(), count + 1, "requests");
        stack.check().await
    })
    .await
}

macro_rules! recoveries {
    ($($name:ident: [$($script:expr),*];)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            recovers_from(vec![$($script),*]).await
        }
    )*};
}

recoveries! {
    too_many_requests: [Script::refuse(429)];
    overloaded: [Script::refuse(529), Script::new().tokens(2).overloaded()];
    server_errors: [Script::refuse(500), Script::refuse(503)];
    a_stream_that_is_cut: [Script::new().tokens(3).cut()];
    a_stream_that_ends_without_its_end: [Script::empty()];
    a_stream_that_stalls: [Script::new().tokens(2).stall()];
    an_answer_that_never_comes: [Script::silent()];
    garbage: [Script::new().tokens(2).garbage("<html>oops\n\n").cut()];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_providers_own_wish_is_respected() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.model().push(Script::refuse(429).header("retry-after", "2"));
        let before = Instant::now();
        let posted = client.accept(&Chat::new("hello")).await?;
        client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure!(before.elapsed() >= Duration::from_secs(2), "it asked again after {:?}", before.elapsed());
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_a_broken_reply_is_void() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.model().push(Script::new().text("wrong beginning").cut());
        stack.model().push(Script::new().text("right"));
        let posted = client.accept(&Chat::new("hello")).await?;
        let transcript = client.follow(&posted.job).to_done().await?;
        ensure!(transcript.kinds().contains(&"resumed"), "{:?}", transcript.kinds());
        ensure_eq!(transcript.text(), "right", "the text");
        ensure_eq!(client.job(&posted.job).await?["reply"], "right", "the reply");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_arguments_are_told_to_the_model() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        for arguments in ["{\"title\": ", "[]", "{\"title\": 7}", "{}"] {
            stack.model().push(Script::new().call("add_task", arguments));
            stack.model().push(Script::new().text("sorry"));
            let posted = client.accept(&Chat::new("add a task").wait(10)).await?;
            let answer = posted.answer.json();
            ensure_eq!(answer["toolCalls"][0]["isError"], true, "{arguments}: {answer}");
        }
        stack.model().push(Script::new().call("no_such_tool", "{}"));
        stack.model().push(Script::new().text("sorry"));
        let posted = client.accept(&Chat::new("add a task").wait(10)).await?;
        ensure_eq!(posted.answer.status, 200, "an unknown tool: {}", posted.answer.body);
        ensure_eq!(stack.database.count("items_task").await?, 0, "tasks");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_calls_of_one_reply_are_answered_in_one_request() -> Result<()> {
    for provider in ["anthropic", "openai", "openai-compatible"] {
        let stack = here().model(harness::stack::ModelChoice::Fake(provider));
        run(stack, async |stack| {
            let client = stack.client(0);
            let text = "[[tool:add_task {\"title\":\"a\"}]][[tool:add_task {\"title\":\"b\"}]][[tool:list_tasks {}]]";
            let posted = client.accept(&Chat::new(text).wait(10)).await?;
            ensure_eq!(posted.answer.json()["toolCalls"].as_array().map(Vec::len), Some(3), "{}", posted.answer.body);
            ensure_eq!(stack.model().received().len(), 2, "requests");
            stack.check().await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nul_in_one_of_many_turns_stops_nobody() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        stack.model().rule(|request| {
            let text = if request.last_user.contains("number 13") { "a\0b" } else { "fine" };
            Some(Script::new().text(text).text(" and on"))
        });
        let posts = (0..32).map(|number| {
            let client = client.clone();
            async move { client.accept(&Chat::new(&format!("number {number}\0")).wait(15)).await }
        });
        for posted in futures::future::try_join_all(posts).await? {
            let reply = posted.answer.json()["reply"].as_str().unwrap_or_default().to_owned();
            ensure!(reply.ends_with(" and on") && !reply.contains('\0'), "{reply:?}");
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_answers_when_the_first_model_does_not() -> Result<()> {
    run(here().env("MODEL_RETRIES", "1").env("MODEL_FALLBACKS", "anthropic:spare-1"), async |stack| {
        let client = stack.client(0);
        stack.model().rule(|request| (request.model == "fake-1").then(|| Script::refuse(529)));
        let posted = client.accept(&Chat::new("hello").wait(10)).await?;
        ensure_eq!(posted.answer.status, 200, "{}", posted.answer.body);
        let model = posted.answer.json()["meta"]["model"].clone();
        ensure!(model.as_str().is_some_and(|model| model.contains("spare-1")), "meta.model: {model}");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_that_no_event_can_hold_becomes_several() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        // Letters that JSON writes with six, and some that take four bytes.
        let text = format!("{}{}", "\u{1}".repeat(40_000), "\u{1f980}".repeat(20_000));
        stack.model().push(Script::new().text(text.clone()));
        let posted = client.accept(&Chat::new("a lot at once").wait(20)).await?;
        ensure_eq!(posted.answer.status, 200, "{}", posted.answer.status);
        ensure!(posted.answer.json()["reply"] == text.as_str(), "the reply is another");
        stack.check().await
    })
    .await
}
