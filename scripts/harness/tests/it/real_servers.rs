//! Turns over real MCP servers: the reference "everything" server, one made with FastMCP, and Notion's own in front of a
//! stand-in for Notion's API. Left out on a machine that has not installed them; never in CI.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{
    client::{Chat, Client},
    fakes::oauth::FakeAuthorization,
    real::{Installed, RealServer},
    stack::{Builder, Stack},
};
use serde_json::{Value, json};

use crate::{
    connections::{Browser, connected_to},
    remote::{call, offered, until},
    run::{SOON, ensure_eq, here, offline, processes, run},
};

/// What Notion's server wants for itself.
const SHARED_TOKEN: &str = "the-deployments-own-MARKER";
const PAGE: &str = "11111111-2222-4333-8444-555555555555";

/// A stack whose self-hosted Notion is this one.
fn with_notion(builder: Builder, notion: &FakeAuthorization, server: &RealServer) -> Builder {
    connected_to(builder.stewards(), notion)
        .env("FEATURE_NOTION_HOSTED_MCP", "off")
        .env("NOTION_SELF_HOST_URL", &server.url)
        .env("NOTION_SELF_HOST_TOKEN", SHARED_TOKEN)
}

/// As Notion's API is: nothing tells when a token ends, or who is behind it.
async fn notion_api() -> Result<FakeAuthorization> {
    let notion = FakeAuthorization::start().await?;
    notion.set(|knobs| (knobs.expires_in, knobs.says_issuer, knobs.userinfo) = (None, false, false));
    Ok(notion)
}

async fn add(client: &Client, name: &str, server: &RealServer, more: Value) -> Result<()> {
    let mut body = json!({"name": name, "url": server.url});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let answer = client.post("/admin/mcp-servers", &body).await?;
    ensure_eq!(answer.status, 201, "{}", answer.body);
    Ok(())
}

/// The reference server says nothing of what its tools do.
fn of_everything() -> Value {
    json!({"effects": {"echo": "read", "get-sum": "read", "trigger-long-running-operation": "read"}})
}

async fn turn(client: &Client, text: &str) -> Result<Value> {
    let posted = client.accept(&Chat::new(text)).await?;
    client.until(&posted.job, &["succeeded"], SOON).await
}

/// What came of the turn's first call, whether it is text or JSON.
fn result(job: &Value) -> (String, bool) {
    let first = calls(job).unwrap_or_default().into_iter().next();
    first.map_or_else(Default::default, |(_, said, is_error)| (said, is_error))
}

fn calls(job: &Value) -> Result<Vec<(&str, String, bool)>> {
    let calls = job["toolCalls"].as_array().context("toolCalls")?;
    let told = |call: &Value| match &call["result"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(calls
        .iter()
        .map(|call| (call["tool"].as_str().unwrap_or_default(), told(call), call["isError"] == true))
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_turn_searches_reads_and_makes_a_task_of_it() -> Result<()> {
    let Some(installed) = Installed::find()? else { return Ok(()) };
    let notion = notion_api().await?;
    let (everything, docs, self_hosted) = tokio::try_join!(
        installed.everything(),
        installed.docs(),
        installed.notion(&notion.url, SHARED_TOKEN)
    )?;
    run(with_notion(processes(), &notion, &self_hosted), async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        add(&client, "everything", &everything, of_everything()).await?;

        // What there is, before and after the person connected Notion.
        let before = offered(&client).await?;
        for tool in ["docs.search", "docs.get_page", "everything.echo", "everything.get-sum"] {
            ensure!(before.iter().any(|name| name == tool), "{tool} is not among {before:?}");
        }
        ensure!(!before.iter().any(|name| name.starts_with("notion")), "not connected: {before:?}");
        Browser::of(stack, 0).connect("notion-self-hosted").await?.is(200, "is connected")?;
        until("the person's tools of Notion", async || {
            let now = offered(&client).await?;
            Ok(["notion.get_page", "notion.search", "notion-self-hosted.API-get-self"]
                .iter()
                .all(|tool| now.iter().any(|name| name == tool)))
        })
        .await?;
        let tools = client.get("/tools").await?.json();
        let effect = |name: &str| {
            let found = tools["tools"].as_array().into_iter().flatten().find(|tool| tool["name"] == name);
            found.map(|tool| (tool["effect"].clone(), tool["policy"].clone()))
        };
        ensure_eq!(effect("docs.search"), Some((json!("read"), json!("allow"))), "docs.search");
        ensure_eq!(effect("notion.get_page"), Some((json!("read"), json!("allow"))), "notion.get_page");
        let deletes = effect("notion-self-hosted.API-delete-a-block");
        ensure_eq!(deletes, Some((json!("destructive"), json!("ask"))), "what deletes asks first");

        // Search, read in three places at once, and make a task of it.
        let reads = format!(
            "[[tool:docs__get_page {{\"id\":\"backups\"}}]]\
             [[tool:notion__get_page {}]][[tool:everything__get-sum {{\"a\":2,\"b\":3}}]]",
            json!({"page_id": PAGE})
        );
        let script = format!(
            "search the docs for backups and make a task of it [[tool:docs__search {{\"query\":\"backups\"}}]][[next]]\
             {reads}[[next]][[tool:add_task {{\"title\":\"Try a restore\",\"description\":\"Backups run every night\"}}]]"
        );
        let first = turn(&client, &script).await?;
        let told = calls(&first)?;
        let names: Vec<&str> = told.iter().map(|(name, ..)| *name).collect();
        let expected = ["docs.search", "docs.get_page", "notion.get_page", "everything.get-sum", "add_task"];
        ensure_eq!(names, expected, "calls");
        for ((name, said, is_error), part) in
            told.iter().zip(["backups", "A restore is tried out", "The plan of Acme", "5", "Try a restore"])
        {
            ensure!(!is_error && said.contains(part), "{name}: {said}");
        }
        ensure_eq!(first["meta"]["cacheHit"], json!(false), "{first}");
        let tasks = client.get("/v1/tasks").await?.json();
        ensure_eq!(tasks["items"][0]["payload"]["title"], "Try a restore", "{tasks}");

        // The same once more: nobody is asked.
        let again = turn(&client, &reads).await?;
        ensure_eq!(again["meta"]["cacheHit"], json!(true), "{again}");
        ensure!(again["meta"]["cacheTtlRemaining"].as_i64().is_some_and(|left| left > 3000), "{again}");
        let hits = again["toolCalls"].as_array().context("calls")?;
        ensure!(hits.iter().all(|call| call["cacheHit"] == true), "{again}");
        let asked = notion.received("/v1/pages/markdown");
        ensure_eq!(asked.len(), 1, "pages that were read: {asked:?}");
        ensure_eq!((asked[0]["what"].as_str(), asked[0]["version"].as_str()), (PAGE, "2026-03-11"), "asked");

        // Neither the person's token nor the deployment's came back from there.
        let requests = stack.model().received();
        ensure!(requests.len() >= 4, "{} requests to the model", requests.len());
        for request in requests {
            let text = String::from_utf8_lossy(&request.body);
            ensure!(!text.contains("MARKER"), "a token reached the model");
        }
        stack.check().await
    })
    .await
}

/// As somebody would say it, to the model that is built in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_model_makes_a_task_of_what_it_finds() -> Result<()> {
    let Some(installed) = Installed::find()? else { return Ok(()) };
    let docs = installed.docs().await?;
    run(offline().stewards(), async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        let said = "search the docs for backups and add a task to try a restore";
        let answer = client.chat(&Chat::new(said).wait(20)).await?.json();
        let reply = answer["reply"].as_str().unwrap_or_default();
        ensure!(reply.contains("Backups run every night"), "{answer}");
        let tasks = client.get("/v1/tasks").await?.json();
        ensure_eq!(tasks["items"][0]["payload"]["title"], "Try a restore", "{tasks}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_may_report_refuse_and_restart() -> Result<()> {
    let Some(installed) = Installed::find()? else { return Ok(()) };
    let (mut everything, mut docs) = tokio::try_join!(installed.everything(), installed.docs())?;
    let builder = here().stewards().env("MCP_READ_TIMEOUT_SECONDS", "2");
    run(builder, async |stack: &mut Stack| {
        let client = stack.client(0);
        add(&client, "docs", &docs, json!({})).await?;
        add(&client, "everything", &everything, of_everything()).await?;

        // Longer than a silence may be, but it reports progress.
        let slow = json!({"duration": 4, "steps": 8});
        let job = call(&client, "everything.trigger-long-running-operation", &slow).await?;
        ensure!(!result(&job).1 && result(&job).0.contains("completed"), "{job}");
        let job = call(&client, "docs.survey", &json!({"pages": 20})).await?;
        ensure_eq!(result(&job), ("20 pages were read".to_owned(), false), "{job}");

        // A tool's own error is for the model, and is not kept.
        for _ in 0..2 {
            let job = call(&client, "docs.get_page", &json!({"id": "nothing"})).await?;
            ensure!(result(&job).1 && result(&job).0.contains("there is no page nothing"), "{job}");
            ensure_eq!(job["meta"]["cacheHit"], json!(false), "{job}");
        }
        let job = call(&client, "everything.get-sum", &json!({"a": "two"})).await?;
        ensure!(result(&job).1, "{job}");

        // Their sessions are gone with them, and nobody notices.
        for (server, tool, arguments, part) in [
            (&mut everything, "everything.echo", json!({"message": "hello again"}), "hello again"),
            (&mut docs, "docs.get_page", json!({"id": "deploys"}), "the commit before"),
        ] {
            server.restart().await?;
            until(tool, async || {
                let (said, is_error) = result(&call(&client, tool, &arguments).await?);
                Ok(!is_error && said.contains(part))
            })
            .await?;
        }
        let health = async |name: &str| {
            let server = client.get(&format!("/admin/mcp-servers/{name}")).await?.json();
            anyhow::Ok(server["health"].clone())
        };
        // Asked once a minute: what is there is of the real server, or nothing yet.
        for name in ["docs", "everything"] {
            let health = health(name).await?;
            ensure!(health.is_null() || health["isWell"] == true, "{name}: {health}");
        }
        Ok(())
    })
    .await
}

/// Notion's server tells the refusals of Notion's API as ordinary results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_behind_notions_server_is_one() -> Result<()> {
    let Some(installed) = Installed::find()? else { return Ok(()) };
    let notion = notion_api().await?;
    let server = installed.notion(&notion.url, SHARED_TOKEN).await?;
    run(with_notion(here(), &notion, &server), async |stack: &mut Stack| {
        let client = stack.client(0);
        let mut browser = Browser::of(stack, 0);
        browser.connect("notion-self-hosted").await?.is(200, "is connected")?;
        until("the tools", async || Ok(offered(&client).await?.contains(&"notion.get_page".to_owned())))
            .await?;
        let read = async |id: &str| call(&client, "notion.get_page", &json!({"page_id": id})).await;

        // An unknown page is an error, and is asked for again.
        let unknown = PAGE.replacen('1', "0", 1);
        for _ in 0..2 {
            let job = read(&unknown).await?;
            ensure!(result(&job).1 && result(&job).0.contains("object_not_found"), "{job}");
        }
        ensure_eq!(notion.received("/v1/pages/markdown").len(), 2, "reads of the unknown page");

        // Notion no longer takes the token: it is renewed once, and the person notices nothing.
        notion.grants(|grants| {
            grants.families[0].access.push("ntn_another-that-we-do-not-have".to_owned());
        });
        let job = read(PAGE).await?;
        ensure!(!result(&job).1 && result(&job).0.contains("The plan of Acme"), "{job}");
        ensure_eq!(notion.refreshes(), 1, "refreshes");

        // Nor any other: the person is told where to sign in, and the tools are gone.
        notion.grants(|grants| grants.families[0].revoked = true);
        let other = PAGE.replacen('5', "6", 1);
        let posted = client
            .accept(&Chat::new(&format!("[[tool:notion__get_page {}]]", json!({"page_id": other}))))
            .await?;
        let job = client.until(&posted.job, &["succeeded"], SOON).await?;
        ensure!(result(&job).1 && result(&job).0.contains("/connect/notion-self-hosted"), "{job}");
        let seen = client.follow(&posted.job).within(Duration::from_secs(20)).to_done().await?;
        let warned = seen.frames.iter().find(|frame| frame.event == "warning").context("a warning")?;
        ensure!(warned.data.contains("OAUTH-REFRESH-FAIL"), "{}", warned.data);
        ensure!(warned.data.contains("/connect/notion-self-hosted"), "{}", warned.data);
        ensure_eq!(job["meta"]["warnings"][0]["code"], "OAUTH-REFRESH-FAIL", "{job}");
        ensure!(!offered(&client).await?.iter().any(|name| name.starts_with("notion")), "still offered");
        browser.get("/connect").await?.is(200, "Sign in to Notion (self-hosted) again")?;
        ensure!(!server.log().contains("MARKER"), "Notion's server wrote a token down");
        Ok(())
    })
    .await
}
