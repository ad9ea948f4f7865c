//! A stack that nobody uses: statements a second, processor time, memory.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Plan,
    report::Table,
    stack::{Memory, Stack},
    statements::shortened,
    statistics::{figure, float, float_of},
    store,
};

/// What a while of idleness took.
struct Quiet {
    statements: f64,
    api_percent: f64,
    workers_percent: f64,
    postgres_percent: f64,
    busiest: Vec<(f64, String)>,
}

/// Measures; `fresh` is the memory right after the start.
///
/// # Errors
/// A process has died.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack, fresh: &Memory) -> Result<Table> {
    let length = Duration::from_secs(plan.pick(12, 30));
    // What was running has to be cleared away first.
    tokio::time::sleep(Duration::from_secs(plan.pick(3, 8))).await;
    store::track_statements(&stack.admin, true).await?;
    let all = quiet(stack, length).await?;
    let used = stack.memory()?;
    let workers = stack.workers.len();
    stack.stop_workers().await?;
    let api = quiet(stack, length / 2).await?;
    store::track_statements(&stack.admin, false).await?;
    let mut table = Table::new(
        "An idle stack",
        &["process", "statements/s", "CPU %", "resident at start", "resident after the load"],
    );
    let mebibytes = |bytes: i64| format!("{} MiB", figure(float_of(bytes) / 1024.0 / 1024.0));
    table.row([
        "api".to_owned(),
        figure(api.statements),
        figure(all.api_percent),
        mebibytes(fresh.api),
        mebibytes(used.api),
    ]);
    table.row([
        "each worker".to_owned(),
        figure((all.statements - api.statements) / float(workers.max(1))),
        figure(all.workers_percent / float(workers.max(1))),
        mebibytes(fresh.worker),
        mebibytes(used.worker),
    ]);
    table.row([
        "Postgres".to_owned(),
        String::new(),
        figure(all.postgres_percent),
        String::new(),
        String::new(),
    ]);
    table.note(format!(
        "Over {} s with {workers} workers, then {} s with the api alone. Aim: under one statement a second and process.",
        length.as_secs(),
        length.as_secs() / 2
    ));
    for (rate, text) in all.busiest.iter().take(8) {
        table.note(format!("{} a second: {}", figure(*rate), shortened(text)));
    }
    Ok(table)
}

async fn quiet(stack: &Stack, length: Duration) -> Result<Quiet> {
    store::reset_statements(&stack.admin).await?;
    let (begun, before) = (Instant::now(), stack.spent()?);
    tokio::time::sleep(length).await;
    let (spent, seconds) = (stack.spent()?.since(before), begun.elapsed().as_secs_f64());
    let mut statements = store::statements(&stack.admin).await?;
    statements.sort_by_key(|statement| -statement.calls);
    let calls: i64 = statements.iter().map(|statement| statement.calls).sum();
    let percent = |time: Duration| time.as_secs_f64() / seconds * 100.0;
    Ok(Quiet {
        statements: float_of(calls) / seconds,
        api_percent: percent(spent.api),
        workers_percent: percent(spent.workers),
        postgres_percent: percent(spent.postgres),
        busiest: statements
            .into_iter()
            .map(|statement| (float_of(statement.calls) / seconds, statement.text))
            .collect(),
    })
}
