//! The floor: only the work of Postgres that a durable, streamed turn cannot do without. No HTTP, no model, no tools, no
//! tenants, no leases, no recovery.
//!
//! Accept (message, turn and event in one transaction), ring, claim, 34 events appended as they come (one flush in
//! flight, which collects what waits), done, and a reader that is rung and selects. Same sqlx, same server, same machine.

mod store;

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

use self::store::Row;

/// Events between the first and `done`: a tool's call and result, and 32 tokens.
const EVENTS: i64 = 34;

/// How long one turn took.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloorTurn {
    pub(super) accepted: Duration,
    pub(super) first_token: Duration,
    pub(super) done: Duration,
}

/// A running floor program, on threads of its own.
pub(super) struct Floor {
    runtime: Background,
    inner: Arc<Inner>,
}

/// A runtime that may end anywhere, also where an error is on its way out: one that is just dropped waits for its threads,
/// which a thread of another runtime may not, and the error would be lost for a panic.
struct Background(Option<Runtime>);

impl Background {
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.0.as_ref().context("the floor has stopped")?.spawn(work).await?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Inner {
    pool: PgPool,
    appends: mpsc::UnboundedSender<Append>,
    rings: mpsc::UnboundedSender<Ring>,
    followers: Mutex<HashMap<Uuid, Follower>>,
}

enum Append {
    Row(Row),
    /// Answered once everything before it is durable.
    Flushed(oneshot::Sender<()>),
}

enum Ring {
    Work,
    Events(Uuid),
}

struct Follower {
    after: i64,
    first_token: Option<Instant>,
    done: Option<oneshot::Sender<(Instant, Instant)>>,
}

impl Floor {
    /// Makes its tables and starts its tasks.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn start(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let url = url.to_owned();
        let runtime = Background(Some(runtime));
        let inner = runtime.run(async move { Inner::start(&url).await }).await?;
        Ok(Self { runtime, inner })
    }

    /// Runs one turn.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn turn(&self) -> Result<FloorTurn> {
        let inner = Arc::clone(&self.inner);
        self.runtime.run(async move { inner.turn().await }).await
    }

    /// Runs turns at this concurrency for so long and answers how many ended.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn load(
        &self,
        conversations: usize,
        length: Duration,
    ) -> Result<(usize, Vec<FloorTurn>)> {
        let inner = Arc::clone(&self.inner);
        self.runtime.run(async move { load(inner, conversations, length).await }).await
    }

    /// Ends its tasks and connections.
    pub(super) async fn stop(self) {
        self.inner.pool.close().await;
    }
}

async fn load(inner: Arc<Inner>, conversations: usize, length: Duration) -> Result<(usize, Vec<FloorTurn>)> {
    let until = Instant::now() + length;
    let mut users = JoinSet::new();
    for _ in 0..conversations {
        let inner = Arc::clone(&inner);
        users.spawn(async move {
            let mut turns = Vec::new();
            while Instant::now() < until {
                turns.push(inner.turn().await?);
            }
            anyhow::Ok(turns)
        });
    }
    let mut all = Vec::new();
    while let Some(turns) = users.join_next().await {
        all.extend(turns??);
    }
    Ok((all.len(), all))
}

impl Inner {
    async fn start(url: &str) -> Result<Arc<Self>> {
        let options = PgConnectOptions::from_str(url)?.application_name("floor");
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .context("the floor's database")?;
        store::make_tables(&pool).await?;
        let mut listener = PgListener::connect(url).await?;
        listener.listen("floor").await?;
        let (appends, to_append) = mpsc::unbounded_channel();
        let (rings, to_ring) = mpsc::unbounded_channel();
        let (work, to_claim) = mpsc::unbounded_channel();
        let (told, to_read) = mpsc::unbounded_channel();
        let inner = Arc::new(Self { pool, appends, rings, followers: Mutex::default() });
        tokio::spawn(ring(Arc::clone(&inner), to_ring));
        tokio::spawn(append(Arc::clone(&inner), to_append));
        tokio::spawn(claim(Arc::clone(&inner), to_claim));
        tokio::spawn(read(Arc::clone(&inner), to_read));
        tokio::spawn(async move {
            while let Ok(heard) = listener.recv().await {
                for word in heard.payload().split(',') {
                    match word.parse() {
                        Ok(turn) => drop(told.send(turn)),
                        Err(_) => drop(work.send(())),
                    }
                }
            }
        });
        Ok(inner)
    }

    async fn turn(&self) -> Result<FloorTurn> {
        let begun = Instant::now();
        let (turn, conversation) = (Uuid::now_v7(), Uuid::now_v7());
        let (done, seen) = oneshot::channel();
        self.followers().insert(turn, Follower { after: 0, first_token: None, done: Some(done) });
        store::accept(&self.pool, turn, conversation, "a message of about forty bytes of text").await?;
        let accepted = begun.elapsed();
        let _ = self.rings.send(Ring::Work);
        let (first_token, done) = seen.await.context("the floor's reader has ended")?;
        Ok(FloorTurn { accepted, first_token: first_token - begun, done: done - begun })
    }

    /// What a worker does once it holds a turn.
    async fn run(&self, turn: Uuid) -> Result<()> {
        for number in 0..EVENTS {
            let (kind, data) = match number {
                0 => ("tool_call", r#"{"id":"call_1","tool":"list_tasks","arguments":{}}"#.to_owned()),
                1 => ("tool_result", r#"{"id":"call_1","tool":"list_tasks","elapsedMs":0}"#.to_owned()),
                _ => ("token", format!(r#"{{"text":"t{number} "}}"#)),
            };
            let _ = self.appends.send(Append::Row(Row { turn, seq: number + 2, kind, data }));
        }
        let (flushed, is_flushed) = oneshot::channel();
        let _ = self.appends.send(Append::Flushed(flushed));
        is_flushed.await.context("the floor's appender has ended")?;
        store::finish(&self.pool, turn, EVENTS + 2).await?;
        let _ = self.rings.send(Ring::Events(turn));
        Ok(())
    }

    fn followers(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Follower>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing and whatever else waits behind it.
async fn some<T>(inbox: &mut mpsc::UnboundedReceiver<T>) -> Option<Vec<T>> {
    let mut batch = vec![inbox.recv().await?];
    while let Ok(more) = inbox.try_recv() {
        batch.push(more);
    }
    Some(batch)
}

/// One NOTIFY in flight, for everybody who wants to ring.
async fn ring(inner: Arc<Inner>, mut inbox: mpsc::UnboundedReceiver<Ring>) -> Result<()> {
    while let Some(batch) = some(&mut inbox).await {
        let mut words: Vec<String> = batch
            .iter()
            .map(|ring| match ring {
                Ring::Work => "work".to_owned(),
                Ring::Events(turn) => turn.to_string(),
            })
            .collect();
        words.sort_unstable();
        words.dedup();
        // A payload has at most 7 999 bytes.
        for chunk in words.chunks(200) {
            store::ring(&inner.pool, &chunk.join(",")).await?;
        }
    }
    Ok(())
}

/// One flush in flight, for the events of all turns.
async fn append(inner: Arc<Inner>, mut inbox: mpsc::UnboundedReceiver<Append>) -> Result<()> {
    while let Some(batch) = some(&mut inbox).await {
        let (mut rows, mut flushed) = (Vec::new(), Vec::new());
        for append in batch {
            match append {
                Append::Row(row) => rows.push(row),
                Append::Flushed(answer) => flushed.push(answer),
            }
        }
        if !rows.is_empty() {
            store::append(&inner.pool, &rows).await?;
        }
        for answer in flushed {
            let _ = answer.send(());
        }
        for row in rows {
            let _ = inner.rings.send(Ring::Events(row.turn));
        }
    }
    Ok(())
}

async fn claim(inner: Arc<Inner>, mut inbox: mpsc::UnboundedReceiver<()>) -> Result<()> {
    while some(&mut inbox).await.is_some() {
        for turn in store::claim(&inner.pool, 1000).await? {
            let inner = Arc::clone(&inner);
            tokio::spawn(async move { inner.run(turn).await });
        }
    }
    Ok(())
}

/// One read in flight, for all who follow.
async fn read(inner: Arc<Inner>, mut inbox: mpsc::UnboundedReceiver<Uuid>) -> Result<()> {
    while let Some(mut told) = some(&mut inbox).await {
        told.sort_unstable();
        told.dedup();
        let wanted: Vec<(Uuid, i64)> = {
            let followers = inner.followers();
            told.iter().filter_map(|turn| Some((*turn, followers.get(turn)?.after))).collect()
        };
        if wanted.is_empty() {
            continue;
        }
        let rows = store::read(&inner.pool, &wanted).await?;
        let now = Instant::now();
        let mut followers = inner.followers();
        for (turn, seq, kind, _) in rows {
            let Some(follower) = followers.get_mut(&turn) else { continue };
            follower.after = seq;
            if kind == "token" && follower.first_token.is_none() {
                follower.first_token = Some(now);
            }
            if kind == "done"
                && let Some(mut follower) = followers.remove(&turn)
                && let Some(done) = follower.done.take()
            {
                let _ = done.send((follower.first_token.unwrap_or(now), now));
            }
        }
    }
    Ok(())
}
