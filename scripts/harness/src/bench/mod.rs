//! How fast the product is and what it costs, measured beside a floor that does only the work of Postgres.
//!
//! Everything runs over loopback on one machine in one run, because figures of different moments do not compare. Each
//! section prints its table when it is done; `report` keeps them for the documentation.

mod agents;
mod cache;
mod calls;
mod client;
mod floor;
mod followers;
mod history;
mod idle;
mod load;
mod login;
mod machine;
mod one_turn;
mod procfs;
mod remote;
mod report;
mod search;
mod slow;
mod stack;
mod statements;
mod statistics;
mod storage;
mod store;
mod thrift;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

pub use self::report::{Report, Table};
use self::{floor::Floor, stack::Stack};

/// What can be measured, in the order in which it is.
pub const SECTIONS: [&str; 15] = [
    "turn",
    "history",
    "load",
    "mcp",
    "rest",
    "login",
    "agents",
    "statements",
    "followers",
    "slow",
    "idle",
    "search",
    "cache",
    "remote",
    "thrift",
];

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of [`SECTIONS`].
    pub sections: Vec<String>,
    /// Fewer samples, smaller numbers of followers.
    pub quick: bool,
    /// Worker processes of the stack.
    pub workers: usize,
    /// Keep the stack of `load` running for so long at 16 conversations, for a profiler to look at.
    pub hold: Option<Duration>,
    /// Settings of Postgres, and variables of the product's processes, other than the default ones: for experiments.
    pub settings: Vec<(String, String)>,
    /// See `settings`.
    pub variables: Vec<(String, String)>,
    /// The checkout: where `docs/` is.
    pub root: PathBuf,
}

impl Plan {
    fn wants(&self, section: &str) -> bool {
        self.sections.iter().any(|wanted| wanted == section)
    }

    /// `full`, or `quick` in a quick run.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Measures; `show` is given each table as soon as it is known.
///
/// # Errors
/// Something does not start, or does not answer as it must.
pub async fn run(plan: &Plan, show: &(dyn Fn(&Table) + Sync)) -> Result<Report> {
    let mut report = Report::new(machine::describe(&plan.root));
    let mut stack = Stack::start(plan).await?;
    report.machine.push(("Postgres".to_owned(), store::version(&stack.admin).await?));
    for (name, value) in plan.settings.iter().chain(&plan.variables) {
        report.machine.push((name.clone(), value.clone()));
    }
    let fresh = stack.memory()?;
    let floor = Floor::start(&stack.floor_url).await?;
    let mut add = |table: Table| {
        show(&table);
        report.tables.push(table);
    };
    if plan.wants("turn") {
        add(one_turn::measure(plan, &stack, &floor).await?);
    }
    if plan.wants("history") {
        add(history::measure(plan, &stack).await?);
    }
    if plan.wants("load") {
        let before = storage::Sizes::read(&stack.admin).await?;
        let (table, turns) = load::measure(plan, &stack, &floor).await?;
        add(table);
        add(storage::table(&before, &storage::Sizes::read(&stack.admin).await?, turns));
    }
    if plan.wants("mcp") {
        add(calls::measure_mcp(plan, &stack).await?);
    }
    if plan.wants("rest") {
        add(calls::measure_rest(plan, &stack).await?);
    }
    if let Some(length) = plan.hold {
        load::hold(&stack, length).await?;
    }
    if plan.wants("login") {
        add(login::measure(plan, &mut stack).await?);
    }
    if plan.wants("agents") {
        add(agents::measure(plan, &mut stack).await?);
    }
    if plan.wants("statements") {
        add(statements::measure(plan, &stack).await?);
    }
    floor.stop().await;
    if plan.wants("followers") {
        add(followers::measure(plan, &mut stack).await?);
    }
    if plan.wants("slow") {
        add(slow::measure(plan, &mut stack).await?);
    }
    if plan.wants("idle") {
        add(idle::measure(plan, &mut stack, &fresh).await?);
    }
    if plan.wants("cache") {
        add(cache::measure(plan).await?);
    }
    if plan.wants("remote") {
        add(remote::measure(plan).await?);
    }
    if plan.wants("thrift") {
        add(thrift::measure().await?);
    }
    // Last, because its items stay.
    if plan.wants("search") {
        add(search::measure(plan, &stack).await?);
    }
    stack.stop().await;
    Ok(report)
}
