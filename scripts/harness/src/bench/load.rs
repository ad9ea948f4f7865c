//! Many conversations at once: turns a second, and what a turn costs in processor time and in the write-ahead log.

use std::time::Duration;

use anyhow::Result;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Plan,
    client::{Connection, Seen},
    floor::Floor,
    one_turn::{MESSAGE, TURNS_OF_A_CONVERSATION},
    procfs,
    report::Table,
    stack::{Spent, Stack},
    statistics::{Samples, figure, float, float_of, milliseconds},
    store,
};

/// What a load did.
struct Outcome {
    turns: usize,
    length: Duration,
    spent: Spent,
    wal_bytes: i64,
    first_token: Samples,
    done: Samples,
}

/// Measures 16 and 64 conversations. Answers the table and how many turns the product ran.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn measure(plan: &Plan, stack: &Stack, floor: &Floor) -> Result<(Table, usize)> {
    let length = Duration::from_secs(plan.pick(4, 10));
    let mut table = Table::new(
        "16 and 64 conversations at once",
        &[
            "",
            "turns/s",
            "api ms",
            "workers ms",
            "api + workers",
            "Postgres ms",
            "model ms",
            "client ms",
            "WAL KiB",
            "first token p50",
            "done p50",
            "p99",
        ],
    );
    let mut all = 0;
    for conversations in [16, 64] {
        floor.load(conversations, Duration::from_millis(500)).await?;
        let under_floor = load_floor(stack, floor, conversations, length / 2).await?;
        table.row(row(&format!("floor, {conversations}"), &under_floor, true));
        let warm = warm_up(plan, stack, conversations).await?;
        let outcome = load(stack, conversations, length).await?;
        table.row(row(&format!("product, {conversations}"), &outcome, false));
        all += warm + outcome.turns;
    }
    table.note(
        "Milliseconds of processor time a turn. The floor runs within the client's process. Each conversation has its next turn as soon as one is done, eight turns and then a new conversation.",
    );
    table.note("Aims: 400 turns/s on two cores shared by all of it; at most 2 ms for api and workers, 2 ms for Postgres.");
    Ok((table, all))
}

fn row(name: &str, outcome: &Outcome, is_floor: bool) -> Vec<String> {
    let each = |time: Duration| time.as_secs_f64() * 1e3 / float(outcome.turns.max(1));
    let product = |time: Duration| if is_floor { "–".to_owned() } else { figure(each(time)) };
    let spent = outcome.spent;
    vec![
        name.to_owned(),
        figure(float(outcome.turns) / outcome.length.as_secs_f64()),
        product(spent.api),
        product(spent.workers),
        product(spent.api + spent.workers),
        figure(each(spent.postgres)),
        product(spent.model),
        figure(each(spent.own)),
        figure(float_of(outcome.wal_bytes) / 1024.0 / float(outcome.turns.max(1))),
        milliseconds(outcome.first_token.median()),
        milliseconds(outcome.done.median()),
        figure(outcome.done.percentile(99.0)),
    ]
}

async fn load_floor(stack: &Stack, floor: &Floor, conversations: usize, length: Duration) -> Result<Outcome> {
    let wal = store::wal_position(&stack.admin).await?;
    let (begun, before) = (Instant::now(), stack.spent()?);
    let (turns, times) = floor.load(conversations, length).await?;
    let (length, spent) = (begun.elapsed(), stack.spent()?.since(before));
    Ok(Outcome {
        turns,
        length,
        spent,
        wal_bytes: store::wal_position(&stack.admin).await? - wal,
        first_token: Samples::of_times(times.iter().map(|turn| turn.first_token)),
        done: Samples::of_times(times.iter().map(|turn| turn.done)),
    })
}

async fn load(stack: &Stack, conversations: usize, length: Duration) -> Result<Outcome> {
    let wal = store::wal_position(&stack.admin).await?;
    let (begun, before) = (Instant::now(), stack.spent()?);
    let (turns, times) = converse(stack, conversations, length).await?;
    let (length, spent) = (begun.elapsed(), stack.spent()?.since(before));
    Ok(Outcome {
        turns,
        length,
        spent,
        wal_bytes: store::wal_position(&stack.admin).await? - wal,
        first_token: Samples::of_times(times.iter().map(|(begun, seen)| seen.first_token - *begun)),
        done: Samples::of_times(times.iter().map(|(begun, seen)| seen.done - *begun)),
    })
}

/// Runs turns until the tables have rows to be counted, and the connections of all pools plans to keep. Answers how
/// many.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn warm_up(plan: &Plan, stack: &Stack, conversations: usize) -> Result<usize> {
    let (wanted, until) = (plan.pick(500, 1500), Instant::now() + Duration::from_secs(plan.pick(4, 10)));
    let mut turns = 0;
    while turns < wanted && Instant::now() < until {
        turns += converse(stack, conversations, Duration::from_millis(500)).await?.0;
    }
    // What autovacuum does within a minute; plans made over empty tables read them whole.
    store::analyze(&stack.admin).await?;
    Ok(turns + converse(stack, conversations, Duration::from_secs(plan.pick(1, 2))).await?.0)
}

type Turns = Vec<(Instant, Seen)>;

/// So many conversations, each posting its next turn when one is done, for so long.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn converse(
    stack: &Stack,
    conversations: usize,
    length: Duration,
) -> Result<(usize, Turns)> {
    let until = Instant::now() + length;
    let mut users = JoinSet::new();
    for _ in 0..conversations {
        let (post, events) = (stack.connect().await?, stack.connect().await?);
        users.spawn(user(post, events, until));
    }
    let mut all = Vec::new();
    while let Some(turns) = users.join_next().await {
        all.extend(turns??);
    }
    Ok((all.len(), all))
}

async fn user(mut post: Connection, mut events: Connection, until: Instant) -> Result<Turns> {
    let (mut turns, mut session) = (Vec::new(), None);
    while Instant::now() < until {
        if turns.len() % TURNS_OF_A_CONVERSATION == 0 {
            session = None;
        }
        let begun = Instant::now();
        let posted = post.post(MESSAGE, session.as_deref()).await?;
        events.follow(&format!("/jobs/{}/events", posted.job)).await?;
        let seen = events.until_done().await?;
        events.until_end().await?;
        turns.push((begun, seen));
        session = Some(posted.session);
    }
    Ok(turns)
}

/// Keeps 16 conversations going, and says which processes a profiler may look at.
///
/// # Errors
/// A turn is not answered.
#[expect(clippy::print_stderr, reason = "for the person at the profiler")]
pub(super) async fn hold(stack: &Stack, length: Duration) -> Result<()> {
    converse(stack, 16, Duration::from_secs(4)).await?;
    store::analyze(&stack.admin).await?;
    converse(stack, 16, Duration::from_secs(2)).await?;
    let workers: Vec<u32> = stack.workers.iter().map(crate::process::Process::pid).collect();
    eprintln!(
        "16 conversations for {} s: api {}, workers {workers:?}, a backend's parent {}",
        length.as_secs(),
        stack.api.pid(),
        procfs::parent(u32::try_from(store::backend(&stack.admin).await?)?)?
    );
    let (turns, _) = converse(stack, 16, length).await?;
    eprintln!("{turns} turns");
    Ok(())
}
