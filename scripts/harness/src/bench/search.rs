//! Search and figures over a tenant with very many items, beside other tenants with theirs.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Plan,
    report::Table,
    stack::Stack,
    statistics::{Samples, milliseconds},
    store,
};

/// Other tenants.
const OTHERS: i32 = 20;
/// Each of them has so many items.
const OF_OTHERS: i64 = 5_000;
/// Users of the measured tenant; its admin asks, and so searches all of theirs.
const USERS: i32 = 20;

/// A sort of queries: what it is called, and the n-th of it.
type Search = (&'static str, fn(usize) -> String);

/// Word 0 is in most items, word 20 000 in the fewest.
const QUERIES: [Search; 6] = [
    ("a word of 0.1 % of the items", |n| format!("w{}", 10_000 + n * 37 % 9_000)),
    ("two such words, either", |n| format!("w{} or w{}", 10_000 + n * 37 % 9_000, 11_000 + n * 41 % 8_000)),
    ("a word of 0.5 %", |n| format!("w{}", 1_000 + n * 7 % 500)),
    ("a word of 2 %", |n| format!("w{}", 100 + n % 100)),
    ("a word of a third, without another", |n| format!("w{} -w{}", 1 + n % 3, 50 + n % 20)),
    ("a phrase of two words of a tenth", |n| format!("\"w{} w{}\"", 10 + n % 7, 20 + n % 11)),
];

/// Measures.
///
/// # Errors
/// A query is not answered.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> Result<Table> {
    let items = plan.pick(30_000, 300_000);
    let seeding = Instant::now();
    store::seed_items(&stack.admin, None, USERS, items).await?;
    for tenant in 0..OTHERS {
        store::seed_items(&stack.admin, Some(tenant), 5, OF_OTHERS).await?;
    }
    store::index_items(&stack.admin).await?;
    let seeding = seeding.elapsed();

    let mut table = Table::new(
        &format!("Search over {items} items in one tenant of {}", OTHERS + 1),
        &["what is asked", "p50", "p95", "largest"],
    );
    let mut connection = stack.connect().await?;
    let samples = plan.pick(50, 200);
    for (name, query) in QUERIES {
        // Until the connection has its plans and Postgres the pages.
        for n in 0..samples / 5 {
            connection.get(&path(&query(n))).await?;
        }
        let mut times = Vec::new();
        for n in 0..samples {
            let path = path(&query(n));
            let since = Instant::now();
            connection.get(&path).await?;
            times.push(since.elapsed());
        }
        table.row(figures(name, times));
    }
    let mut times = Vec::new();
    for _ in 0..samples / 5 {
        let since = Instant::now();
        connection.get("/v1/stats").await?;
        times.push(since.elapsed());
    }
    table.row(figures("GET /v1/stats", times));
    table.note(format!(
        "GET /v1/search?q=… over HTTP, one at a time, 20 results with snippets, as the tenant's admin; 40 words an item. Seeding took {} s.",
        seeding.as_secs()
    ));
    Ok(table)
}

fn figures(name: &str, times: Vec<Duration>) -> [String; 4] {
    let times = Samples::of_times(times);
    [
        name.to_owned(),
        milliseconds(times.median()),
        milliseconds(times.percentile(95.0)),
        milliseconds(times.largest()),
    ]
}

fn path(query: &str) -> String {
    let mut path = "/v1/search?q=".to_owned();
    for byte in query.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => path.push(char::from(byte)),
            byte => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}
