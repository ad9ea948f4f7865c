//! Very many open streams: what one costs in memory, and how late an event comes when thousands listen.

use std::time::Duration;

use anyhow::{Context, Result};
use shared::ids::TurnId;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    Plan,
    client::Arrival,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, float, float_of},
    store,
};

/// Events before the streams fall idle, and after the gate opens again.
const HALF: usize = 6;
/// Between events, so that each is delivered alone.
const PAUSE: Duration = Duration::from_millis(250);
/// Streams are opened by so many at a time.
const OPENING: usize = 64;

/// Measures.
///
/// # Errors
/// A stream does not open or does not end.
pub(super) async fn measure(plan: &Plan, stack: &mut Stack) -> Result<Table> {
    let mut table = Table::new(
        "Idle followers of one API process",
        &[
            "followers",
            "opened in",
            "KiB a stream",
            "api resident",
            "one event to all: p50",
            "p99",
            "last",
            "one among all: p50",
            "p99",
            "api ms an event",
        ],
    );
    let counts: &[usize] = plan.pick(&[1_000], &[1_000, 10_000]);
    for (index, &count) in counts.iter().enumerate() {
        stack.fresh_api().await?;
        table.row(followers(stack, count, index).await.with_context(|| stack.logs())?);
    }
    table.note(
        "All follow one turn that stands still; memory is the growth of a fresh API process. Delays run from the moment at which Postgres wrote the row (before its commit) to the moment at which the client had it, on the same clock.",
    );
    table.note("One among all: another conversation with one follower, while the others stay open. Aim: 10 KiB a stream.");
    Ok(table)
}

async fn followers(stack: &mut Stack, count: usize, index: usize) -> Result<Vec<String>> {
    // A fresh process reserves much on its first requests, which is nobody's stream.
    for _ in 0..4 {
        one_follower(stack, "[[tokens:4]]").await?;
    }
    let gate = format!("followers-{index}");
    let message = format!("[[tokens:{}]] [[delay:{}]] [[gate:{gate}]]", 2 * HALF, PAUSE.as_millis());
    let mut post = stack.connect().await?;
    let posted = post.post(&message, None).await?;
    let turn: TurnId = posted.job.parse().context("a job's id")?;
    let path = format!("/jobs/{}/events", posted.job);
    // Until it stands still at its gate.
    tokio::time::sleep(PAUSE * u32::try_from(HALF + 2)?).await;

    let before = stack.memory()?.api;
    let begun = Instant::now();
    let (seen, mut progress) = watch::channel(0_usize);
    let mut streams = JoinSet::new();
    let mut opening = JoinSet::new();
    let mut left = count;
    loop {
        while left > 0 && opening.len() < OPENING {
            left -= 1;
            let (mut connection, path) = (stack.connect().await?, path.clone());
            opening.spawn(async move {
                connection.follow(&path).await?;
                anyhow::Ok(connection)
            });
        }
        let Some(opened) = opening.join_next().await else { break };
        let mut connection = opened??;
        let seen = seen.clone();
        streams.spawn(async move {
            let mut noted: Vec<Arrival> = Vec::with_capacity(2 * HALF + 4);
            connection.arrivals(HALF, &mut noted).await?;
            seen.send_modify(|seen| *seen += 1);
            // What came before has waited for the stream to open.
            noted.clear();
            connection.arrivals(usize::MAX, &mut noted).await?;
            anyhow::Ok(noted)
        });
    }
    let all = progress.wait_for(|seen| *seen == count);
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .context("not all streams brought their events")??;
    let opened_in = begun.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let resident = stack.memory()?.api;

    let one = one_follower(stack, &format!("[[tokens:16]] [[delay:{}]]", PAUSE.as_millis() / 2)).await?;
    let spent = stack.spent()?;
    stack.release(&gate).await?;
    let mut arrivals = Vec::with_capacity(count * (HALF + 1));
    while let Some(stream) = tokio::time::timeout(Duration::from_secs(40), streams.join_next())
        .await
        .context("streams do not end")?
    {
        arrivals.extend(stream??);
    }
    let spent = stack.spent()?.since(spent);
    let delays = delays(stack, turn, &arrivals).await?;
    let kib = float_of(resident - before) / 1024.0 / float(count);
    Ok(vec![
        figure(float(count)),
        format!("{} s", figure(opened_in.as_secs_f64())),
        figure(kib),
        format!("{} MiB", figure(float_of(resident) / 1024.0 / 1024.0)),
        format!("{} ms", figure(delays.median())),
        figure(delays.percentile(99.0)),
        figure(delays.largest()),
        format!("{} ms", figure(one.median())),
        figure(one.percentile(99.0)),
        figure(spent.api.as_secs_f64() * 1e3 / float(HALF + 1)),
    ])
}

/// Posts a turn and follows it alone; the delays of its tokens.
async fn one_follower(stack: &Stack, message: &str) -> Result<Samples> {
    let (mut post, mut events) = (stack.connect().await?, stack.connect().await?);
    let posted = post.post(message, None).await?;
    events.follow(&format!("/jobs/{}/events", posted.job)).await?;
    let mut noted = Vec::new();
    events.arrivals(usize::MAX, &mut noted).await?;
    delays(stack, posted.job.parse().context("a job's id")?, &noted).await
}

/// Milliseconds between the writing of each token and its arrival.
async fn delays(stack: &Stack, turn: TurnId, arrivals: &[Arrival]) -> Result<Samples> {
    let written = store::event_times(&stack.admin, &[turn]).await?;
    let written: std::collections::HashMap<i64, i64> =
        written.into_iter().filter(|row| row.3 == "token").map(|row| (row.1, row.2)).collect();
    let late = |(number, at): &Arrival| Some(float_of(at - written.get(number)?) / 1e3);
    Ok(Samples::new(arrivals.iter().filter_map(late).collect()))
}
