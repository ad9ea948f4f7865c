//! The ledger of model calls: a row is written before a call is sent and settled after, because the money is spent
//! whatever becomes of the turn. Settling is not fenced.
//!
//! Turns that run at the same time share statements: what arrives while one is under way goes into the next.

mod store;

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::{Claimed, Turns};
use crate::{
    error::{Error, Result},
    identity::Actor,
    ids::{ModelCallId, TenantId, TurnId, UserId},
    model::Usage,
};

/// What a model call came to.
#[derive(Debug, Clone)]
pub struct Settled {
    /// `ok`, or the kind of error.
    pub outcome: &'static str,
    /// The provider's figures, or our estimate when it gave none.
    pub usage: Usage,
    /// The figures are ours.
    pub estimated: bool,
    pub cost_micros: i64,
}

/// A call that is about to be sent.
struct Opened {
    tenant: TenantId,
    id: ModelCallId,
    turn: TurnId,
    user: UserId,
    provider: String,
    model: String,
    input_tokens: i64,
}

enum Entry {
    Open(Opened),
    Settle(TenantId, ModelCallId, Settled),
    /// Bring the totals of an ended turn in line with its calls.
    Correct(TenantId, TurnId),
}

type Ack = oneshot::Sender<Result<(), String>>;

/// Writes the ledger for one process.
#[derive(Clone)]
pub(super) struct Ledger(mpsc::UnboundedSender<(Entry, Ack)>);

impl Ledger {
    pub(super) fn start(engine: PgPool) -> Self {
        let (entries, inbox) = mpsc::unbounded_channel();
        tokio::spawn(write(engine, inbox));
        Self(entries)
    }

    /// Entered when this returns, written when its future is done.
    fn enter(&self, entry: Entry) -> impl Future<Output = Result<()>> + Send + use<> {
        let (ack, written) = oneshot::channel();
        let entered = self.0.send((entry, ack));
        async move {
            let ended = || Error::internal("the ledger's task has ended");
            entered.map_err(|_| ended())?;
            written.await.map_err(|_| ended())?.map_err(Error::internal)
        }
    }

    /// Brings the totals of a turn, if it has ended, in line with its calls, after all that was entered before. Whoever
    /// ends a turn that somebody else may still settle a call of asks for it, and so does whoever settles without
    /// holding the turn: the later of the two sees both.
    pub(super) fn correct(&self, tenant: TenantId, turn: TurnId) {
        // Nobody waits for it.
        drop(self.enter(Entry::Correct(tenant, turn)));
    }
}

impl Turns {
    /// Writes down a model call before it is sent; `input_tokens` is an estimate until the call is settled. While the
    /// database is away this waits; whoever stops waiting must settle the call, as it will be written all the same.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_model_call(
        &self,
        claimed: &Claimed,
        id: ModelCallId,
        provider: &str,
        model: &str,
        input_tokens: i64,
    ) -> Result<()> {
        self.open_call(&claimed.actor, claimed.lease.turn, id, provider, model, input_tokens).await
    }

    /// The same for any actor, under the id of a turn or of a job that is none.
    pub(super) async fn open_call(
        &self,
        actor: &Actor,
        turn: TurnId,
        id: ModelCallId,
        provider: &str,
        model: &str,
        input_tokens: i64,
    ) -> Result<()> {
        let (provider, model) = (provider.to_owned(), model.to_owned());
        let opened =
            Opened { tenant: actor.tenant, id, turn, user: actor.user, provider, model, input_tokens };
        self.ledger.enter(Entry::Open(opened)).await
    }

    /// Settles a model call; it is on its way when this returns.
    ///
    /// # Errors
    /// The database's, after it was away for long; the row keeps its estimate then.
    pub fn settle_model_call(
        &self,
        claimed: &Claimed,
        id: ModelCallId,
        settled: Settled,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        self.settle_call(claimed.lease.tenant, id, settled)
    }

    pub(super) fn settle_call(
        &self,
        tenant: TenantId,
        id: ModelCallId,
        settled: Settled,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        self.ledger.enter(Entry::Settle(tenant, id, settled))
    }

    /// Has the totals of a turn brought in line with its calls, should it have ended without this attempt's last ones.
    pub fn correct_totals(&self, claimed: &Claimed) {
        self.ledger.correct(claimed.lease.tenant, claimed.lease.turn);
    }
}

/// How often a batch is tried again while the database is away, and how long the pauses are.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// Entries of one statement.
const MOST: usize = 512;

/// How long a settlement waits for others, or for the next call to be opened, to share a commit with. Nobody waits for it, but
/// a process that dies meanwhile leaves an estimate in its place: less than the end of a turn takes.
const LINGER: Duration = Duration::from_millis(3);

/// What goes into one statement.
#[derive(Default)]
struct Batch {
    opened: Vec<Opened>,
    settled: Vec<(TenantId, ModelCallId, Settled)>,
    /// Turns whose totals are to be corrected afterwards.
    ended: Vec<(TenantId, TurnId)>,
    acks: Vec<Ack>,
}

impl Batch {
    fn add(&mut self, (entry, ack): (Entry, Ack)) {
        match entry {
            Entry::Open(open) => self.opened.push(open),
            Entry::Settle(tenant, id, settlement) => self.settled.push((tenant, id, settlement)),
            Entry::Correct(tenant, turn) => self.ended.push((tenant, turn)),
        }
        self.acks.push(ack);
    }

    /// Whether this settles a call that the same statement would open, which it would not see. That happens to a call
    /// that was given up while the database was away.
    fn must_wait(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Settle(_, id, _) if self.opened.iter().any(|open| open.id == *id))
    }
}

async fn write(engine: PgPool, mut inbox: mpsc::UnboundedReceiver<(Entry, Ack)>) {
    let mut held = None;
    while let Some(first) = match held.take() {
        Some(held) => Some(held),
        None => inbox.recv().await,
    } {
        let mut batch = Batch::default();
        batch.add(first);
        let until = tokio::time::Instant::now() + LINGER;
        while batch.opened.is_empty() {
            let Ok(Some(next)) = tokio::time::timeout_at(until, inbox.recv()).await else { break };
            batch.add(next);
        }
        while batch.acks.len() < MOST
            && let Ok(next) = inbox.try_recv()
        {
            if batch.must_wait(&next.0) {
                held = Some(next);
                break;
            }
            batch.add(next);
        }
        let outcome = write_batch(&engine, &batch).await.map_err(|error| error.to_string());
        for ack in batch.acks {
            // A turn that was dropped meanwhile does not ask any more.
            let _ = ack.send(outcome.clone());
        }
        for (tenant, turn) in batch.ended {
            let corrected = patiently(|| store::correct(&engine, tenant, turn)).await;
            if let Err(error) = corrected {
                tracing::error!(turn_id = %turn, error = %error, "the totals of a turn may miss a call that was settled late");
            }
        }
    }
}

/// The statement may run twice without harm, so a lost reply is simply tried again.
async fn write_batch(engine: &PgPool, batch: &Batch) -> Result<()> {
    if batch.opened.is_empty() && batch.settled.is_empty() {
        return Ok(());
    }
    patiently(|| store::write(engine, &batch.opened, &batch.settled)).await
}

async fn patiently<F: Future<Output = Result<()>>>(work: impl Fn() -> F) -> Result<()> {
    let mut tried = 0;
    loop {
        match work().await {
            Err(error) if error.is_transient() && tried < TRIES => {
                tried += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}
