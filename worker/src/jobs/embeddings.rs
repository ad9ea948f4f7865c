//! The queue `embeddings`: when it is told to look, and what it does then. What is to be embedded is on a list of ours; a
//! ticket only says that there is some.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use shared::{
    Error,
    bell::{Bell, Heard, Hearing},
    db::TenantDb,
    jobs::EMBEDDINGS,
    model::embeddings::Embedder,
    switches::Switches,
    workspace::embeddings,
};
use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long changes are gathered before a ticket is written.
const GATHERS: Duration = Duration::from_millis(250);
/// How often a process looks by itself: for what turns wrote, and what was not heard of.
const LOOKS: Duration = Duration::from_secs(30);
/// How long one ticket works; what is left then gets another.
const WORKS: Duration = Duration::from_secs(120);

/// What embeds items.
#[derive(Clone)]
pub(crate) struct Embedding {
    pub(crate) embedder: Embedder,
    pub(crate) tenants: TenantDb,
}

/// Works until nothing is due, the model fails, or the time is over.
pub(crate) async fn run(engine: &PgPool, embedding: &Embedding) -> Result<(), Error> {
    let until = Instant::now() + WORKS;
    let mut embedded = 0;
    while Instant::now() < until {
        let round = embeddings::round(engine, &embedding.tenants, &embedding.embedder).await?;
        embedded += round.embedded;
        if round.taken == 0 || round.failed > 0 {
            break;
        }
    }
    if embedded > 0 {
        tracing::info!(items = embedded, "items were embedded");
    }
    Ok(())
}

/// Says which model embeds, or that none does, until the database has heard it.
pub(crate) async fn announce(engine: PgPool, model: Option<String>, stopping: CancellationToken) {
    while let Err(error) = embeddings::announce(&engine, model.as_deref()).await {
        tracing::warn!(error = %error, "the model of embeddings was not announced; trying again");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Writes tickets when items changed, when something put off is due, and from time to time.
pub(crate) async fn watch(
    engine: PgPool,
    bell: Bell,
    told: Arc<Notify>,
    switches: Switches,
    stopping: CancellationToken,
) {
    let mut hearing = bell.subscribe();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = changes(&mut hearing) => {}
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
        // While the queue is paused its tickets would only pile up.
        let gathered = async {
            tokio::time::sleep(GATHERS).await;
            switches.until_running(EMBEDDINGS).await;
        };
        tokio::select! {
            () = gathered => {}
            () = stopping.cancelled() => return,
        }
        pause = match look(&engine).await {
            Ok((wrote, pause)) => {
                if wrote {
                    told.notify_one();
                }
                pause
            }
            Err(error) => {
                tracing::warn!(error = %error, "items to embed were not looked for; trying again");
                LOOKS
            }
        };
    }
}

/// Writes a ticket if something is due; answers whether it did, and when to look again.
async fn look(engine: &PgPool) -> Result<(bool, Duration), Error> {
    let more = embeddings::backfill(engine).await?;
    let wrote = match embeddings::due_in(engine).await? {
        None => return Ok((false, LOOKS)),
        Some(wait) if !wait.is_zero() => return Ok((false, if more { GATHERS } else { wait.min(LOOKS) })),
        Some(_) => {
            super::store::push_tick(engine, EMBEDDINGS, EMBEDDINGS, Utc::now().timestamp_millis() / 250)
                .await?
        }
    };
    // While the ticket is worked on, its items are not due; whoever wrote it for this moment may have been too early.
    Ok((wrote, if more || !wrote { GATHERS } else { Duration::from_secs(2) }))
}

async fn changes(hearing: &mut Hearing) {
    loop {
        if matches!(hearing.next().await, Heard::Changes(_) | Heard::Reconnected) {
            return;
        }
    }
}
