//! The task chat [T9]: one call, one reply.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use harness::{client::Answer, fakes::model::Script, oracle::Expectations, stack::Stack};
use serde_json::{Value, json};

use crate::run::{SOON, ensure_eq, here, offline, run};

async fn say(stack: &Stack, conversation: Option<i64>, message: &str) -> Result<Answer> {
    let body = json!({ "conversation_id": conversation, "message": message });
    stack.client(0).post(&format!("/api/{}/chat", stack.tenants[0].user), &body).await
}

fn number(answer: &Answer) -> Result<i64> {
    ensure_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["conversation_id"].as_i64().context("an answer names its conversation")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_by_its_number() -> Result<()> {
    run(offline(), async |stack| {
        let first = say(stack, None, "add a task to buy milk tomorrow").await?;
        let conversation = number(&first)?;
        let call = first.json()["tool_calls"][0].clone();
        ensure_eq!(call["tool"], "add_task", "{call}");
        ensure!(call["params"]["title"].as_str().is_some_and(|title| title.contains("milk")), "{call}");
        ensure!(call["result"].is_object(), "{call}");
        let keys: Vec<String> =
            first.json().as_object().map(|body| body.keys().cloned().collect()).unwrap_or_default();
        ensure_eq!(keys, ["conversation_id", "response", "tool_calls"], "{}", first.body);
        let second = say(stack, Some(conversation), "complete the milk task").await?;
        ensure_eq!(number(&second)?, conversation, "{}", second.body);
        ensure_eq!(second.json()["tool_calls"][0]["tool"].as_str().is_some(), true, "{}", second.body);
        // By the same session: a conversation does not gather one with each message.
        let sessions = stack.client(0).get("/sessions").await?.json();
        ensure_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1), "{sessions}");
        // When the session has ended, the conversation goes on in another.
        let id = sessions["sessions"][0]["id"].as_str().unwrap_or_default().to_owned();
        let client = stack.client(0);
        client.send(client.request("DELETE", &format!("/sessions/{id}"))).await?;
        ensure_eq!(
            number(&say(stack, Some(conversation), "what is left to do?").await?)?,
            conversation,
            "later"
        );
        stack.check_as(Expectations::default()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_and_what_is_not_acceptable() -> Result<()> {
    run(offline().tenants(2), async |stack| {
        let mine = number(&say(stack, None, "hello").await?)?;
        let (own, other) = (stack.tenants[0].user.to_string(), stack.tenants[1].user.to_string());
        let hello = json!({ "message": "hello" });
        let (me, they) = (stack.client(0), stack.client(1));
        // Known and unknown alike.
        for path in [other.as_str(), "0198c0de-0000-7000-8000-000000000000", "999999999", "-1", "me", "%20"] {
            let refused = me.post(&format!("/api/{path}/chat"), &hello).await?;
            ensure_eq!(
                (refused.status, refused.error_code()),
                (403, "APP-403-FORBIDDEN".to_owned()),
                "{path}"
            );
        }
        for conversation in [mine, 0, -1, i64::MAX] {
            let body = json!({ "conversation_id": conversation, "message": "hello" });
            let refused = they.post(&format!("/api/{other}/chat"), &body).await?;
            ensure_eq!(
                (refused.status, refused.error_code()),
                (404, "APP-404-NOT-FOUND".to_owned()),
                "{conversation}"
            );
        }
        let place = format!("/api/{own}/chat");
        for wrong in [
            json!({}),
            json!({ "message": "" }),
            json!({ "message": " \n" }),
            json!({ "message": 3 }),
            json!({ "message": "x".repeat(65_537) }),
            json!({ "message": "hello", "conversation_id": "1" }),
            json!({ "message": "hello", "conversation_id": 1.5 }),
            json!({ "message": "hello", "mood": "good" }),
            json!([]),
        ] {
            let refused = me.post(&place, &wrong).await?;
            ensure_eq!(
                (refused.status, refused.error_code()),
                (422, "APP-4XX-VALIDATION".to_owned()),
                "{wrong}"
            );
        }
        // By number, too.
        let number: i64 = stack.database.number_of(stack.tenants[0].user).await?;
        ensure_eq!(me.post(&format!("/api/{number}/chat"), &hello).await?.status, 200, "by number");
        ensure_eq!(
            they.post(&format!("/api/{number}/chat"), &hello).await?.status,
            403,
            "by another's number"
        );
        stack.check_as(Expectations::default()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_down_and_a_call_that_needs_approval() -> Result<()> {
    run(here().env("MODEL_RETRIES", "0").env("TURN_MAX_ATTEMPTS", "2"), async |stack| {
        let down = say(stack, None, "please [[always:500]]").await?;
        ensure_eq!((down.status, down.error_code()), (503, "MODEL-UNAVAILABLE".to_owned()), "{}", down.body);
        ensure!(down.json()["jobId"].is_string(), "{}", down.body);
        stack.database.set_policy(stack.tenants[0].id, "add_task", "ask").await?;
        stack.model().push(Script::new().call("add_task", r#"{"title":"dig"}"#));
        let asks = say(stack, None, "dig a hole").await?;
        let conversation = number(&asks)?;
        let body = asks.json();
        ensure!(
            body["response"]
                .as_str()
                .is_some_and(|text| text.contains("approval") && text.contains("add_task")),
            "{body}"
        );
        ensure_eq!(
            body["tool_calls"],
            json!([{"tool": "add_task", "params": {"title": "dig"}, "result": null}]),
            "{body}"
        );
        // What was asked for can be decided with what the answer says.
        let text = body["response"].as_str().unwrap_or_default();
        let job =
            text.split("/jobs/").nth(1).and_then(|rest| rest.split('/').next()).context("no job")?.to_owned();
        let client = stack.client(0);
        let view = client.job(&job).await?;
        let call = view["waitingFor"]["approvals"][0]["callId"].as_str().unwrap_or_default().to_owned();
        client.decide(&job, &call, "approve").await?;
        let view = client.until(&job, &["succeeded"], SOON).await?;
        ensure_eq!(
            view["toolCalls"][0]["isError"],
            Value::Bool(false),
            "{view} of conversation {conversation}"
        );
        stack.check_as(Expectations { succeeded: 0.5, ..Default::default() }).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_conversations_at_once() -> Result<()> {
    run(offline().running_turns(100), async |stack| {
        let stack: &Stack = stack;
        let messages: Vec<String> = (0..100).map(|count| format!("add a task to dig hole {count}")).collect();
        let answers = join_all(messages.iter().map(|message| say(stack, None, message))).await;
        let mut conversations = std::collections::BTreeSet::new();
        for (count, answer) in answers.into_iter().enumerate() {
            let answer = answer?;
            ensure!(conversations.insert(number(&answer)?), "two share a conversation: {}", answer.body);
            let title = answer.json()["tool_calls"][0]["params"]["title"].to_string();
            ensure!(title.contains(&count.to_string()), "the reply to another: {}", answer.body);
        }
        Ok(())
    })
    .await
}
