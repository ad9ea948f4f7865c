//! A connection from the button to a tool in a turn, and to its end: for one person alone, whoever else there is.

use anyhow::{Context, Result, ensure};
use harness::{
    client::{Chat, Client},
    fakes::{
        mcp::{Behaviour, Era, FakeMcp, FakeTool},
        oauth::{FakeAuthorization, Grants},
    },
    stack::{Builder, Stack},
};
use serde_json::{Value, json};

use super::{Browser, MARKER, connected_to, everything_stored, one_text, until};
use crate::{
    remote::offered,
    run::{SOON, ensure_eq, here, processes, run},
};

/// Notion's hosted server: its tools are told and called only with a token of this authorization server.
async fn hosted(era: Era, notion: &FakeAuthorization) -> Result<FakeMcp> {
    let page = json!({"resultType": "complete", "content": [{"type": "text", "text": "# Plan of Acme"}]});
    let tools = vec![
        FakeTool::new("notion-search", Behaviour::Echo),
        FakeTool::new("notion-fetch", Behaviour::Answer(page)),
        FakeTool::writes("notion-create-pages", Behaviour::Echo),
    ];
    let server = FakeMcp::start(era, tools).await?;
    server.want_tokens_of(notion);
    Ok(server)
}

fn alfred(builder: Builder, notion: &FakeAuthorization, server: &FakeMcp) -> Builder {
    connected_to(builder.stewards().tenants(2), notion).env("NOTION_MCP_URL", &server.url)
}

const TOOLS: [&str; 3] = ["notion.get_page", "notion.notion-create-pages", "notion.search"];

/// The names of Notion's tools that somebody is offered.
async fn of_notion(browser: &mut Browser) -> Result<Vec<String>> {
    let tools = browser.get("/tools").await?.is(200, "tools")?.json();
    let all = tools["tools"].as_array().context("tools")?;
    let names = all.iter().filter_map(|tool| tool["name"].as_str());
    Ok(names.filter(|name| name.starts_with("notion")).map(str::to_owned).collect())
}

/// A turn that reads a page of Notion's; the job at its end, and what its stream told.
async fn read(client: &Client, page: &str) -> Result<(Value, String, Vec<String>)> {
    let call = format!("[[tool:notion__get_page {}]]", json!({"id": page}));
    let posted = client.accept(&Chat::new(&call)).await?;
    let job = client.until(&posted.job, &["succeeded"], SOON).await?;
    let seen = client.follow(&posted.job).to_done().await?;
    let warnings = seen.frames.iter().filter(|frame| frame.event == "warning");
    let warnings = warnings.map(|frame| frame.data.clone()).collect();
    Ok((job, String::from_utf8_lossy(&seen.bytes()).into_owned(), warnings))
}

/// The same turn by somebody in a browser.
async fn read_in(browser: &mut Browser, page: &str) -> Result<Value> {
    browser.say(&format!("[[tool:notion__get_page {}]]", json!({"id": page}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_used_by_its_person_alone_until_it_ends() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    let server = hosted(Era::Modern, &notion).await?;
    let builder = alfred(processes(), &notion, &server).env("LOG_LEVEL", "debug,h2=info,hyper=info");
    run(builder, async |stack: &mut Stack| {
        let client = stack.client(0);
        let mut mine = Browser::of(stack, 0);
        let mut colleague = Browser::signed_in(stack, "colleague@example.test").await?;
        let mut stranger = Browser::of(stack, 1);
        let mut written = String::new();

        ensure_eq!(of_notion(&mut mine).await?, Vec::<String>::new(), "before");
        mine.get("/connect").await?.is(200, "Not connected")?;
        written += &mine.connect("notion").await?.is(200, "Notion is connected")?.body;
        ensure_eq!(of_notion(&mut mine).await?, TOOLS, "after");
        let (job, told, warnings) = read(&client, "p-1").await?;
        ensure_eq!(job["toolCalls"][0]["result"], "# Plan of Acme", "{job}");
        ensure_eq!(warnings, Vec::<String>::new(), "warnings");
        written += &told;

        // Nobody else has them: not who shares the tenant, and not another tenant's admin, by name or otherwise.
        let calls = server.received_of("tools/call").len();
        for other in [&mut colleague, &mut stranger] {
            ensure_eq!(of_notion(other).await?, Vec::<String>::new(), "somebody else's tools");
            let job = read_in(other, "p-1").await?;
            let call = &job["toolCalls"][0];
            ensure!(call["isError"] == true, "somebody else's turn: {job}");
            ensure!(!job.to_string().contains("Plan of Acme"), "somebody else's page: {job}");
            written += &job.to_string();
        }
        ensure_eq!(server.received_of("tools/call").len(), calls, "calls after others tried");

        // The person takes the token back at the provider: what is cached is served until then, and nothing after.
        notion.grants(|grants| grants.families.iter_mut().for_each(|family| family.revoked = true));
        let (job, told, warnings) = read(&client, "p-2").await?;
        ensure!(job["toolCalls"][0]["isError"] == true, "{job}");
        let [warning] = warnings.as_slice() else { anyhow::bail!("not one warning: {warnings:?}") };
        for part in ["OAUTH-REFRESH-FAIL", "/connect/notion"] {
            ensure!(warning.contains(part), "{part} is not in {warning}");
        }
        ensure_eq!(job["meta"]["warnings"][0]["code"], "OAUTH-REFRESH-FAIL", "{job}");
        written += &told;
        ensure_eq!(of_notion(&mut mine).await?, Vec::<String>::new(), "after the end");
        let page = mine.get("/connect").await?.is(200, "Sign in to Notion again")?;
        written += &page.body;
        // From then on each turn says so as it begins, and no page comes out of the cache.
        let (job, told, warnings) = read(&client, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == true && warnings.len() == 1, "{job} {warnings:?}");
        written += &told;

        // The tokens were shown to the server, and stand nowhere else.
        let shown = format!("{:?}", server.received());
        ensure!(shown.contains(MARKER), "the tokens were not shown to the server");
        let requests = stack.model().received();
        ensure!(requests.len() >= 8, "{} requests to the model", requests.len());
        for request in &requests {
            written += &String::from_utf8_lossy(&request.body);
            written += request.key.as_deref().unwrap_or_default();
        }
        written += &stack.apis[0].real().log();
        written += &stack.workers[0].real().log();
        ensure!(written.contains("a remote tool was called"), "the worker's log was not read");
        written += &everything_stored(stack).await?;
        if let Some(place) = written.find(MARKER) {
            let start = place.saturating_sub(300);
            anyhow::bail!("a token is in clear: …{}…", written.get(start..place + 60).unwrap_or_default());
        }
        stack.check().await
    })
    .await
}

/// The same with sessions, and with the token ending by its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ran_out_is_renewed_before_a_turn_uses_it() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    let server = hosted(Era::Legacy, &notion).await?;
    run(alfred(here(), &notion, &server), async |stack: &mut Stack| {
        let client = stack.client(0);
        Browser::of(stack, 0).connect("notion").await?.is(200, "Notion is connected")?;
        let (job, ..) = read(&client, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == false, "{job}");
        super::an_hour_passes(stack).await?;
        let (job, _, warnings) = read(&client, "p-2").await?;
        ensure!(job["toolCalls"][0]["isError"] == false && warnings.is_empty(), "{job} {warnings:?}");
        ensure_eq!(notion.refreshes(), 1, "refreshes");
        let calls = server.received_of("tools/call");
        let tokens: Vec<&str> = calls.iter().map(|call| call.header("authorization")).collect();
        let sessions: Vec<&str> = calls.iter().map(|call| call.header("mcp-session-id")).collect();
        ensure!(tokens.len() == 2 && tokens[0] != tokens[1], "the old token was used again: {tokens:?}");
        ensure!(sessions[0] != sessions[1], "the new token rode on the old one's session");
        Ok(())
    })
    .await
}

/// Whoever lists the tools first finds out that the token was taken back: it is renewed, or the person is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_taken_back_is_noticed_when_tools_are_listed() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    let server = hosted(Era::Modern, &notion).await?;
    run(alfred(here(), &notion, &server), async |stack: &mut Stack| {
        let client = stack.client(0);
        let mut mine = Browser::of(stack, 0);
        mine.connect("notion").await?.is(200, "Notion is connected")?;
        // Nobody has asked for the tools yet. The provider gave another token for this grant.
        let another = |grants: &mut Grants| grants.families[0].access.push("at-of-somebody".to_owned());
        notion.grants(another);
        ensure_eq!(of_notion(&mut mine).await?, TOOLS, "renewed");
        ensure_eq!(notion.refreshes(), 1, "refreshes");
        // The worker has not asked yet, either.
        notion.grants(|grants| grants.families[0].revoked = true);
        let (job, _, warnings) = read(&client, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == true, "{job}");
        let [warning] = warnings.as_slice() else { anyhow::bail!("not one warning: {warnings:?}") };
        ensure!(warning.contains("OAUTH-REFRESH-FAIL"), "{warning}");
        ensure!(warning.contains("/connect/notion"), "{warning}");
        mine.get("/connect").await?.is(200, "Sign in to Notion again")?;
        ensure_eq!(of_notion(&mut mine).await?, Vec::<String>::new(), "tools");
        Ok(())
    })
    .await
}

/// A server that takes no token of the authorization server any more, however new: people connect it again, elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_moved_to_another_authorization_server_is_connected_again() -> Result<()> {
    let (notion, other) = (FakeAuthorization::start().await?, FakeAuthorization::start().await?);
    let server = hosted(Era::Legacy, &notion).await?;
    run(alfred(here(), &notion, &server), async |stack: &mut Stack| {
        let client = stack.client(0);
        let mut mine = Browser::of(stack, 0);
        mine.connect("notion").await?.is(200, "Notion is connected")?;
        let (job, ..) = read(&client, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == false, "{job}");
        server.want_tokens_of(&other);
        let (job, _, warnings) = read(&client, "p-2").await?;
        ensure!(job["toolCalls"][0]["isError"] == true, "{job}");
        ensure!(warnings.len() == 1 && warnings[0].contains("/connect/notion"), "{warnings:?}");
        mine.connect("notion").await?.is(200, "Notion is connected")?;
        ensure_eq!(other.received("/register").len(), 1, "registrations at the other");
        let (job, _, warnings) = read(&client, "p-3").await?;
        ensure!(job["toolCalls"][0]["isError"] == false && warnings.is_empty(), "{job} {warnings:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_a_tenant_leaves_no_connection_there() -> Result<()> {
    let notion = FakeAuthorization::start().await?;
    let server = hosted(Era::Modern, &notion).await?;
    run(alfred(here(), &notion, &server), async |stack: &mut Stack| {
        let admin = stack.client(1);
        let mut ann = Browser::signed_in(stack, "ann@example.test").await?;
        let invited =
            admin.post("/admin/members", &json!({"email": "ann@example.test", "role": "member"})).await?;
        ensure_eq!(invited.status, 201, "{}", invited.body);
        // She accepts with the code that she was handed, and belongs to the tenant from then on.
        let tenant = stack.tenants[1].id.to_string();
        ann.accept(&invited.json()).await?;
        let user = ann.get("/api/v1/auth/me").await?.is(200, "id")?.json();
        let user = user["id"].as_str().context("id")?.to_owned();
        ann.connect("notion").await?.is(200, "Notion is connected")?;
        ensure_eq!(of_notion(&mut ann).await?, TOOLS, "while she belongs");
        let job = read_in(&mut ann, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == false, "{job}");
        let count = "select count(*)::text from connections";
        ensure_eq!(one_text(stack, count).await?, "1", "connections");
        let of_hers = format!("select count(*)::text from connections where tenant_id = '{tenant}'");
        let text: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(of_hers)).fetch_one(&stack.database.admin).await?;
        ensure_eq!(text, "1", "connections of the tenant");

        let removal = admin.request("DELETE", &format!("/admin/members/{user}"));
        ensure_eq!(admin.send(removal).await?.status, 204, "removal");
        ensure_eq!(one_text(stack, count).await?, "0", "connections after she left");
        until("she has lost them", async || Ok(of_notion(&mut ann).await?.is_empty())).await?;
        let calls = server.received_of("tools/call").len();
        let job = read_in(&mut ann, "p-1").await?;
        ensure!(job["toolCalls"][0]["isError"] == true, "{job}");
        ensure_eq!(server.received_of("tools/call").len(), calls, "calls after she left");
        // The admin who did it got nothing by it.
        ensure!(!offered(&admin).await?.iter().any(|name| name.starts_with("notion")), "the admin's tools");
        // Asked in again, she begins with nothing.
        let again =
            admin.post("/admin/members", &json!({"email": "ann@example.test", "role": "member"})).await?;
        ensure_eq!(again.status, 201, "{}", again.body);
        ann.accept(&again.json()).await?;
        let request = ann.http.get(format!("{}/v1/connections", ann.base)).header("X-Tenant-ID", &tenant);
        let list = ann.send(request).await?.is(200, "connections")?.json();
        ensure_eq!(list["connections"], json!([]), "her connections");
        Ok(())
    })
    .await
}
