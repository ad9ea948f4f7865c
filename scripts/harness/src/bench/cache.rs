//! What a read costs that the cache of tool results answers: alone, 64 at once, and as part of a turn.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use serde_json::json;
use shared::{
    bell::{Bell, Channel},
    cache::{Backend, CacheRules, CacheSettings, Lifetimes, Read, Scope, ToolCache},
    counters::Counters,
    db::{self, DbRole, TenantDb},
    identity::Actor,
    tools::ToolOutput,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Plan,
    report::Table,
    statistics::{Samples, figure, float, milliseconds},
};
use crate::{client::Chat, stack::Stack, thrift};

/// Who asks at once.
const CALLERS: usize = 64;
/// Pages that are asked for in turn.
const PAGES: usize = 16;

/// Measures, on a stack of its own within this process.
///
/// # Errors
/// A read or a turn is not answered from the cache.
pub(super) async fn measure(plan: &Plan) -> Result<Table> {
    let stack = thrift::stack(true).own_cluster().start().await?;
    let mut table = Table::new(
        "Reads that the tool cache answers (6 KB)",
        &["", "alone p50", "p99", "64: reads/s", "p95"],
    );
    for (name, memory_bytes) in [("from the process's memory", 16 << 20), ("from Postgres", 0)] {
        let stop = CancellationToken::new();
        let (cache, actor) = cache(&stack, memory_bytes, &stop)?;
        for page in 0..PAGES {
            read(&cache, &actor, page, false).await?;
        }
        let mut alone = Vec::new();
        for round in 0..plan.pick(500, 3000) {
            let begun = Instant::now();
            read(&cache, &actor, round % PAGES, true).await?;
            alone.push(begun.elapsed());
        }
        let alone = Samples::of_times(alone);
        let begun = Instant::now();
        let until = begun + Duration::from_secs(plan.pick(1, 4));
        let callers = (0..CALLERS).map(|caller| {
            let (cache, actor) = (cache.clone(), actor.clone());
            async move {
                let (mut times, mut round) = (Vec::new(), caller);
                while Instant::now() < until {
                    let begun = Instant::now();
                    read(&cache, &actor, round % PAGES, true).await?;
                    times.push(begun.elapsed());
                    round += 1;
                    // Memory answers without a pause in which others could ask.
                    tokio::task::yield_now().await;
                }
                anyhow::Ok(times)
            }
        });
        let times = futures::future::try_join_all(callers).await?.concat();
        let rate = float(times.len()) / begun.elapsed().as_secs_f64();
        let times = Samples::of_times(times);
        table.row([
            name.to_owned(),
            milliseconds(alone.median()),
            figure(alone.percentile(99.0)),
            figure(rate),
            milliseconds(times.percentile(95.0)),
        ]);
        stop.cancel();
    }
    let read = r#"[[tool:wiki__get_page {"id":"page-1"}]] [[tokens:8]]"#;
    turn(&stack, read).await?;
    for (name, text, hit) in
        [("a turn that reads nothing", "[[tokens:8]]", false), ("a turn with a repeated read", read, true)]
    {
        let mut times = Vec::new();
        for _ in 0..plan.pick(60, 300) {
            let begun = Instant::now();
            let was_hit = turn(&stack, text).await?;
            times.push(begun.elapsed());
            ensure!(was_hit == hit, "whether {text} came from the cache: {was_hit}");
        }
        let times = Samples::of_times(times);
        table.row([
            name.to_owned(),
            milliseconds(times.median()),
            figure(times.percentile(99.0)),
            String::new(),
            milliseconds(times.percentile(95.0)),
        ]);
    }
    table.note("Turns: from the request to its answer with Prefer: wait, model without delay, api and worker in this process, which has one thread.");
    table.note("Aim: a turn with a repeated read ends within 50 ms of the model's own time.");
    Ok(table)
}

fn cache(stack: &Stack, memory_bytes: usize, stop: &CancellationToken) -> Result<(ToolCache, Actor)> {
    let options = |url: &str, role| db::options(url, role, "bench").map_err(anyhow::Error::msg);
    let engine_options = options(&stack.database.engine_url, DbRole::Engine)?;
    let engine = db::pool(engine_options.clone(), 4);
    let app = db::pool(options(&stack.database.app_url, DbRole::App)?, 16);
    let counters = Arc::new(Counters::start(db::relaxed_pool(engine_options.clone())));
    let bell = Bell::start(engine_options, &engine, &[Channel::Cache]);
    let hour = Duration::from_secs(3600);
    let settings = CacheSettings {
        backend: Backend::Postgres,
        lifetimes: Lifetimes { default: hour, notion_page: hour, notion_search: hour },
        memory_bytes,
    };
    let tenant = stack.tenants.first().context("a tenant")?;
    let actor = Actor::of_turn(tenant.id, tenant.user);
    Ok((ToolCache::start(settings, TenantDb::new(app, counters), engine, bell, stop.clone()), actor))
}

async fn read(cache: &ToolCache, actor: &Actor, page: usize, kept: bool) -> Result<()> {
    let arguments = json!({"id": page});
    let rules = CacheRules::default();
    let read = Read {
        server: "bench",
        tool: "bench.read",
        version: "1",
        arguments: &arguments,
        scope: Scope::User,
        rules: &rules,
        force_refresh: false,
        request_id: "bench",
    };
    let fetch = || -> BoxFuture<'static, shared::Result<ToolOutput>> {
        Box::pin(async { Ok(ToolOutput { content: "x".repeat(6000), ..ToolOutput::default() }) })
    };
    let output = cache.read(actor, &read, &fetch).await?;
    ensure!(!kept || output.cache.is_some_and(|facts| facts.hit), "a read was not answered from the cache");
    Ok(())
}

/// A turn of a conversation of its own; whether its read came from the cache.
async fn turn(stack: &Stack, text: &str) -> Result<bool> {
    let posted = stack.client(0).accept(&Chat::new(text).wait(20)).await?;
    let answer = posted.answer.json();
    ensure!(answer["reply"].is_string(), "{answer}");
    Ok(answer["meta"]["cacheHit"] == true)
}
