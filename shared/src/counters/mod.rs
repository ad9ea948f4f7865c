//! Short integer ids: unique per tenant and kind, roughly ascending, gaps allowed, never a cursor.
//!
//! They are counted by one autocommit statement on a connection of its own whose commit does not wait for the disk:
//! inside the transaction that uses them, the counter's row would be locked across that transaction's flush and cap a
//! tenant at one commit per flush. Losing the last few counts in a crash is safe for ids that are counted within the
//! transaction that uses them: the crash ends it, and an item that survived has its count before it in the log. A block
//! outlives a crash of the database in its process's memory, so its count waits for the disk. Requests that arrive while a
//! statement is under way share the next.

mod store;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{Error, Result},
    ids::TenantId,
};

type Wish = (TenantId, &'static str, i64, oneshot::Sender<Result<i64, Failure>>);

/// Why nothing was counted, and whether the database was only away.
type Failure = (String, bool);

/// Kinds whose ids nobody reads out loud: a process takes them in blocks and counts without the database.
const IN_BLOCKS: &[&str] = &["chat_message"];
const BLOCK: i64 = 32;
/// Blocks kept at most; a tenant that is pushed out leaves a gap.
const KEPT_BLOCKS: usize = 10_000;

/// Ids of a block that are left: the next one and how many.
type Block = (i64, i64);

/// Hands out short ids for one process.
pub struct Counters {
    wishes: mpsc::UnboundedSender<Wish>,
    blocks: Mutex<HashMap<(TenantId, &'static str), Block>>,
}

impl Counters {
    /// Starts the counting task over a pool whose commits are asynchronous (see [`crate::db::relaxed_pool`]).
    #[must_use]
    pub fn start(relaxed: PgPool) -> Self {
        let (wishes, inbox) = mpsc::unbounded_channel();
        tokio::spawn(count(relaxed, inbox));
        Self { wishes, blocks: Mutex::default() }
    }

    /// One id.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&self, tenant: TenantId, kind: &'static str) -> Result<i64> {
        self.next_many(tenant, kind, 1).await
    }

    /// The first of `n` ids in a row.
    ///
    /// # Errors
    /// The database's.
    pub async fn next_many(&self, tenant: TenantId, kind: &'static str, n: i64) -> Result<i64> {
        if !IN_BLOCKS.contains(&kind) || n > BLOCK {
            return self.count(tenant, kind, n).await;
        }
        if let Some(first) = self.next_in_block(tenant, kind, n) {
            return Ok(first);
        }
        let first = self.count(tenant, kind, BLOCK).await?;
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= KEPT_BLOCKS {
            blocks.clear();
        }
        blocks.insert((tenant, kind), (first + n, BLOCK - n));
        Ok(first)
    }

    fn next_in_block(&self, tenant: TenantId, kind: &'static str, n: i64) -> Option<i64> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, left) = blocks.get_mut(&(tenant, kind)).filter(|(_, left)| *left >= n)?;
        let first = *next;
        *next += n;
        *left -= n;
        Some(first)
    }

    async fn count(&self, tenant: TenantId, kind: &'static str, n: i64) -> Result<i64> {
        let (answer, result) = oneshot::channel();
        let sent = self.wishes.send((tenant, kind, n, answer));
        if sent.is_err() {
            return Err(Error::internal("the counter task has ended"));
        }
        match result.await {
            Ok(Ok(first)) => Ok(first),
            // Told apart, because whoever is in the middle of a turn outlasts a database that is away.
            Ok(Err((why, true))) => Err(sqlx::Error::Io(std::io::Error::other(why)).into()),
            Ok(Err((why, false))) => Err(Error::internal(why)),
            Err(_) => Err(Error::internal("the counter task has ended")),
        }
    }
}

async fn count(relaxed: PgPool, mut inbox: mpsc::UnboundedReceiver<Wish>) {
    let mut wishes = Vec::new();
    while inbox.recv_many(&mut wishes, 1024).await > 0 {
        let mut sums: HashMap<(TenantId, &'static str), i64> = HashMap::new();
        for (tenant, kind, n, _) in &wishes {
            *sums.entry((*tenant, kind)).or_default() += n;
        }
        // A lost connection only loses numbers, so trying once more is safe; gaps are allowed.
        let lasts = wishes.iter().any(|(_, kind, ..)| IN_BLOCKS.contains(kind));
        let counted = match store::advance(&relaxed, &sums, lasts).await {
            Err(error) if error.is_transient() => store::advance(&relaxed, &sums, lasts).await,
            other => other,
        };
        match counted {
            Ok(mut firsts) => {
                for (tenant, kind, n, answer) in wishes.drain(..) {
                    let first = firsts.get_mut(&(tenant, kind)).map(|next| {
                        let first = *next;
                        *next += n;
                        first
                    });
                    // A caller that has gone away leaves a gap.
                    let _ =
                        answer.send(first.ok_or_else(|| ("the counter was not answered".to_owned(), false)));
                }
            }
            Err(error) => {
                let why = error.database().map_or_else(|| error.to_string(), ToString::to_string);
                let failure = (why, error.is_transient());
                for (_, _, _, answer) in wishes.drain(..) {
                    let _ = answer.send(Err(failure.clone()));
                }
            }
        }
    }
}
