//! Servers of somebody else that go wrong: what it costs the turn, and what reaches them [R2].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{
    client::Chat,
    fakes::mcp::{Behaviour, Era, FakeMcp, FakeTool},
    stack::{Builder, Stack},
};
use serde_json::json;

use crate::{
    connections::Browser,
    remote::{add, call, offered, result},
    run::{SOON, ensure_eq, here, processes, run},
};

/// Patience for a test: a second for what takes ten in life.
fn impatient(builder: Builder) -> Builder {
    builder.stewards().env("MCP_READ_TIMEOUT_SECONDS", "1").env("MCP_CONNECT_TIMEOUT_SECONDS", "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_ends_in_a_sentence() -> Result<()> {
    for era in [Era::Modern, Era::Legacy] {
        let faults = [
            ("stall", Behaviour::Stall, "does not answer in time"),
            ("cut", Behaviour::Cut, "server docs"),
            ("short", Behaviour::Short, "cannot be reached"),
            ("error", Behaviour::Error(-32602, "wants a\u{200b} query"), "refused the call: wants a query"),
            ("teapot", Behaviour::Status(418), "refused the call: HTTP 418"),
            ("broken", Behaviour::Status(500), "cannot be reached"),
            ("limited", Behaviour::Status(429), "less often"),
            ("closed", Behaviour::Status(401), "does not accept the credential"),
            ("flood", Behaviour::Huge(20 << 20), "server docs"),
        ];
        let tools =
            faults.iter().map(|(name, behaviour, _)| FakeTool::reads(name, behaviour.clone())).collect();
        let docs = FakeMcp::start(era, tools).await?;
        // The breaker has a test of its own.
        let builder = impatient(here()).env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000");
        run(builder, async |stack: &mut Stack| {
            let client = stack.client(0);
            add(&client, "docs", &docs, json!({})).await?;
            for (name, _, sentence) in &faults {
                let job = call(&client, &format!("docs.{name}"), &json!({})).await?;
                let (said, is_error) = result(&job);
                ensure!(is_error && said.contains(sentence), "{era:?} {name}: {said}");
                ensure!(!said.contains("127.0.0.1"), "an address is told: {said}");
            }
            // It can be used again after all of that.
            docs.set_tools(vec![FakeTool::reads("fine", Behaviour::Echo)]);
            crate::remote::until("the new tool", async || Ok(offered(&client).await? == ["docs.fine"]))
                .await?;
            crate::remote::until("it runs", async || {
                Ok(!result(&call(&client, "docs.fine", &json!({})).await?).1)
            })
            .await
        })
        .await?;
    }
    Ok(())
}

/// What servers of before 2026-07-28 say to who asks them in the newest way, of which only the first is as it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_servers_are_asked_in_the_older_way() -> Result<()> {
    let answers = [
        (200, r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"Method not found"}}"#),
        // The Python SDK before its second version.
        (
            400,
            r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: Missing session"}}"#,
        ),
        (404, "<html>Not found</html>"),
        (405, ""),
        (200, r#"{"jsonrpc":"2.0","id":ID,"result":{}}"#),
    ];
    let mut servers = Vec::new();
    for (status, body) in answers {
        let server = FakeMcp::start(Era::Legacy, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
        server.answer_discovery(status, body);
        servers.push(server);
    }
    run(impatient(here()), async |stack: &mut Stack| {
        let client = stack.client(0);
        for (number, server) in servers.iter().enumerate() {
            add(&client, &format!("older-{number}"), server, json!({})).await?;
        }
        for (number, server) in servers.iter().enumerate() {
            let job = call(&client, &format!("older-{number}.read"), &json!({"query": "x"})).await?;
            ensure!(!result(&job).1, "{:?}: {job}", answers[number]);
            let said = server.received_of("initialize");
            ensure_eq!(said[0].body["params"]["protocolVersion"], "2025-11-25", "{:?}", answers[number]);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_tried_twice_and_a_write_once() -> Result<()> {
    let tools = vec![
        FakeTool::reads("read", Behaviour::StatusOnce(503)),
        FakeTool::writes("write", Behaviour::StatusOnce(503)),
        FakeTool::reads("never", Behaviour::Status(503)),
    ];
    let docs = FakeMcp::start(Era::Modern, tools).await?;
    run(impatient(here()), async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        let calls = || docs.received_of("tools/call").len();
        ensure!(!result(&call(&client, "docs.read", &json!({})).await?).1, "the second try went well");
        ensure_eq!(calls(), 2, "calls of the read");
        ensure!(result(&call(&client, "docs.write", &json!({})).await?).1, "a write is not tried again");
        ensure_eq!(calls(), 3, "calls after the write");
        ensure!(result(&call(&client, "docs.never", &json!({})).await?).1, "twice is enough");
        ensure_eq!(calls(), 5, "calls after the hopeless one");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_failing_is_left_alone_and_tried_again() -> Result<()> {
    let docs = FakeMcp::start(Era::Legacy, vec![FakeTool::writes("write", Behaviour::Echo)]).await?;
    let builder = impatient(here())
        .env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "3")
        .env("MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "2");
    run(builder, async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        ensure!(!result(&call(&client, "docs.write", &json!({})).await?).1, "well");
        // What is about credentials says nothing about the server.
        docs.refuse_everything(Some(401));
        for _ in 0..5 {
            ensure!(result(&call(&client, "docs.write", &json!({})).await?).1, "refused");
        }
        docs.refuse_everything(Some(500));
        // After a few failures, of calls or of looks at its list, nobody asks it, whatever turns want.
        crate::remote::until("it is left alone", async || {
            let before = docs.received().len();
            let (_, failed) = result(&call(&client, "docs.write", &json!({})).await?);
            Ok(failed && docs.received().len() == before)
        })
        .await?;
        docs.refuse_everything(None);
        crate::remote::until("it is tried again", async || {
            Ok(!result(&call(&client, "docs.write", &json!({})).await?).1)
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_flag_off_a_server_that_fails_is_asked_all_the_same() -> Result<()> {
    let docs = FakeMcp::start(Era::Legacy, vec![FakeTool::writes("write", Behaviour::Echo)]).await?;
    // Left alone for longer than the test takes.
    let builder = impatient(here())
        .env("MCP_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1")
        .env("MCP_CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "600");
    run(builder, async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        let failed =
            async || Ok::<_, anyhow::Error>(result(&call(&client, "docs.write", &json!({})).await?).1);
        ensure!(!failed().await?, "well");
        docs.refuse_everything(Some(500));
        ensure!(failed().await?, "not well");
        docs.refuse_everything(None);
        let asked = || docs.received_of("tools/call").len();
        let before = asked();
        ensure!(failed().await? && asked() == before, "it is not left alone");
        // A flag that is on for no server's name: as good as off.
        let off = client
            .request("PUT", "/admin/flags/CIRCUIT_BREAKER_ENABLED")
            .json(&json!({"enabled": true, "percent": 0}));
        let answer = client.send(off).await?;
        ensure_eq!(answer.status, 200, "{}", answer.body);
        crate::remote::until("it is asked", async || Ok(!failed().await?)).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_session_is_opened_again() -> Result<()> {
    let docs = FakeMcp::start(Era::Legacy, vec![FakeTool::writes("write", Behaviour::Echo)]).await?;
    run(impatient(here()), async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        for _ in 0..2 {
            ensure!(!result(&call(&client, "docs.write", &json!({"query": "x"})).await?).1, "well");
            docs.forget_sessions();
        }
        ensure!(docs.received_of("initialize").len() >= 2, "sessions");
        // Stopping says goodbye.
        stack.workers[0].stop().await?;
        ensure!(
            docs.until(SOON, |docs| !docs.received_of("DELETE").is_empty()).await,
            "the session was left open"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_have_sessions_of_their_own() -> Result<()> {
    let docs = FakeMcp::start(Era::Legacy, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
    run(impatient(here()).tenants(2), async |stack: &mut Stack| {
        let (one, other) = (stack.client(0), stack.client(1));
        add(&one, "docs", &docs, json!({"scope": "deployment"})).await?;
        for client in [&one, &other, &one] {
            crate::remote::until("its turn", async || {
                Ok(!result(&call(client, "docs.read", &json!({})).await?).1)
            })
            .await?;
        }
        let calls = docs.received_of("tools/call");
        let sessions: std::collections::BTreeSet<_> =
            calls.iter().map(|call| call.header("mcp-session-id")).collect();
        ensure_eq!(sessions.len(), 2, "sessions of {} calls", calls.len());
        Ok(())
    })
    .await
}

/// Arguments that a server wants in headers as well go there in every session, also in one that nobody listed tools in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_go_into_headers_whoever_listed_the_tools() -> Result<()> {
    let schema = json!({
        "type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}},
    });
    let tool = FakeTool::reads("find", Behaviour::Echo).with("inputSchema", schema);
    let docs = FakeMcp::start(Era::Modern, vec![tool]).await?;
    run(impatient(here()), async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        let arguments = json!({"region": "eu", "query": "x"});
        ensure!(!result(&call(&client, "docs.find", &arguments).await?).1, "well");
        // The list is remembered for all of the tenant; a session is a person's own.
        let mut colleague = Browser::signed_in(stack, "colleague@example.test").await?;
        let job = colleague.say("[[tool:docs__find {\"region\":\"us\"}]]").await?;
        ensure!(!result(&job).1, "the colleague's: {job}");
        ensure_eq!(docs.received_of("tools/call").len(), 2, "calls");
        for asked in docs.received_of("tools/call") {
            let region = asked.body["params"]["arguments"]["region"].as_str().unwrap_or_default();
            ensure_eq!(asked.header("mcp-param-region"), region, "{asked:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_turn_gives_its_call_up() -> Result<()> {
    for era in [Era::Modern, Era::Legacy] {
        let docs = FakeMcp::start(era, vec![FakeTool::reads("stall", Behaviour::Stall)]).await?;
        run(here().stewards(), async |stack: &mut Stack| {
            let client = stack.client(0);
            add(&client, "docs", &docs, json!({})).await?;
            let posted = client.accept(&Chat::new("[[tool:docs__stall {}]]")).await?;
            ensure!(docs.until(SOON, |docs| docs.received_of("tools/call").len() == 1).await, "it is called");
            client.cancel(&posted.job).await?;
            client.until(&posted.job, &["cancelled"], SOON).await?;
            ensure!(
                docs.until(SOON, |docs| docs.given_up().contains(&"stall".to_owned())).await,
                "{era:?}: it was not told"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_counts_as_a_word_and_is_passed_on() -> Result<()> {
    for era in [Era::Modern, Era::Legacy] {
        let slow = Behaviour::Progress(6, Duration::from_millis(400));
        let docs = FakeMcp::start(era, vec![FakeTool::writes("slow", slow)]).await?;
        run(impatient(here()), async |stack: &mut Stack| {
            let client = stack.client(0);
            add(&client, "docs", &docs, json!({})).await?;
            let posted = client.accept(&Chat::new("[[tool:docs__slow {\"query\":\"x\"}]]")).await?;
            let job = client.until(&posted.job, &["succeeded"], SOON).await?;
            ensure!(!result(&job).1, "{job}");
            let seen = client.follow(&posted.job).to_done().await?;
            let told: Vec<&str> = seen
                .frames
                .iter()
                .filter(|frame| frame.event == "warning")
                .map(|frame| frame.data.as_str())
                .collect();
            // Six words in 2.4 s, of which one a second is passed on.
            ensure!((1..=3).contains(&told.len()), "{era:?}: {told:?}");
            for word in told {
                ensure!(word.contains("MCP-PROGRESS") && word.contains("docs.slow: "), "{word}");
                ensure!(word.contains(" of 6"), "{word}");
            }
            ensure_eq!(job["meta"]["warnings"], json!([]), "progress is no warning of the turn");
            stack.check().await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_read_within_bounds() -> Result<()> {
    let looping = FakeMcp::start(Era::Modern, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
    looping.loop_cursors();
    let endless = FakeMcp::start(Era::Modern, vec![FakeTool::reads("read", Behaviour::Echo)]).await?;
    endless.endless_pages(1_000_000);
    let odd = vec![
        FakeTool::reads("bad name", Behaviour::Echo),
        FakeTool::reads("twice", Behaviour::Echo),
        FakeTool::reads("twice", Behaviour::Echo).with("description", "another".into()),
        FakeTool::reads("hidden", Behaviour::Echo).with("description", "a\u{202e}b\u{200b}c".into()),
    ];
    let odd = FakeMcp::start(Era::Legacy, odd).await?;
    run(impatient(here()), async |stack: &mut Stack| {
        let client = stack.client(0);
        for (name, fake) in [("endless", &endless), ("looping", &looping), ("odd", &odd)] {
            add(&client, name, fake, json!({})).await?;
        }
        let names = offered(&client).await?;
        ensure_eq!(names.iter().filter(|name| name.starts_with("endless.")).count(), 20, "pages");
        ensure!(names.contains(&"looping.read".to_owned()), "{names:?}");
        ensure!(looping.received_of("tools/list").len() <= 3, "a loop is left at once");
        let tools = client.get("/tools").await?.json();
        let held =
            tools["servers"].as_array().context("servers")?.iter().find(|server| server["name"] == "odd");
        ensure_eq!(held.context("odd")?["held"].as_array().map(Vec::len), Some(2), "{tools}");
        let hidden =
            tools["tools"].as_array().context("tools")?.iter().find(|tool| tool["name"] == "odd.hidden");
        ensure_eq!(hidden.context("hidden")?["description"], "abc", "description");
        Ok(())
    })
    .await
}

/// A worker dies in the midst of a call; another takes the turn over. Answers how often the tool was called.
async fn dies(tool: FakeTool, name: &str, unknown: bool) -> Result<usize> {
    let docs = FakeMcp::start(Era::Legacy, vec![tool]).await?;
    run(impatient(processes()).workers(0), async |stack: &mut Stack| {
        let doomed = stack.start_worker(&[("ALFRED_FAILPOINT", "outside_tool_after_call=abort")]).await?;
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        let posted = client.accept(&Chat::new(&format!("[[tool:docs__{name} {{}}]]"))).await?;
        stack.workers[doomed].real().wait(Duration::from_secs(15)).await?;
        stack.start_worker(&[]).await?;
        let job = client.until(&posted.job, &["succeeded"], SOON).await?;
        let (said, is_error) = result(&job);
        ensure_eq!((is_error, said.contains("unknown")), (unknown, unknown), "{said}");
        Ok(())
    })
    .await?;
    Ok(docs.received_of("tools/call").len())
}

#[tokio::test]
async fn a_read_whose_worker_died_is_made_again() -> Result<()> {
    ensure_eq!(dies(FakeTool::reads("read", Behaviour::Echo), "read", false).await?, 2, "calls");
    Ok(())
}

#[tokio::test]
async fn a_write_whose_worker_died_is_reported_as_unknown() -> Result<()> {
    ensure_eq!(dies(FakeTool::writes("write", Behaviour::Echo), "write", true).await?, 1, "calls");
    Ok(())
}
