//! Sessions [N1]-[N3] and what a page is rebuilt from [S6].

use anyhow::{Result, ensure};
use harness::client::Chat;
use serde_json::json;

use crate::run::{SOON, ensure_eq, here, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_listed_changed_and_deleted() -> Result<()> {
    run(here().tenants(2), async |stack| {
        let client = stack.client(0);
        let made = client.post("/sessions", &json!({})).await?;
        ensure_eq!(made.status, 201, "{}", made.body);
        let body = made.json();
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        let token = body["session"].as_str().unwrap_or_default().to_owned();
        ensure!(!token.is_empty(), "no token in {body}");
        let posted = client.accept(&Chat::new("hello").session(&token).wait(10)).await?;
        ensure_eq!(posted.session_id, id, "the session of the turn");
        let seen = client.get(&format!("/sessions/{id}")).await?;
        ensure!(!seen.body.contains(&token), "the token is shown again: {}", seen.body);
        ensure_eq!(seen.json()["conversationId"], posted.conversation, "{}", seen.body);
        let listed = client.get("/sessions").await?;
        ensure!(listed.body.contains(&id), "{}", listed.body);
        let path = format!("/sessions/{id}");
        let patched = client
            .send(client.request("PATCH", &path).json(&json!({"activeNotionWorkspace": "w-1"})))
            .await?;
        ensure_eq!(patched.status, 200, "{}", patched.body);
        ensure_eq!(patched.json()["activeNotionWorkspace"], "w-1", "{}", patched.body);
        ensure_eq!(stack.client(1).get(&path).await?.status, 404, "another tenant's");
        let gone = client.send(client.request("DELETE", &path)).await?;
        ensure!(matches!(gone.status, 200 | 204), "{} {}", gone.status, gone.body);
        ensure_eq!(client.get(&path).await?.status, 404, "a deleted session");
        let refused = client.chat(&Chat::new("hello").session(&token)).await?;
        ensure!(matches!(refused.status, 404 | 410), "{} {}", refused.status, refused.body);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_rebuilt_from_its_session() -> Result<()> {
    run(here(), async |stack| {
        let client = stack.client(0);
        let posted = client.accept(&Chat::new("[[tokens:6]][[gate:half]]")).await?;
        ensure!(stack.model().gate("half").reached(1, SOON).await, "the model was not asked");
        stack.database.until(&posted.job, SOON, |turn| turn.tokens == 3).await?;
        let path = format!("/sessions/{}", posted.session_id);
        let session = client.get(&path).await?.json();
        ensure_eq!(session["running"]["jobId"], posted.job.as_str(), "{session}");
        ensure!(session.to_string().contains("lastEventId"), "no last event id: {session}");
        stack.model().gate("half").release();
        client.follow(&posted.job).to_done().await?;
        let session = client.get(&path).await?.json();
        ensure!(session["running"].is_null(), "{session}");
        let used = client.job(&posted.job).await?["meta"]["tokens"]["used"].clone();
        ensure_eq!(session["tokensTotal"], used, "{session}");
        stack.check().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_outlive_the_key_that_made_them() -> Result<()> {
    const OLD: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const NEW: &str = "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=";
    run(here().env("FERNET_KEY", OLD), async |stack| {
        let client = stack.client(0);
        let first = client.accept(&Chat::new("hello").idempotency("once").wait(10)).await?;
        let conversation = first.conversation;
        let task_chat = json!({"conversation_id": conversation, "message": "and?"});
        let path = format!("/api/{}/chat", stack.tenants[0].user);
        for (keys, knows_it) in [(format!("{NEW},{OLD}"), true), (NEW.to_owned(), false)] {
            let api = stack.start_api(&[("FERNET_KEY", &keys)]).await?;
            let there = client.at(&stack.bases()[api]);
            // Whoever has the token goes on with it, and is told no other.
            let next = there.accept(&Chat::new("go on").session(&first.session).wait(10)).await?;
            ensure_eq!(next.session, first.session, "the token, with {keys}");
            ensure_eq!(next.conversation, conversation, "the conversation");
            let again = there.accept(&Chat::new("hello").idempotency("once").wait(10)).await?;
            ensure_eq!(again.job, first.job, "the repeated post");
            ensure_eq!(again.session == first.session, knows_it, "what a repeated post is told, with {keys}");
            // Who names the conversation alone is given a session that is good.
            let answer = there.post(&path, &task_chat).await?;
            ensure_eq!(answer.status, 200, "{}", answer.body);
        }
        Ok(())
    })
    .await
}
