//! Tool calls over MCP, and the same work over REST: how long one takes alone, and how many go through at once, beside a
//! floor that makes the same SELECT over bare connections.

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
    Tool(Box<Connection>, String),
    Get(Box<Connection>, String),
    Post(Box<Connection>, &'static str, &'static str),
    Floor(Box<FloorList>),
}

impl Caller {
    async fn call(&mut self) -> Result<()> {
        match self {
            Self::Tool(connection, message) => connection.call_tool(message).await,
            Self::Get(connection, path) => connection.get(path).await.map(drop),
            Self::Post(connection, path, body) => connection.create(path, body).await,
            Self::Floor(list) => list.read(PAGE).await,
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Floor,
    ToolList,
    ToolAdd,
    Get,
    List,
    Create,
}

impl Side {
    async fn caller(self, stack: &Stack) -> Result<Caller> {
        if self == Self::Floor {
            return Ok(Caller::Floor(Box::new(FloorList::open(&stack.admin).await?)));
        }
        let connection = Box::new(stack.connect().await?);
        Ok(match self {
            Self::ToolList => Caller::Tool(connection, message("list_tasks", &json!({"limit": PAGE}))),
            Self::Get => Caller::Get(connection, format!("/v1/tasks/{}", store::a_task(&stack.admin).await?)),
            Self::List => Caller::Get(connection, format!("/v1/tasks?limit={PAGE}")),
            Self::Create => Caller::Post(connection, "/v1/tasks", "{\"title\":\"buy milk\"}"),
            Self::ToolAdd | Self::Floor => {
                Caller::Tool(connection, message("add_task", &json!({"title": "buy milk"})))
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor (the same SELECT, bare connection)",
            Self::ToolList => "product, tools/call list_tasks",
            Self::ToolAdd => "product, tools/call add_task",
            Self::Get => "product, GET /v1/tasks/{id}",
            Self::List => "product, GET /v1/tasks?limit=20",
            Self::Create => "product, POST /v1/tasks",
        }
    }
}

/// Measures tool calls.
///
/// # Errors
/// A call is not answered with a result.
pub(super) async fn measure_mcp(plan: &Plan, stack: &Stack) -> Result<Table> {
    let title = "MCP tool calls: a list of 20 tasks, and a task added";
    let mut table = measure(plan, stack, title, &[Side::Floor, Side::ToolList, Side::ToolAdd]).await?;
    table.note("Aims: 0.5 ms alone, 4 200 calls/s at 32, p95 under 10 ms at 50.");
    Ok(table)
}

/// Measures REST.
///
/// # Errors
/// A request is not answered with what was asked for.
pub(super) async fn measure_rest(plan: &Plan, stack: &Stack) -> Result<Table> {
    let title = "REST: a task read, a list of 20, and a task created";
    let mut table = measure(plan, stack, title, &[Side::Floor, Side::Get, Side::List, Side::Create]).await?;
    table.note("Aim: each under 5 ms alone.");
    Ok(table)
}

async fn measure(plan: &Plan, stack: &Stack, title: &str, sides: &[Side]) -> Result<Table> {
    let mut setup = Side::ToolAdd.caller(stack).await?;
    for _ in 0..TASKS {
        setup.call().await?;
    }
    store::analyze(&stack.admin).await?;
    let length = Duration::from_secs(plan.pick(2, 6));
    let columns = ["", "alone p50", "p99", "32: calls/s", "p95", "50: calls/s", "p95", "p99"];
    let mut table = Table::new(title, &columns);
    for &side in sides {
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
