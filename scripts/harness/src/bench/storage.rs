//! Bytes on disk a turn, by table.

use std::collections::BTreeMap;

use anyhow::Result;
use sqlx::PgPool;

use super::{
    report::Table,
    statistics::{figure, float, float_of},
    store,
};

/// Bytes of each table with its indexes.
pub(super) struct Sizes(BTreeMap<String, i64>);

impl Sizes {
    pub(super) async fn read(admin: &PgPool) -> Result<Self> {
        Ok(Self(store::sizes(admin).await?.into_iter().collect()))
    }
}

/// What so many turns added.
pub(super) fn table(before: &Sizes, after: &Sizes, turns: usize) -> Table {
    let mut table = Table::new("Bytes stored a turn", &["table", "bytes a turn"]);
    let mut grown: Vec<(&String, i64)> = after
        .0
        .iter()
        .map(|(name, size)| (name, size - before.0.get(name).copied().unwrap_or(0)))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    grown.sort_by_key(|(_, bytes)| -bytes);
    let each = |bytes: i64| float_of(bytes) / float(turns.max(1));
    for (name, bytes) in &grown {
        if each(*bytes) >= 1.0 {
            table.row([name.trim_start_matches("public.").to_owned(), figure(each(*bytes))]);
        }
    }
    table.row(["all".to_owned(), figure(each(grown.iter().map(|(_, bytes)| bytes).sum()))]);
    table.note(format!(
        "Growth of tables and indexes over {turns} turns, dead rows included. Events go with their day's partition, tickets (apalis.jobs) within a minute."
    ));
    table
}
