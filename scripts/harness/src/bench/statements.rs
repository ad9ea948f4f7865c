//! Which statements a turn makes, and what they cost: pg_stat_statements, in a pass of its own because counting costs.

use std::time::Duration;

use anyhow::Result;

use super::{
    Plan, load,
    report::Table,
    stack::Stack,
    statistics::{figure, float, float_of},
    store,
};

/// Rows of the table.
const SHOWN: usize = 48;

/// Measures.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> Result<Table> {
    store::track_statements(&stack.admin, true).await?;
    // Until every connection has its plans.
    load::warm_up(plan, stack, 16).await?;
    store::reset_statements(&stack.admin).await?;
    let (turns, _) = load::converse(stack, 16, Duration::from_secs(plan.pick(3, 5))).await?;
    let statements = store::statements(&stack.admin).await?;
    store::track_statements(&stack.admin, false).await?;
    let each = |value: f64| value / float(turns.max(1));
    let mut table = Table::new(
        "Statements of a turn, 16 conversations at once",
        &["role", "calls", "ms", "planning ms", "WAL bytes", "statement"],
    );
    for statement in statements.iter().take(SHOWN) {
        table.row([
            statement.role.trim_start_matches("alfred_").to_owned(),
            figure(each(float_of(statement.calls))),
            format!("{:.3}", each(statement.total_ms)),
            format!("{:.3}", each(statement.plan_ms)),
            figure(each(float_of(statement.wal_bytes))),
            shortened(&statement.text),
        ]);
    }
    let calls: i64 = statements.iter().map(|statement| statement.calls).sum();
    let wal: i64 = statements.iter().map(|statement| statement.wal_bytes).sum();
    let planning: f64 = statements.iter().map(|statement| statement.plan_ms).sum();
    let time: f64 = statements.iter().map(|statement| statement.total_ms).sum();
    table.row([
        "all".to_owned(),
        figure(each(float_of(calls))),
        format!("{:.3}", each(time)),
        format!("{:.3}", each(planning)),
        figure(each(float_of(wal))),
        format!("{} different statements", statements.len()),
    ]);
    table.note(format!(
        "Over {turns} turns, by time in the executor (waiting for the disk and for locks included); BEGIN, COMMIT and ROLLBACK count as statements."
    ));
    Ok(table)
}

/// One line of at most 110 characters.
pub(super) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(150) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
