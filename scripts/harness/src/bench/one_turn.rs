//! One turn at a time: how long a client waits, beside the floor. The two take turns, because a disk has moods.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Plan,
    client::Connection,
    floor::Floor,
    load,
    report::Table,
    stack::Stack,
    statistics::{Samples, figure, milliseconds},
};

/// A model without delay that calls one reading tool and then says 32 tokens.
pub(super) const MESSAGE: &str = "[[tool:list_tasks {}]] [[tokens:32]]";
/// The same with a tool that writes.
const WRITING: &str = r#"[[tool:add_task {"title":"buy milk"}]] [[tokens:32]]"#;
/// Turns of one conversation before the next is opened: its history is part of each turn.
pub(super) const TURNS_OF_A_CONVERSATION: usize = 8;
/// What follows a turn (promotion, tickets, the log) must not run into the other side's turn.
const REST: Duration = Duration::from_millis(4);

/// Three moments of each turn, since its request began.
#[derive(Default)]
struct Moments {
    accepted: Vec<Duration>,
    first_token: Vec<Duration>,
    done: Vec<Duration>,
}

impl Moments {
    fn add(&mut self, accepted: Duration, first_token: Duration, done: Duration) {
        self.accepted.push(accepted);
        self.first_token.push(first_token);
        self.done.push(done);
    }

    fn medians(&self) -> [f64; 3] {
        [&self.accepted, &self.first_token, &self.done]
            .map(|times| Samples::of_times(times.iter().copied()).median())
    }

    fn row(&self, name: &str, floor: [f64; 3]) -> Vec<String> {
        let mut cells = vec![name.to_owned()];
        for (times, floor) in [&self.accepted, &self.first_token, &self.done].into_iter().zip(floor) {
            let samples = Samples::of_times(times.iter().copied());
            cells.push(milliseconds(samples.median()));
            cells.push(figure(samples.percentile(99.0)));
            cells.push(format!("{:.2}", samples.median() / floor));
        }
        cells
    }
}

/// A client of the product that reads each job's stream, or one session's stream that stays open.
struct User {
    post: Connection,
    events: Connection,
    session: Option<String>,
    turns: usize,
    message: &'static str,
}

impl User {
    async fn new(stack: &Stack, message: &'static str) -> Result<Self> {
        let (post, events) = (stack.connect().await?, stack.connect().await?);
        Ok(Self { post, events, session: None, turns: 0, message })
    }

    fn next_session(&mut self) -> Option<String> {
        self.turns += 1;
        self.session.take_if(|_| self.turns.is_multiple_of(TURNS_OF_A_CONVERSATION));
        self.session.clone()
    }

    async fn turn(&mut self, moments: &mut Moments) -> Result<()> {
        let session = self.next_session();
        let begun = Instant::now();
        let posted = self.post.post(self.message, session.as_deref()).await?;
        let accepted = begun.elapsed();
        self.events.follow(&format!("/jobs/{}/events", posted.job)).await?;
        let seen = self.events.until_done().await?;
        moments.add(accepted, seen.first_token - begun, seen.done - begun);
        self.events.until_end().await?;
        self.session = Some(posted.session);
        Ok(())
    }

    async fn turn_on_open_stream(&mut self, stack: &Stack, moments: &mut Moments) -> Result<()> {
        let session = match self.next_session() {
            Some(session) => session,
            None => {
                // A session begins with a turn; the stream is opened behind it.
                let posted = self.post.post("[[tokens:1]]", None).await?;
                let mut first = stack.connect().await?;
                first.follow(&format!("/jobs/{}/events", posted.job)).await?;
                first.until_done().await?;
                self.events = stack.connect().await?;
                self.events.follow(&format!("/chat/stream?session={}&follow=true", posted.session)).await?;
                posted.session
            }
        };
        let begun = Instant::now();
        let posted = self.post.post(self.message, Some(&session)).await?;
        let accepted = begun.elapsed();
        let seen = self.events.until_done().await?;
        moments.add(accepted, seen.first_token - begun, seen.done - begun);
        self.session = Some(posted.session);
        Ok(())
    }
}

/// Measures.
///
/// # Errors
/// A turn is not answered.
pub(super) async fn measure(plan: &Plan, stack: &Stack, floor: &Floor) -> Result<Table> {
    let rounds = plan.pick(150, 600);
    let mut jobs = User::new(stack, MESSAGE).await?;
    let mut sessions = User::new(stack, MESSAGE).await?;
    let mut writing = User::new(stack, WRITING).await?;
    let mut warm = Moments::default();
    load::warm_up(plan, stack, 4).await?;
    for _ in 0..20 {
        floor.turn().await?;
        jobs.turn(&mut warm).await?;
        sessions.turn_on_open_stream(stack, &mut warm).await?;
        writing.turn(&mut warm).await?;
    }
    let (mut by_floor, mut by_job) = (Moments::default(), Moments::default());
    let (mut by_session, mut by_writing) = (Moments::default(), Moments::default());
    for round in 0..rounds {
        let turn = floor.turn().await?;
        by_floor.add(turn.accepted, turn.first_token, turn.done);
        tokio::time::sleep(REST).await;
        jobs.turn(&mut by_job).await?;
        tokio::time::sleep(REST).await;
        sessions.turn_on_open_stream(stack, &mut by_session).await?;
        tokio::time::sleep(REST).await;
        if round % 4 == 0 {
            writing.turn(&mut by_writing).await?;
            tokio::time::sleep(REST).await;
        }
    }
    let mut table = Table::new(
        "One turn at a time, model without delay, one tool call, 32 tokens",
        &[
            "",
            "accepted p50",
            "p99",
            "× floor",
            "first token p50",
            "p99",
            "× floor",
            "done p50",
            "p99",
            "× floor",
        ],
    );
    let floor = by_floor.medians();
    table.row(by_floor.row("floor (Postgres alone)", floor));
    table.row(by_job.row("product, POST then the job's stream", floor));
    table.row(by_session.row("product, on an open session stream", floor));
    table.row(by_writing.row("product, the tool writes", floor));
    table.note(format!(
        "{rounds} turns each (a quarter with the writing tool), floor and product alternating."
    ));
    table.note(
        "Times run from the beginning of the request. Accepted is the 202, which the product gives only after a durable commit.",
    );
    table.note("Aim: first token and done each within 2 × the floor.");
    Ok(table)
}
