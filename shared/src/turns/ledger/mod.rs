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

    async fn enter(&self, entry: Entry) -> Result<()> {
        let (ack, written) = oneshot::channel();
        let ended = || Error::internal("the ledger's task has ended");
        self.0.send((entry, ack)).map_err(|_| ended())?;
        written.await.map_err(|_| ended())?.map_err(Error::internal)
    }
}

impl Turns {
    /// Writes down a model call before it is sent; `input_tokens` is an estimate until the call is settled.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_model_call(
        &self,
        claimed: &Claimed,
        provider: &str,
        model: &str,
        input_tokens: i64,
    ) -> Result<ModelCallId> {
        let id = ModelCallId::generate();
        let opened = Opened {
            tenant: claimed.lease.tenant,
            id,
            turn: claimed.lease.turn,
            user: claimed.actor.user,
            provider: provider.to_owned(),
            model: model.to_owned(),
            input_tokens,
        };
        self.ledger.enter(Entry::Open(opened)).await?;
        Ok(id)
    }

    /// Settles a model call.
    ///
    /// # Errors
    /// The database's, after it was away for long; the row keeps its estimate then.
    pub async fn settle_model_call(
        &self,
        claimed: &Claimed,
        id: ModelCallId,
        settled: Settled,
    ) -> Result<()> {
        self.ledger.enter(Entry::Settle(claimed.lease.tenant, id, settled)).await
    }
}

/// How often a batch is tried again while the database is away, and how long the pauses are.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// Entries of one statement.
const MOST: usize = 512;

/// How long a settlement waits for others, or for the next call to be opened, to share a commit with. Nobody waits for it.
const LINGER: Duration = Duration::from_millis(20);

/// What goes into one statement.
#[derive(Default)]
struct Batch {
    opened: Vec<Opened>,
    settled: Vec<(TenantId, ModelCallId, Settled)>,
    acks: Vec<Ack>,
}

impl Batch {
    fn add(&mut self, (entry, ack): (Entry, Ack)) {
        match entry {
            Entry::Open(open) => self.opened.push(open),
            Entry::Settle(tenant, id, settlement) => self.settled.push((tenant, id, settlement)),
        }
        self.acks.push(ack);
    }
}

async fn write(engine: PgPool, mut inbox: mpsc::UnboundedReceiver<(Entry, Ack)>) {
    while let Some(first) = inbox.recv().await {
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
            batch.add(next);
        }
        let outcome = write_batch(&engine, &batch).await.map_err(|error| error.to_string());
        for ack in batch.acks {
            // A turn that was dropped meanwhile does not ask any more.
            let _ = ack.send(outcome.clone());
        }
    }
}

/// The statement may run twice without harm, so a lost reply is simply tried again.
async fn write_batch(engine: &PgPool, batch: &Batch) -> Result<()> {
    let mut tried = 0;
    loop {
        match store::write(engine, &batch.opened, &batch.settled).await {
            Err(error) if error.is_transient() && tried < TRIES => {
                tried += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}
