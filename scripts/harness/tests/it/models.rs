//! One suite for every model provider: what a turn relies on, whoever serves it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use harness::fakes::model::{FakeModel, Outcome, Script};
use serde_json::{Value, json, value::RawValue};
use shared::model::{
    Model, ModelConfig, ModelError, ModelErrorKind, ModelEvent, ModelMessage, ModelReply, ModelRequest,
    NativeBlocks, Provider, StopReason, ToolResult, ToolSpec, Usage, by_name, http,
};

const SECOND: Duration = Duration::from_secs(1);
const WIRES: [Provider; 3] = [Provider::Anthropic, Provider::OpenAi, Provider::OpenAiCompatible];

fn model_at(provider: Provider, base_url: &str, idle_timeout: Duration) -> Arc<dyn Model> {
    let config = ModelConfig {
        provider: Some(provider),
        name: Some("test-model".into()),
        base_url: Some(base_url.parse().unwrap()),
        anthropic_api_key: Some("test-key".into()),
        openai_api_key: Some("test-key".into()),
        idle_timeout,
        offline_delay: Duration::ZERO,
        ..ModelConfig::default()
    };
    let client = http::client(reqwest::ClientBuilder::no_proxy).unwrap();
    by_name(&config, &client).unwrap().remove(0)
}

fn model(provider: Provider, fake: &FakeModel) -> Arc<dyn Model> {
    model_at(provider, &fake.base_url, Duration::from_secs(10))
}

fn request(messages: Vec<ModelMessage>) -> ModelRequest {
    ModelRequest {
        system: "Be brief.".into(),
        messages,
        tools: Arc::from([ToolSpec {
            name: "add_task".into(),
            description: "Adds a task".into(),
            input_schema: json!({"type": "object", "properties": {"title": {"type": "string"}}}),
        }]),
        max_output_tokens: 1000,
        cache_key: Some("a-conversation".into()),
        lasting_tools: 1,
    }
}

fn ask(text: &str) -> ModelRequest {
    request(vec![ModelMessage::User { text: text.into() }])
}

/// Everything a stream yielded.
#[derive(Debug, Default)]
struct Heard {
    texts: Vec<String>,
    usages: Vec<Usage>,
    reply: Option<ModelReply>,
    error: Option<ModelError>,
}

async fn hear(mut stream: BoxStream<'static, Result<ModelEvent, ModelError>>) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = stream.next().await {
        assert!(heard.reply.is_none() && heard.error.is_none(), "something after the end");
        match event {
            Ok(ModelEvent::Text(text)) => {
                assert!(!text.is_empty() && !text.contains('\0'));
                heard.texts.push(text);
            }
            Ok(ModelEvent::Usage(usage)) => heard.usages.push(usage),
            Ok(ModelEvent::Done(reply)) => heard.reply = Some(reply),
            Err(error) => heard.error = Some(error),
        }
    }
    if let Some(reply) = &heard.reply {
        assert_eq!(heard.texts.concat(), reply.text);
        assert_eq!(heard.usages.last(), Some(&reply.usage));
    }
    heard
}

async fn reply(model: &Arc<dyn Model>, request: ModelRequest) -> ModelReply {
    let heard = hear(model.stream(request)).await;
    assert!(heard.error.is_none(), "{:?}", heard.error);
    heard.reply.unwrap()
}

#[tokio::test]
async fn text_arrives_delta_by_delta_with_its_usage() {
    let fake = FakeModel::start().await.unwrap();
    for provider in WIRES {
        let cache_write = if provider == Provider::OpenAiCompatible { 0 } else { 200 };
        let usage = Usage { input: 1000, output: 3, cache_read: 700, cache_write };
        fake.push(Script::new().tokens(2).text("h\u{e9}!").usage(usage));
        let heard = hear(model(provider, &fake).stream(ask("hi"))).await;
        assert_eq!(heard.texts, ["t0 ", "t1 ", "h\u{e9}!"], "{provider}");
        let reply = heard.reply.unwrap();
        assert_eq!((reply.stop, reply.usage), (StopReason::End, usage), "{provider}");
        assert!(reply.calls.is_empty());
        let asked = fake.received().pop().unwrap();
        assert_eq!((asked.model.as_str(), asked.last_user.as_str()), ("test-model", "hi"));
        assert_eq!(asked.key.as_deref(), Some("test-key"));
        assert_eq!(fake.served().last().unwrap().usage, usage);
    }
}

#[tokio::test]
async fn several_calls_in_one_reply() {
    let fake = FakeModel::start().await.unwrap();
    for provider in WIRES {
        fake.push(
            Script::new()
                .thinking("hm", "c2ln")
                .text("On it.")
                .call("add_task", r#"{"title":"caf\u00e9 \u0000","n":{"a":[1,2]}}"#)
                .call("add_task", "")
                .call("add_task", r#"{"title": "#),
        );
        let reply = reply(&model(provider, &fake), ask("go")).await;
        assert_eq!((reply.text.as_str(), reply.stop), ("On it.", StopReason::ToolUse), "{provider}");
        let arguments: Vec<_> = reply.calls.iter().map(|call| call.arguments.clone()).collect();
        assert_eq!(
            arguments,
            [
                Ok(json!({"title": "caf\u{e9} \u{fffd}", "n": {"a": [1, 2]}})),
                Ok(json!({})),
                Err(r#"{"title": "#.to_owned())
            ],
            "{provider}"
        );
        let mut ids: Vec<&str> = reply.calls.iter().map(|call| call.id.as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert!(reply.calls.iter().all(|call| call.name == "add_task"));
    }
}

#[tokio::test]
async fn blocks_are_replayed_byte_for_byte() {
    let fake = FakeModel::start().await.unwrap();
    for provider in WIRES {
        let model = model(provider, &fake);
        fake.push(
            Script::new()
                .thinking("let me\nsee", "c2ln")
                .text("Wait")
                .text(" a bit.")
                .call("add_task", r#"{"b":1,  "a":2.0}"#),
        );
        let first = reply(&model, ask("go")).await;
        let call_id = first.calls[0].id.clone();
        let again = |native: Option<NativeBlocks>| {
            request(vec![
                ModelMessage::User { text: "go".into() },
                ModelMessage::Assistant { text: first.text.clone(), calls: first.calls.clone(), native },
                ModelMessage::ToolResults(vec![ToolResult {
                    call_id: call_id.clone(),
                    content: "done".into(),
                    is_error: false,
                }]),
            ])
        };
        fake.push(Script::new().text("Done."));
        let native = NativeBlocks { provider, blocks: first.blocks.clone() };
        reply(&model, again(Some(native))).await;
        let sent = fake.received().pop().unwrap();
        assert_eq!(sent.rounds, 1);
        let sent = String::from_utf8(sent.body.to_vec()).unwrap();

        #[derive(serde::Deserialize)]
        struct Blocks {
            content: Box<RawValue>,
        }
        let blocks: Blocks = serde_json::from_str(&first.blocks).unwrap();
        let content = blocks.content.get().trim_start_matches('[').trim_end_matches(']');
        assert!(sent.contains(content), "{provider}: {content} in {sent}");
        let strange = match provider {
            Provider::Anthropic => [r#""x_new":{"b":1,  "a":[1.0]}"#, r#""input":{"b":1,  "a":2.0}"#],
            Provider::OpenAi => [r#""x_new": 1.0"#, r#""type":"reasoning",  "summary""#],
            _ => [
                r#""extra_content":{"google":{"thought_signature":"c2ln",  "n":1.0}}"#,
                r#""reasoning_content":"let me\nsee""#,
            ],
        };
        for strange in strange {
            assert!(sent.contains(strange), "{provider}: {strange} in {sent}");
        }

        // Another provider's blocks are not sent; the reply is told in our words.
        let foreign = NativeBlocks { provider: Provider::Offline, blocks: first.blocks.clone() };
        fake.push(Script::new().text("Done."));
        reply(&model, again(Some(foreign))).await;
        let sent = String::from_utf8(fake.received().pop().unwrap().body.to_vec()).unwrap();
        assert!(!sent.contains("c2ln") && sent.contains("Wait a bit.") && sent.contains(&call_id), "{sent}");
    }
}

#[tokio::test]
async fn every_failure_has_its_kind() {
    use ModelErrorKind::{Overloaded, RateLimited, Rejected, Timeout, Truncated, Unauthorized, Unavailable};
    let fake = FakeModel::start().await.unwrap();
    let some = || Script::new().tokens(2);
    let cases: Vec<(&str, Script, ModelErrorKind, usize)> = vec![
        ("429", Script::refuse(429).header("retry-after", "3"), RateLimited, 0),
        ("529", Script::refuse(529), Overloaded, 0),
        ("503", Script::refuse(503).header("retry-after-ms", "3000"), Overloaded, 0),
        ("500", Script::refuse(500), Unavailable, 0),
        ("408", Script::refuse(408), Unavailable, 0),
        ("401", Script::refuse(401), Unauthorized, 0),
        ("403", Script::refuse(403), Unauthorized, 0),
        ("400", Script::refuse(400), Rejected, 0),
        ("404", Script::refuse(404), Rejected, 0),
        ("redirect", Script::refuse(307).header("location", "http://127.0.0.1:1/"), Rejected, 0),
        ("empty", Script::empty(), Truncated, 0),
        ("cut", some().cut(), Truncated, 2),
        ("cut in a call", Script::new().call("add_task", "{\"a\":1}").cut(), Truncated, 0),
        ("ended early", some().step(harness::fakes::model::Step::End), Truncated, 2),
        ("garbage line", some().garbage("<html>\n\n"), Truncated, 2),
        ("garbage bytes", some().garbage(b"data: \xff\xfe\n\n".to_vec()), Truncated, 2),
        ("garbage JSON", some().garbage("data: {\"type\":\n\n"), Truncated, 2),
        ("overload in the stream", some().overloaded(), Overloaded, 2),
        ("stall", some().stall(), Timeout, 2),
        ("no answer", Script::silent(), Timeout, 0),
    ];
    for provider in WIRES {
        let model = model_at(provider, &fake.base_url, Duration::from_millis(300));
        for (name, script, kind, texts) in &cases {
            fake.push(script.clone());
            let heard = hear(model.stream(ask("hi"))).await;
            let error = heard.error.unwrap_or_else(|| panic!("{provider} {name}: {:?}", heard.reply));
            assert_eq!(error.kind, *kind, "{provider} {name}: {error:?}");
            assert_eq!(error.is_retryable(), !matches!(kind, Rejected | Unauthorized));
            assert_eq!(heard.texts.len(), *texts, "{provider} {name}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("test-key") && !shown.contains("the-provider-says-so"), "{shown}");
            let waits = matches!(*name, "429" | "503").then(|| Duration::from_secs(3));
            assert_eq!(error.retry_after, waits, "{provider} {name}");
        }
        // Whatever went wrong, the next request is served.
        assert_eq!(reply(&model, ask("[[tokens:1]]")).await.text, "t0 ");
    }
}

#[tokio::test]
async fn a_closed_port_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for provider in WIRES {
        let error = hear(model_at(provider, &base_url, SECOND).stream(ask("hi"))).await.error.unwrap();
        assert_eq!(error.kind, ModelErrorKind::Unavailable);
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn dropping_a_stream_closes_the_connection() {
    let fake = FakeModel::start().await.unwrap();
    for (round, provider) in WIRES.into_iter().enumerate() {
        let model = model(provider, &fake);
        fake.push(Script::new().tokens(1).gate("never").tokens(1));
        let mut stream = model.stream(ask("hi"));
        while !matches!(stream.next().await, Some(Ok(ModelEvent::Text(_)))) {}
        drop(stream);
        assert!(fake.ended(Outcome::Disconnected, 2 * round + 1, SECOND).await, "{provider} in the stream");

        fake.push(Script::silent());
        let asked = fake.served().len() + 1;
        let waiting = tokio::spawn(hear(model.stream(ask("hi"))));
        assert!(fake.asked(asked, SECOND).await);
        waiting.abort();
        assert!(fake.ended(Outcome::Disconnected, 2 * round + 2, SECOND).await, "{provider} before it");
    }
}

#[tokio::test]
async fn any_cut_of_the_bytes_is_the_same_reply() {
    let fake = FakeModel::start().await.unwrap();
    for provider in WIRES {
        let model = model(provider, &fake);
        let script = Script::new()
            .text("h\u{e9}llo \u{1f600}")
            .text("\u{4e16}\0")
            .call("add_task", r#"{"title":"caf\u00e9 ☕"}"#);
        fake.push(script.clone());
        let whole = reply(&model, ask("hi")).await;
        assert_eq!(whole.text, "h\u{e9}llo \u{1f600}\u{4e16}\u{fffd}");
        for bytes in [1, 7] {
            fake.push(script.clone().chunks_of(bytes));
            let cut = reply(&model, ask("hi")).await;
            assert_eq!((cut.text, cut.calls.len()), (whole.text.clone(), 1), "{provider}");
            assert_eq!(cut.calls[0].arguments, whole.calls[0].arguments);
        }
    }
}

#[tokio::test]
async fn the_token_limit_is_told() {
    let fake = FakeModel::start().await.unwrap();
    for provider in WIRES {
        fake.push(Script::new().tokens(4).max_tokens());
        assert_eq!(reply(&model(provider, &fake), ask("hi")).await.stop, StopReason::MaxTokens, "{provider}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let fake = FakeModel::start().await.unwrap();
    let model = model(Provider::Anthropic, &fake);
    for _ in 0..20 {
        reply(&model, ask(r#"[[tool:add_task {"title":"x"}]]"#)).await;
        reply(&model, ask("[[tokens:32]]")).await;
    }
    assert!(fake.connections() <= 3, "{} connections", fake.connections());
}

#[tokio::test]
async fn directives_drive_a_turn() {
    let fake = FakeModel::start().await.unwrap();
    let text = r#"[[first:529]] [[tool:add_task {"title":"x"}]] [[tokens:32]] [[gate:door]]"#;
    for (round, provider) in WIRES.into_iter().enumerate() {
        let text = format!("{text} {provider}");
        let model = model(provider, &fake);
        let refused = hear(model.stream(ask(&text))).await;
        assert_eq!(refused.error.unwrap().kind, ModelErrorKind::Overloaded);
        let first = reply(&model, ask(&text)).await;
        assert_eq!(first.calls[0].arguments, Ok(json!({"title": "x"})));
        let results = ModelMessage::ToolResults(vec![ToolResult {
            call_id: first.calls[0].id.clone(),
            content: "ok".into(),
            is_error: false,
        }]);
        let assistant = ModelMessage::Assistant { text: String::new(), calls: first.calls, native: None };
        let messages = vec![ModelMessage::User { text: text.clone() }, assistant, results];
        assert!(hear(model.stream(request(messages.clone()))).await.error.is_some());
        let second = tokio::spawn({
            let model = model.clone();
            async move { reply(&model, request(messages)).await }
        });
        let gate = fake.gate("door");
        assert!(gate.reached(round + 1, SECOND).await);
        gate.release();
        assert_eq!(second.await.unwrap().text.split_whitespace().count(), 32);
    }
}

#[tokio::test]
async fn the_offline_model_keeps_the_same_rules() {
    let model = model_at(Provider::Offline, "http://127.0.0.1:1", SECOND);
    let heard = hear(model.stream(ask("Who are you?"))).await;
    assert!(heard.texts.len() > 5, "word by word");
    let answer = heard.reply.unwrap();
    assert_eq!(answer.stop, StopReason::End);
    assert!(answer.usage.input > 0 && answer.usage.output > 0);
    assert!(serde_json::from_str::<Value>(&answer.blocks).is_ok());
    assert_eq!(reply(&model, ask("Who are you?")).await, answer, "the same request, the same reply");
}
