//! The first five minutes: a turn with the offline model, waited for, polled and followed [T1]-[T3], [M2].

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use harness::client::{Chat, Client, Posted};
use harness::stack::ModelChoice;
use serde_json::{Value, json};

use crate::run::{SOON, ensure_eq, here, offline, run};

/// Posts in this session and waits for the reply.
async fn say(client: &Client, session: Option<&str>, text: &str) -> Result<(Posted, Value)> {
    let mut chat = Chat::new(text).wait(10);
    if let Some(token) = session {
        chat = chat.session(token);
    }
    let posted = client.accept(&chat).await?;
    ensure_eq!(posted.answer.status, 200, "{text}: {}", posted.answer.body);
    let answer = posted.answer.json();
    Ok((posted, answer))
}

fn tools(answer: &Value) -> Vec<&str> {
    answer["toolCalls"].as_array().into_iter().flatten().filter_map(|call| call["tool"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_adds_lists_and_completes_a_task() -> Result<()> {
    run(offline(), async |stack| {
        let client = stack.client(0);
        let (first, answer) = say(&client, None, "Add a task to buy milk tomorrow").await?;
        ensure!(tools(&answer).contains(&"add_task"), "no add_task in {answer}");
        let session = first.session.as_str();

        let (_, answer) = say(&client, Some(session), "What is left to do?").await?;
        ensure!(tools(&answer).contains(&"list_tasks"), "no list_tasks in {answer}");
        let reply = answer["reply"].as_str().unwrap_or_default().to_lowercase();
        ensure!(reply.contains("milk"), "the list does not name the task: {reply}");

        let (_, answer) = say(&client, Some(session), "Complete the milk task").await?;
        ensure!(tools(&answer).contains(&"complete_task"), "no complete_task in {answer}");

        let (_, answer) = say(&client, Some(session), "what's left to do?").await?;
        let reply = answer["reply"].as_str().unwrap_or_default().to_lowercase();
        ensure!(!reply.contains("milk"), "a completed task is still on the list: {reply}");

        // Each shows in the stream of its turn.
        let transcript = client.follow(&first.job).to_done().await?;
        let kinds = transcript.kinds();
        let call = kinds.iter().position(|kind| *kind == "tool_call").context("no tool_call event")?;
        let result = kinds.iter().position(|kind| *kind == "tool_result").context("no tool_result event")?;
        ensure!(call < result, "the result comes before its call: {kinds:?}");
        ensure_eq!(kinds.first(), Some(&"queued"), "the first event");
        ensure_eq!(kinds.last(), Some(&"done"), "the last event");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_model_understands_several_phrasings() -> Result<()> {
    run(offline(), async |stack| {
        let client = stack.client(0);
        for (text, tool) in [
            ("add a task: call the dentist", "add_task"),
            ("remind me to water the plants", "add_task"),
            ("Please create a task to send the invoice", "add_task"),
            ("list my tasks", "list_tasks"),
            ("show my open tasks", "list_tasks"),
            ("Write a note that the door code is 1234", "create_note"),
        ] {
            let (_, answer) = say(&client, None, text).await?;
            ensure!(tools(&answer).contains(&tool), "{text:?} did not call {tool}: {answer}");
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_answers_the_reply_with_its_meta() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("hello [[tokens:3]]").wait(10)).await?;
        let answer = posted.answer.json();
        ensure_eq!(posted.answer.status, 200, "{answer}");
        ensure_eq!(posted.answer.header("preference-applied"), "wait", "Preference-Applied");
        ensure!(answer["reply"].as_str().is_some_and(|reply| reply.contains("t0 t1 t2")), "{answer}");
        let meta = &answer["meta"];
        ensure_eq!(meta["cacheHit"], false, "meta.cacheHit");
        ensure_eq!(meta["cacheTtlRemaining"], Value::Null, "meta.cacheTtlRemaining");
        for name in ["input", "output", "used"] {
            ensure!(
                meta["tokens"][name].as_i64().is_some_and(|count| count > 0),
                "meta.tokens.{name}: {meta}"
            );
        }
        ensure!(meta["durationMs"].as_i64().is_some(), "meta.durationMs: {meta}");
        ensure!(meta["requestId"].as_str().is_some_and(|id| !id.is_empty()), "meta.requestId: {meta}");
        ensure!(meta["model"].as_str().is_some_and(|name| name.contains("fake-1")), "meta.model: {meta}");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_too_short_answers_202_and_the_turn_goes_on() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[gate:slow]]").wait(1)).await?;
        ensure_eq!(posted.answer.status, 202, "{}", posted.answer.body);
        ensure_eq!(posted.answer.header("location"), format!("/jobs/{}", posted.job), "Location");
        let body = posted.answer.json();
        for link in ["self", "events", "stream", "cancel"] {
            ensure!(body["links"][link].is_string(), "links.{link}: {body}");
        }
        ensure!(body["meta"]["requestId"].is_string(), "meta.requestId: {body}");
        stack.model().gate("slow").release();
        let job = client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure_eq!(job["queue"], "chat-turns", "queue");
        ensure_eq!(job["attempts"].as_i64().unwrap_or(-1) <= 1, true, "attempts of {job}");
        for name in ["createdAt", "startedAt", "finishedAt"] {
            ensure!(job[name].is_string(), "{name}: {job}");
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_turn_that_fails_answers_its_error_and_job() -> Result<()> {
    run(here().env("MODEL_RETRIES", "0"), async |stack| {
        let client = stack.client(0);
        let answer = client.chat(&Chat::new("[[always:400]]").wait(10)).await?;
        ensure_eq!(answer.status, 502, "{}", answer.body);
        ensure_eq!(answer.error_code(), "MODEL-REJECTED", "{}", answer.body);
        let job = answer.json()["jobId"].as_str().context("no jobId")?.to_owned();
        let view = client.job(&job).await?;
        ensure_eq!(view["status"], "failed", "{view}");
        ensure_eq!(view["error"]["error"], "MODEL-REJECTED", "{view}");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_another_tenant_is_unknown() -> Result<()> {
    run(here().tenants(2), async |stack| {
        let (own, foreign) = (stack.client(0), stack.client(1));
        let name = own.tenant.clone();
        let posted = own.accept(&Chat::new(&format!("I am {name}")).wait(10)).await?;
        foreign.accept(&Chat::new("hello").wait(10)).await?;
        for answer in [
            foreign.get(&format!("/jobs/{}", posted.job)).await?,
            foreign.get(&format!("/jobs/{}/events", posted.job)).await?,
            foreign.cancel(&posted.job).await?,
            foreign.retry(&posted.job).await?,
            foreign.decide(&posted.job, "call", "approve").await?,
            foreign.get(&format!("/sessions/{}", posted.session_id)).await?,
            foreign.chat(&Chat::new("hello").session(&posted.session)).await?,
            foreign.get(&format!("/chat/stream?session={}", posted.session)).await?,
        ] {
            ensure_eq!(answer.status, 404, "{}", answer.body);
            ensure_eq!(answer.error_code(), "APP-404-NOT-FOUND", "{}", answer.body);
        }
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_model_streams_and_says_what_it_is() -> Result<()> {
    run(here().model(ModelChoice::Offline { delay_ms: 2 }), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("hello")).await?;
        let transcript = client.follow(&posted.job).to_done().await?;
        let tokens = transcript.kinds().iter().filter(|kind| **kind == "token").count();
        ensure!(tokens > 3, "{tokens} tokens");
        ensure!(transcript.text().to_lowercase().contains("offline"), "{}", transcript.text());
        stack.check().await
    })
    .await
}

/// One store, two views: what a turn has said and done so far is in the workspace while it runs [N2].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_turns_messages_are_messages_of_its_chat() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let text = r#"[[tool:add_task {"title":"Paint the fence"}]] [[tokens:4]] [[gate:end]]"#;
        let posted = client.accept(&Chat::new(text)).await?;
        let chat = client.get(&format!("/v1/chats/{}", posted.conversation)).await?.json();
        let chat_uid = chat["uid"].as_str().context("the conversation is no chat")?.to_owned();
        let list = async || -> Result<Vec<Value>> {
            let call = json!({
                "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": "list_chat_messages", "arguments": {"chat_uid": chat_uid}},
            });
            let request = client.request("POST", "/mcp").json(&call);
            let request = request.header("accept", "application/json, text/event-stream");
            let answer = client.send(request.header("mcp-protocol-version", "2025-11-25")).await?;
            let items = answer.json()["result"]["structuredContent"]["items"].clone();
            let mut items = items.as_array().cloned().with_context(|| answer.body.clone())?;
            items.reverse();
            Ok(items)
        };
        let deadline = tokio::time::Instant::now() + SOON;
        let messages = loop {
            let messages = list().await?;
            if messages.len() >= 3 {
                break messages;
            }
            ensure!(tokio::time::Instant::now() < deadline, "only {messages:?} after {SOON:?}");
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        };
        ensure_eq!(client.job(&posted.job).await?["status"], "running", "the turn");
        let roles: Vec<_> = messages.iter().map(|message| message["payload"]["role"].clone()).collect();
        ensure_eq!(roles, ["user", "assistant", "tool"], "roles");
        ensure_eq!(messages[0]["payload"]["content"], text, "the question");
        ensure_eq!(messages[1]["payload"]["toolCalls"][0]["tool"], "add_task", "{}", messages[1]);

        stack.model().gate("end").release();
        client.until(&posted.job, &["succeeded"], SOON).await?;
        let messages = list().await?;
        ensure_eq!(messages.len(), 4, "messages");
        ensure_eq!(messages[3]["payload"]["role"], "assistant", "{}", messages[3]);
        // By REST they are the same.
        let rest = client.get(&format!("/v1/chat_messages?chatUid={chat_uid}&limit=10")).await?;
        ensure_eq!(rest.json()["items"].as_array().map(Vec::len), Some(4), "{}", rest.body);
        stack.check().await
    })
    .await
}

/// Runs a turn and answers what its model was sent.
async fn prompt(stack: &harness::stack::Stack) -> Result<String> {
    say(&stack.client(0), None, "What day is it?").await?;
    let sent = stack.model().received().pop().context("the model was not asked")?;
    Ok(String::from_utf8_lossy(&sent.body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_told_what_day_it_is_where_the_person_is() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        // 26 hours apart: it is never the same day at both.
        for (zone, hours) in [("Pacific/Kiritimati", 14), ("Etc/GMT+12", -12)] {
            let preferences =
                client.request("PUT", "/api/v1/me/preferences").json(&json!({"timezone": zone}));
            ensure_eq!(client.send(preferences).await?.status, 200, "{zone}");
            let there = || (Utc::now() + TimeDelta::hours(hours)).format("%Y-%m-%d, a %A").to_string();
            let before = there();
            let told = prompt(stack).await?;
            let says =
                |day: &String| told.contains(&format!("Today is {day}. The person's timezone is {zone}."));
            ensure!([before, there()].iter().any(says), "{told}");
        }
        // A name that this server does not know (any more) stops nobody's turns.
        sqlx::query(
            "update user_contexts set context_data = '{\"preferences\": {\"timezone\": \"Mars/Base\"}}'",
        )
        .execute(&stack.database.admin)
        .await?;
        let told = prompt(stack).await?;
        ensure!(told.contains("The person's timezone is UTC."), "{told}");
        Ok(())
    })
    .await
}
