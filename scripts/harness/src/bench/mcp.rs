//! Tool calls over MCP: how long one takes alone, and how many go through at once, beside a floor that makes the same
//! SELECT over bare connections.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Plan,
    client::Connection,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, float, milliseconds},
    store::{self, FloorList},
};

/// Tasks in the list that is read.
const TASKS: usize = 50;
/// How many of them a call answers.
const PAGE: i64 = 20;
/// Callers at once.
const CALLERS: [usize; 2] = [32, 50];

/// A call's bytes, as a client of the revision 2025-11-25 sends them.
fn message(tool: &str, arguments: &serde_json::Value) -> String {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

/// Somebody who makes one call after the other.
enum Caller {
    Product(Box<Connection>, String),
    Floor(Box<FloorList>),
}

impl Caller {
    async fn call(&mut self) -> Result<()> {
        match self {
            Self::Product(connection, message) => connection.call_tool(message).await,
            Self::Floor(list) => list.read(PAGE).await,
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Floor,
    Reading,
    Writing,
}

impl Side {
    async fn caller(self, stack: &Stack) -> Result<Caller> {
        let tool = match self {
            Self::Floor => return Ok(Caller::Floor(Box::new(FloorList::open(&stack.admin).await?))),
            Self::Reading => message("list_tasks", &json!({"limit": PAGE})),
            Self::Writing => message("add_task", &json!({"title": "buy milk"})),
        };
        Ok(Caller::Product(Box::new(stack.connect().await?), tool))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor (the same SELECT, bare connection)",
            Self::Reading => "product, tools/call list_tasks",
            Self::Writing => "product, tools/call add_task",
        }
    }
}

/// Measures.
///
/// # Errors
/// A call is not answered with a result.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> Result<Table> {
    let mut setup = Side::Writing.caller(stack).await?;
    for _ in 0..TASKS {
        setup.call().await?;
    }
    store::analyze(&stack.admin).await?;
    let length = Duration::from_secs(plan.pick(2, 6));
    let mut table = Table::new(
        "MCP tool calls: a list of 20 tasks, and a task added",
        &["", "alone p50", "p99", "32: calls/s", "p95", "50: calls/s", "p95", "p99"],
    );
    for side in [Side::Floor, Side::Reading, Side::Writing] {
        let mut caller = side.caller(stack).await?;
        for _ in 0..200 {
            caller.call().await?;
        }
        let mut alone = Vec::new();
        for _ in 0..plan.pick(500, 2000) {
            let begun = Instant::now();
            caller.call().await?;
            alone.push(begun.elapsed());
        }
        let alone = Samples::of_times(alone);
        let mut cells =
            vec![side.name().to_owned(), milliseconds(alone.median()), figure(alone.percentile(99.0))];
        for callers in CALLERS {
            let (rate, times) = at_once(stack, side, callers, length).await?;
            cells.push(figure(rate));
            cells.push(milliseconds(times.percentile(95.0)));
            if callers == CALLERS[1] {
                cells.push(figure(times.percentile(99.0)));
            }
        }
        table.row(cells);
    }
    table.note(format!(
        "Each caller has a connection of its own and waits for an answer before the next call; {} s a figure, no errors.",
        length.as_secs()
    ));
    table.note("Aims: 0.5 ms alone, 4 200 calls/s at 32, p95 under 10 ms at 50.");
    Ok(table)
}

/// So many callers for so long: calls a second, and how long each took.
async fn at_once(stack: &Stack, side: Side, callers: usize, length: Duration) -> Result<(f64, Samples)> {
    let mut running = Vec::new();
    for _ in 0..callers {
        running.push(side.caller(stack).await?);
    }
    let begun = Instant::now();
    let until = begun + length;
    let calls = running.into_iter().map(|mut caller| async move {
        let mut times = Vec::new();
        while Instant::now() < until {
            let begun = Instant::now();
            caller.call().await?;
            times.push(begun.elapsed());
        }
        anyhow::Ok(times)
    });
    let times = futures::future::try_join_all(calls).await.context("a call failed")?.concat();
    let rate = float(times.len()) / begun.elapsed().as_secs_f64();
    Ok((rate, Samples::of_times(times)))
}
