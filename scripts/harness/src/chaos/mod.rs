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
    client::{Chat, Client, Posted},
    fakes::outside::FakeOutside,
    load::{fresh_key, one_turn},
    oracle::{Expectations, Oracle, Violation},
    process::binary,
    stack::{Stack, Through},
};

/// How long a person waits for the end of a turn before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let outside = FakeOutside::start().await?;
    let worker = binary("worker_with_outside_tools")?;
    let mut stack = Stack::builder()
        .worker_binary(&worker.to_string_lossy())
        .env("OUTSIDE_URL", &outside.url)
        .own_cluster()
        .proxy(Through::All)
        .tenants(2)
        .running_turns(8)
        .apis(2)
        .workers(2)
        .env("MODEL_IDLE_TIMEOUT_SECONDS", "2")
        .start()
        .await?;
    for tenant in &stack.tenants {
        stack.database.set_policy(tenant.id, "create_note", "ask").await?;
    }
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
    expected.outside = outside.received();
    expected.outside_repeatable = vec!["ring_safely".to_owned()];
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
            if session.is_some() && random.random_bool(0.1) {
                chat = chat.on_busy("interrupt");
            }
            // Now and then somebody cancels, or posts into the same conversation at the same time.
            let beside = match random.random_range(0..20) {
                0 => Some(tokio::spawn(cancel_something(client.clone()))),
                1 => session
                    .clone()
                    .map(|token| tokio::spawn(post_beside(client.clone(), bases.clone(), token))),
                _ => None,
            };
            match self.one_turn(&client, &bases, chat).await {
                Ok(posted) => session = Some(posted.session),
                Err(error) => {
                    complaints.push(format!("{error:#}"));
                    session = None;
                }
            }
            if let Some(beside) = beside
                && let Ok(Err(error)) = beside.await
            {
                complaints.push(format!("{error:#}"));
            }
        }
        complaints
    }

    async fn one_turn(&self, client: &Client, bases: &[String], chat: Chat) -> Result<Posted> {
        let posted = client.accept_stubbornly(&chat.idempotency(&fresh_key()), PATIENCE).await?;
        let deciding = tokio::spawn(decide(client.clone(), bases.to_vec(), posted.job.clone()));
        let followed = client.follow(&posted.job).over(bases).within(PATIENCE).to_done().await;
        deciding.abort();
        followed?;
        Ok(posted)
    }
}

/// Says yes to half of what a turn asks, for as long as it runs.
async fn decide(client: Client, bases: Vec<String>, job: String) {
    let mut number = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        number += 1;
        let client = client.at(&bases[number % bases.len()]);
        let Ok(view) = client.job(&job).await else { continue };
        for approval in view["waitingFor"]["approvals"].as_array().into_iter().flatten() {
            let call = approval["callId"].as_str().unwrap_or_default();
            let decision = if call.len().is_multiple_of(2) { "approve" } else { "deny" };
            // A lost answer is asked for again; a decision that was taken is a conflict by then.
            client.decide(&job, call, decision).await.ok();
        }
    }
}

/// Another device of the same person.
async fn post_beside(client: Client, bases: Vec<String>, token: String) -> Result<()> {
    let chat = Chat::new(&format!("{} says: me too [[tokens:3]]", client.tenant)).session(&token);
    one_turn(&client, &bases, chat, PATIENCE).await.map(drop)
}

/// Cancels the newest turn of this tenant, if the API answers.
async fn cancel_something(client: Client) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(150)).await;
    let newest = client.ledger().accepted().into_iter().rev().find(|turn| turn.tenant == client.tenant);
    if let Some(turn) = newest {
        // During a restart nobody may answer, and then it is not cancelled.
        client.cancel(&turn.job).await.ok();
    }
    Ok(())
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
    for (tool, share) in [("list_tasks {}", 0.3), ("ring_once {}", 0.15), ("ring_safely {}", 0.15)] {
        if random.random_bool(share) {
            text += &format!("[[tool:{tool}]]");
        }
    }
    if random.random_bool(0.08) {
        text += &format!("[[tool:create_note {{\"title\":\"note {number}\",\"content\":\"x\"}}]]");
    }
    text += &format!("[[tokens:{}]][[delay:{}]]", random.random_range(1..40), random.random_range(0..30));
    if random.random_bool(0.15) {
        let wrong = ["429", "500", "529", "cut", "stall", "garbage", "overloaded"];
        text += &format!("[[first:{}]]", wrong[random.random_range(0..wrong.len())]);
    }
    text
}
