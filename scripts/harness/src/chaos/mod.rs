//! A soak: people at work on a whole stack while everything under them breaks, in an order that a seed decides.
//!
//! What is broken when depends on the seed alone; what it hits depends on timing, so a seed repeats the plan of a run,
//! not its every interleaving. The oracle has the last word.

mod faults;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

pub use self::faults::Fault;
use crate::{
    client::{Chat, Client},
    load::one_turn,
    oracle::{Expectations, Oracle, Violation},
    stack::{Stack, Through},
};

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Decides faults and messages.
    pub seed: u64,
    /// How long people go on posting.
    pub length: Duration,
    /// Conversations at once.
    pub conversations: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Accepted turns.
    pub turns: usize,
    /// How they ended, by status.
    pub endings: BTreeMap<String, usize>,
    /// How often each fault was done.
    pub faults: BTreeMap<&'static str, usize>,
    /// Turns that were taken over from a dead worker.
    pub takeovers: i64,
    /// What the oracle found.
    pub violations: Vec<Violation>,
    /// What clients met that no application should: a stream that did not get to its end, a refused post.
    pub complaints: Vec<String>,
    /// The ends of the processes' logs, when something was found.
    pub logs: String,
}

/// Runs the plan; `told` hears of each fault.
///
/// # Errors
/// The stack does not start, or a fault cannot be done.
pub async fn run(plan: Plan, told: impl Fn(Duration, &str)) -> Result<Report> {
    let mut stack = Stack::builder()
        .own_cluster()
        .proxy(Through::All)
        .tenants(2)
        .running_turns(8)
        .apis(2)
        .workers(2)
        .env("MODEL_IDLE_TIMEOUT_SECONDS", "2")
        .start()
        .await?;
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let people = Arc::new(People { over: Arc::clone(&over), posted: AtomicUsize::new(0) });
    let bases = stack.bases();
    let at_work: Vec<_> = (0..plan.conversations)
        .map(|number| {
            let client = stack.client(number % 2).at(&bases[number % bases.len()]);
            let random = StdRng::seed_from_u64(plan.seed.wrapping_mul(1009).wrapping_add(number as u64));
            tokio::spawn(Arc::clone(&people).work(client, bases.clone(), random))
        })
        .collect();

    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut faults: BTreeMap<&'static str, usize> = BTreeMap::new();
    while begun.elapsed() < plan.length {
        let pause = Duration::from_millis(random.random_range(200..2500));
        tokio::time::sleep(pause).await;
        let fault = Fault::any(&mut random);
        told(begun.elapsed(), fault.name());
        *faults.entry(fault.name()).or_default() += 1;
        fault.commit(&mut stack, &mut random).await?;
    }
    over.store(true, Ordering::Release);
    faults::mend(&mut stack).await?;
    let mut complaints = Vec::new();
    for ended in join_all(at_work).await {
        complaints.extend(ended?);
    }

    let mut expected = Expectations {
        // Cancelled ones, and what was taken from dying workers too often.
        succeeded: 0.8,
        settle_within: Duration::from_secs(40),
        ..Expectations::default()
    };
    let picture = Oracle::settle(&stack.database.admin, &expected).await?;
    expected.provider = stack.provider_log();
    let violations = Oracle::judge(&picture, &stack.ledger, &expected);
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for turn in &picture.turns {
        *endings.entry(turn.state.clone()).or_default() += 1;
    }
    let logs = if violations.is_empty() && complaints.is_empty() { String::new() } else { stack.logs() };
    Ok(Report {
        turns: stack.ledger.accepted().len(),
        endings,
        faults,
        takeovers: picture.turns.iter().map(|turn| turn.takeovers_total).sum(),
        violations,
        complaints,
        logs,
    })
}

/// Those who post until it is over.
struct People {
    over: Arc<AtomicBool>,
    posted: AtomicUsize,
}

impl People {
    async fn work(self: Arc<Self>, client: Client, bases: Vec<String>, mut random: StdRng) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut session: Option<String> = None;
        while !self.over.load(Ordering::Acquire) {
            let number = self.posted.fetch_add(1, Ordering::AcqRel);
            let mut chat = Chat::new(&format!("{} says: {}", client.tenant, message(number, &mut random)));
            if let Some(token) = session.as_ref().filter(|_| random.random_bool(0.8)) {
                chat = chat.session(token);
            }
            let cancels = random.random_bool(0.05);
            let canceller = cancels.then(|| tokio::spawn(cancel_something(client.clone())));
            match one_turn(&client, &bases, chat, Duration::from_secs(60)).await {
                Ok((posted, _)) => session = Some(posted.session),
                Err(error) => {
                    complaints.push(format!("{error:#}"));
                    session = None;
                }
            }
            if let Some(canceller) = canceller {
                canceller.await.ok();
            }
        }
        complaints
    }
}

/// Cancels the newest turn of this tenant, if the API answers.
async fn cancel_something(client: Client) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    let newest = client.ledger().accepted().into_iter().rev().find(|turn| turn.tenant == client.tenant);
    if let Some(turn) = newest {
        // During a restart nobody may answer, and then it is not cancelled.
        client.cancel(&turn.job).await.ok();
    }
}

/// A message with some work in it, which goes wrong now and then.
fn message(number: usize, random: &mut StdRng) -> String {
    let mut text = String::new();
    for call in 0..random.random_range(0..3) {
        text += &format!("[[tool:add_task {{\"title\":\"task {number}.{call}\"}}]]");
        if random.random_bool(0.4) {
            text += "[[next]]";
        }
    }
    if random.random_bool(0.3) {
        text += "[[tool:list_tasks {}]]";
    }
    text += &format!("[[tokens:{}]][[delay:{}]]", random.random_range(1..40), random.random_range(0..30));
    if random.random_bool(0.15) {
        let wrong = ["429", "500", "529", "cut", "stall", "garbage", "overloaded"];
        text += &format!("[[first:{}]]", wrong[random.random_range(0..wrong.len())]);
    }
    text
}
