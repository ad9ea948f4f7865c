//! What a conversation's history costs a turn: the same turn behind two messages and behind fifty.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Plan,
    client::Connection,
    load,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, milliseconds},
};

/// Messages before the measured turn, its own not among them.
const LENGTHS: [usize; 2] = [2, 50];
/// What follows a turn must not run into the next one.
const REST: Duration = Duration::from_millis(4);

/// Measures.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn measure(plan: &Plan, stack: &Stack) -> Result<Table> {
    let rounds = plan.pick(60, 300);
    load::warm_up(plan, stack, 4).await?;
    let (mut post, mut events) = (stack.connect().await?, stack.connect().await?);
    let mut times: [Vec<Duration>; LENGTHS.len()] = Default::default();
    // Alternating, because a disk has moods.
    for round in 0..rounds + 10 {
        for (length, times) in LENGTHS.iter().zip(&mut times) {
            let opened = turn(&mut post, &mut events, &opening(*length)).await?;
            tokio::time::sleep(REST).await;
            let next = json!({"messages": [said("user", "[[tokens:1]]")], "session": opened.session});
            let time = turn(&mut post, &mut events, &next).await?.time;
            tokio::time::sleep(REST).await;
            if round >= 10 {
                times.push(time);
            }
        }
    }
    let mut table = Table::new(
        "The history of a conversation",
        &["messages before the turn", "done p50", "p99", "more than 2"],
    );
    let medians = times.each_ref().map(|times| Samples::of_times(times.iter().copied()).median());
    for ((length, times), median) in LENGTHS.iter().zip(&times).zip(medians) {
        table.row([
            length.to_string(),
            milliseconds(median),
            figure(Samples::of_times(times.iter().copied()).percentile(99.0)),
            milliseconds(median - medians[0]),
        ]);
    }
    table.note(format!(
        "{rounds} turns each, from the beginning of the request to `done`, messages of 200 bytes; reading them, writing \
         the request to the model and the model stand-in's reading of it are in the difference."
    ));
    table.note("Aim: 50 messages cost less than 5 ms.");
    Ok(table)
}

struct Turned {
    session: String,
    time: Duration,
}

async fn turn(post: &mut Connection, events: &mut Connection, body: &Value) -> Result<Turned> {
    let begun = Instant::now();
    let posted = post.post_body(body).await?;
    events.follow(&format!("/jobs/{}/events", posted.job)).await?;
    let seen = events.until_done().await?;
    events.until_end().await?;
    Ok(Turned { session: posted.session, time: seen.done - begun })
}

/// Opens a conversation that has so many messages after its first turn.
fn opening(length: usize) -> Value {
    let text = "words ".repeat(33);
    let earlier = (0..length - 2).map(|index| said(if index % 2 == 0 { "user" } else { "assistant" }, &text));
    let messages: Vec<Value> = earlier.chain([said("user", "[[tokens:1]]")]).collect();
    json!({ "messages": messages })
}

fn said(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}
