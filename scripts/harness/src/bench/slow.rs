//! A thousand turns that take their time, all on one worker: what one costs in memory and in processor time.

use std::time::Duration;

use anyhow::{Context, Result};
use shared::config::DEFAULT_TENANT;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Plan,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, float_of},
    store,
};

/// Tokens of a turn, and the pause before each.
const TOKENS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Measures.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> Result<Table> {
    let turns: usize = plan.pick(300, 1000);
    let workers = stack.workers.len();
    stack.stop_workers().await?;
    stack.fresh_api().await?;
    stack.start_worker()?;
    store::resize_slots(&stack.admin, DEFAULT_TENANT, 1100).await?;
    let mut table = Table::new(
        "Slow turns running at once on one worker",
        &[
            "turns",
            "all running after",
            "worker KiB a turn",
            "worker resident",
            "api KiB a turn",
            "worker CPU %",
            "api %",
            "Postgres %",
            "token p50",
            "p99",
        ],
    );
    let measured = slow_turns(stack, turns).await.with_context(|| stack.logs())?;
    table.row(measured);
    table.note(format!(
        "{TOKENS} tokens each, one in {} ms, a follower each; memory is the growth of fresh processes. Token: from its row's writing to its follower.",
        PAUSE.as_millis()
    ));
    for _ in 1..workers {
        stack.start_worker()?;
    }
    Ok(table)
}

async fn slow_turns(stack: &mut Stack, turns: usize) -> Result<Vec<String>> {
    // First requests reserve what is nobody's turn.
    for _ in 0..4 {
        let (mut post, mut events) = (stack.connect().await?, stack.connect().await?);
        let posted = post.post(super::one_turn::MESSAGE, None).await?;
        events.follow(&format!("/jobs/{}/events", posted.job)).await?;
        events.until_done().await?;
    }
    let before = stack.memory()?;
    let message = format!("[[tokens:{TOKENS}]] [[delay:{}]]", PAUSE.as_millis());
    let begun = Instant::now();
    let mut followed = JoinSet::new();
    let mut posting = JoinSet::new();
    for _ in 0..16 {
        let mut post = stack.connect().await?;
        let (message, share) = (message.clone(), turns.div_ceil(16));
        posting.spawn(async move {
            let mut jobs = Vec::with_capacity(share);
            for _ in 0..share {
                jobs.push(post.post(&message, None).await?.job);
            }
            anyhow::Ok(jobs)
        });
    }
    let mut count = 0_i64;
    while let Some(posted) = posting.join_next().await {
        for job in posted?? {
            let mut events = stack.connect().await?;
            followed.spawn(async move {
                let mut noted = Vec::with_capacity(TOKENS + 4);
                events.follow(&format!("/jobs/{job}/events")).await?;
                events.arrivals(usize::MAX, &mut noted).await?;
                anyhow::Ok((job, noted))
            });
            count += 1;
        }
    }
    let wanted = 1000.min(count);
    let mut most = 0;
    while most < wanted && begun.elapsed() < Duration::from_secs(8) {
        most = most.max(store::running_turns(&stack.admin).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all_running = begun.elapsed();
    let spent = stack.spent()?;
    let from = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (spent, steady) = (stack.spent()?.since(spent), from.elapsed());
    let after = stack.memory()?;
    let mut delays = Vec::new();
    while let Some(turn) = tokio::time::timeout(Duration::from_secs(60), followed.join_next())
        .await
        .context("slow turns do not end")?
    {
        delays.push(turn??);
    }
    let ids =
        delays.iter().map(|(job, _)| job.parse()).collect::<Result<Vec<_>, _>>().context("a job's id")?;
    let written = store::event_times(&stack.admin, &ids).await?;
    let written: std::collections::HashMap<(i64, i64), i64> =
        written.into_iter().filter(|row| row.3 == "token").map(|row| ((row.0, row.1), row.2)).collect();
    let late = (1_i64..).zip(&delays).flat_map(|(position, (_, noted))| {
        let written = &written;
        noted
            .iter()
            .filter_map(move |(number, at)| Some(float_of(at - written.get(&(position, *number))?) / 1e3))
    });
    let late = Samples::new(late.collect());
    let kib = |bytes: i64| figure(float_of(bytes) / 1024.0 / float_of(most.max(1)));
    let percent = |time: Duration| figure(time.as_secs_f64() / steady.as_secs_f64() * 100.0);
    Ok(vec![
        format!("{most} of {count}"),
        format!("{} s", figure(all_running.as_secs_f64())),
        kib(after.worker - before.worker),
        format!("{} MiB", figure(float_of(after.worker) / 1024.0 / 1024.0)),
        kib(after.api - before.api),
        percent(spent.workers),
        percent(spent.api),
        percent(spent.postgres),
        format!("{} ms", figure(late.median())),
        figure(late.percentile(99.0)),
    ])
}
