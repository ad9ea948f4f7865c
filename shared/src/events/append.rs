//! The appending task of a process: one flush in flight, merging the events of all running turns.
//!
//! Of each turn in a flush the database says whether the lease still held. A turn that is missing from the answer was
//! either locked (its rows wait for the next flush) or taken by another attempt (it stops here). Losing the reply is
//! safe: the same rows go again, and those that are there are passed over. A batch that Postgres refuses for its data
//! is halved until the culprit stands alone; only that turn fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgPool;

use super::log::{OpenTurn, Row, Shared, Stop};
use crate::{
    bell::{Heard, Hearing, Ring},
    db::OwnConnection,
    error::{Error, Result},
    events::{Lease, store},
};

/// Bytes of one statement, more or less.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long to wait for a reply before asking again on another connection.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the rows of a turn that somebody else has locked wait before they are tried again.
const LOCKED_DELAY: Duration = Duration::from_millis(10);

type Batch = Vec<(Arc<OpenTurn>, Vec<Row>)>;

pub(super) async fn run(shared: Arc<Shared>, engine: PgPool) {
    let mut connection = OwnConnection::like(&engine);
    loop {
        shared.wake.notified().await;
        loop {
            let batch = shared.take_batch(MAX_BATCH_BYTES);
            if batch.is_empty() {
                break;
            }
            flush(&shared, &engine, &mut connection, batch).await;
        }
    }
}

async fn flush(shared: &Arc<Shared>, engine: &PgPool, connection: &mut OwnConnection, batch: Batch) {
    let mut todo = vec![batch];
    while let Some(mut batch) = todo.pop() {
        let started = Instant::now();
        match write(connection, &mut batch).await {
            Ok(kept) => {
                metrics::histogram!("event_flush_seconds").record(started.elapsed());
                metrics::histogram!("event_flush_rows")
                    .record(batch.iter().map(|(_, rows)| rows.len()).sum::<usize>() as f64);
                settle(shared, engine, batch, &kept).await;
            }
            Err(error) if batch.len() == 1 => {
                for (turn, _) in batch {
                    // The code only: the detail of a refused row may quote what somebody said.
                    tracing::error!(%error, sqlstate = sqlstate(&error), turn_id = %turn.lease.turn, "an event was refused");
                    turn.stop(Stop::Refused(error.to_string().into()));
                }
            }
            Err(_) => {
                let second = batch.split_off(batch.len() / 2);
                todo.push(second);
                todo.push(batch);
            }
        }
    }
}

/// Writes the batch, however long the database is away; turns whose caller lets go are left out. Answers which turns
/// (by position) still held their lease, and whether cancel was asked of them.
///
/// # Errors
/// Only for data that Postgres refuses.
async fn write(connection: &mut OwnConnection, batch: &mut Batch) -> Result<Vec<(i64, bool)>> {
    let mut backoff = Duration::ZERO;
    loop {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let append = async {
            let mut engine = connection.take().await?;
            let kept = store::append(&mut engine, batch).await?;
            connection.keep(engine);
            Ok(kept)
        };
        let failed = match tokio::time::timeout(PATIENCE, append).await {
            Ok(Ok(kept)) => return Ok(kept),
            Ok(Err(error)) if is_refusal(&error) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => Error::internal("no answer within 20 s"),
        };
        if backoff.is_zero() {
            tracing::warn!(error = %failed, source = ?failed.database(), "cannot append events; trying again");
        }
        backoff = (backoff * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
        tokio::time::sleep(backoff).await;
        batch.retain(|(turn, _)| !turn.is_stopped());
    }
}

/// Classes 22 (data) and 23 (integrity): the same rows would be refused again.
fn is_refusal(error: &Error) -> bool {
    matches!(sqlstate(error).get(..2), Some("22" | "23"))
}

/// The SQLSTATE of a database's error; empty when there is none.
fn sqlstate(error: &Error) -> String {
    let code = error.database().and_then(sqlx::Error::as_database_error).and_then(|database| database.code());
    code.map(|code| code.into_owned()).unwrap_or_default()
}

async fn settle(shared: &Arc<Shared>, engine: &PgPool, batch: Batch, kept: &[(i64, bool)]) {
    let mut fates: Vec<Option<bool>> = vec![None; batch.len()];
    for (position, cancelled) in kept {
        if let Some(fate) = usize::try_from(position - 1).ok().and_then(|at| fates.get_mut(at)) {
            *fate = Some(*cancelled);
        }
    }
    let (mut rings, mut missing) = (Vec::with_capacity(kept.len()), Vec::new());
    for ((turn, rows), fate) in batch.into_iter().zip(fates) {
        let Some(cancelled) = fate else {
            missing.push((turn, rows));
            continue;
        };
        turn.settle(&rows);
        if cancelled {
            turn.cancel();
        }
        if let Some(last) = rows.last() {
            rings.push(Ring::Events { tenant: turn.lease.tenant, turn: turn.lease.turn, tail: last.seq });
        }
    }
    shared.bell.ring_all(rings);
    if !missing.is_empty() {
        part(shared, engine, missing).await;
    }
}

/// Parts the turns that were only locked from those that another attempt has.
async fn part(shared: &Arc<Shared>, engine: &PgPool, missing: Batch) {
    let leases: Vec<Lease> = missing.iter().map(|(turn, _)| turn.lease).collect();
    // When this read fails, the next flush tells.
    let held = store::held(engine, &leases).await.ok();
    let mut locked = Vec::new();
    for (position, (turn, rows)) in (1..).zip(missing) {
        let fate = held.as_ref().map(|held| held.iter().find(|(held, _)| *held == position));
        match fate {
            Some(None) => turn.stop(Stop::Fenced),
            Some(Some((_, true))) => {
                turn.cancel();
                turn.put_back(rows);
                locked.push(turn);
            }
            Some(Some((_, false))) | None => {
                turn.put_back(rows);
                locked.push(turn);
            }
        }
    }
    if !locked.is_empty() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::time::sleep(LOCKED_DELAY).await;
            locked.iter().for_each(|turn| shared.line_up_again(turn));
        });
    }
}

/// Listens for cancels. After a time of deafness it looks at all open turns once.
pub(super) async fn hear(shared: Arc<Shared>, engine: PgPool, mut hearing: Hearing) {
    loop {
        match hearing.next().await {
            Heard::Cancel(turns) => {
                turns.iter().filter_map(|turn| shared.open_turn(*turn)).for_each(|turn| turn.cancel())
            }
            Heard::Reconnected => look(&shared, &engine).await,
            Heard::Events(_)
            | Heard::Turns(_)
            | Heard::Work
            | Heard::Changes(_)
            | Heard::Cache(_)
            | Heard::Contexts(_)
            | Heard::Deliveries
            | Heard::Switches => {}
        }
    }
}

async fn look(shared: &Shared, engine: &PgPool) {
    let open = shared.open_turns();
    for turns in open.chunks(1000) {
        let leases: Vec<Lease> = turns.iter().map(|turn| turn.lease).collect();
        // Each flush asks the same; a failure here costs a delay.
        let Ok(held) = store::held(engine, &leases).await else { return };
        for (position, turn) in (1..).zip(turns) {
            match held.iter().find(|(held, _)| *held == position) {
                Some((_, true)) => turn.cancel(),
                Some((_, false)) => {}
                None => turn.stop(Stop::Fenced),
            }
        }
    }
}
