//! The process's hold on its turns: claiming, heartbeats, sweeping, and letting go.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::FutureExt;
use shared::{
    Error,
    events::Lease,
    ids::TurnId,
    turns::{Claimed, Claiming, Process, Released, TurnError},
};
use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Engine,
    turn::{self, Signals},
};

/// Turns taken with one claim, so that several processes share a burst.
const CLAIM_AT_ONCE: usize = 32;
/// How often an idle process looks for work that no bell announced.
const SLOW_LOOK: Duration = Duration::from_secs(10);
/// How often an idle process makes sure that it was not declared dead.
const IDLE_BEAT_EVERY: Duration = Duration::from_secs(60);
/// How often a busy process compares the turns that it runs with those the database says it runs.
const COMPARE_EVERY: Duration = Duration::from_secs(15);
/// How long a process that stops waits for the work beside its turns.
const LAST_TASKS: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_secs(2);
const IDLE_SWEEP_EVERY: Duration = Duration::from_secs(10);

/// What a process may do.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    /// The most turns at once.
    pub(crate) concurrency: usize,
    /// Runs one turn that killed processes before, then ends.
    pub(crate) solo: bool,
    /// Whether it sweeps.
    pub(crate) sweeps: bool,
    pub(crate) lease: Duration,
    pub(crate) drain: Duration,
    pub(crate) host: String,
    /// A connection for heartbeats alone: they wait behind no turn's work.
    pub(crate) pulse: PgPool,
}

/// Runs turns until told to stop.
pub(crate) struct Supervisor {
    engine: Arc<Engine>,
    role: Role,
    running: Mutex<HashMap<TurnId, (Lease, Signals)>>,
    process: Mutex<Process>,
    /// A turn ended, or the process became another.
    changed: Notify,
    stopping: CancellationToken,
    /// Everything at once and without a word, as kill -9 would.
    killed: CancellationToken,
    /// Hand over without waiting for turns to finish.
    hasten: CancellationToken,
}

impl Supervisor {
    pub(crate) async fn start(
        engine: Arc<Engine>,
        role: Role,
        stopping: CancellationToken,
        killed: CancellationToken,
        hasten: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let process = engine.turns.register_process(&role.host).await?;
        Ok(Arc::new(Self {
            engine,
            role,
            running: Mutex::default(),
            process: Mutex::new(process),
            changed: Notify::new(),
            stopping,
            killed,
            hasten,
        }))
    }

    /// Runs until stopped and drained.
    pub(crate) async fn run(self: Arc<Self>) {
        let killed = self.killed.clone();
        let loops = async {
            let beat =
                tokio::spawn(killed.clone().run_until_cancelled_owned(Arc::clone(&self).beat_forever()));
            let sweep =
                tokio::spawn(killed.clone().run_until_cancelled_owned(Arc::clone(&self).sweep_forever()));
            Arc::clone(&self).claim_until_stopped().await;
            sweep.abort();
            self.drain().await;
            beat.abort();
            self.engine.tasks.close();
            // What the ledger still holds is an estimate already, should the database be away.
            let _ = tokio::time::timeout(LAST_TASKS, self.engine.tasks.wait()).await;
            let process = self.process();
            if let Err(error) = self.engine.turns.unregister_process(process).await {
                tracing::warn!(error = %error, "the process's row stays behind");
            }
        };
        killed.run_until_cancelled(loops).await;
    }

    fn process(&self) -> Process {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<TurnId, (Lease, Signals)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn claim_until_stopped(self: Arc<Self>) {
        let mut after_error = false;
        let (mut beaten, mut compared) = (Instant::now(), Instant::now());
        while !self.stopping.is_cancelled() {
            let free = self.role.concurrency.saturating_sub(self.running().len());
            let mut claimed = 0;
            let limit = free.min(CLAIM_AT_ONCE);
            if limit > 0 {
                match self.claim(limit, after_error, &mut beaten, &mut compared).await {
                    Ok(count) => (claimed, after_error) = (count, false),
                    Err(error) => {
                        tracing::warn!(error = %error, "turns could not be claimed");
                        self.engine.contact.broken();
                        after_error = true;
                    }
                }
            }
            if self.role.solo && claimed == 0 && self.running().is_empty() {
                return;
            }
            if claimed == limit && limit > 0 {
                continue;
            }
            let pause = if after_error { Duration::from_millis(250) } else { SLOW_LOOK };
            tokio::select! {
                () = self.engine.wake.notified() => {}
                () = self.changed.notified(), if free == 0 || self.role.solo => {}
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    async fn claim(
        self: &Arc<Self>,
        limit: usize,
        after_error: bool,
        beaten: &mut Instant,
        compared: &mut Instant,
    ) -> Result<usize, Error> {
        let sent = Instant::now();
        let process = self.process();
        if after_error || (self.running().is_empty() && beaten.elapsed() > IDLE_BEAT_EVERY) {
            if !self.heartbeat(process).await? {
                self.become_another().await?;
            }
            *beaten = sent;
        }
        // A turn that this process let go of without a word would stay with it for as long as it lives.
        if after_error || (compared.elapsed() > COMPARE_EVERY && !self.running().is_empty()) {
            let known: Vec<TurnId> = self.running().keys().copied().collect();
            let forgotten = self.engine.turns.forgotten(self.process(), &known).await?;
            if forgotten > 0 {
                tracing::warn!(turns = forgotten, "turns of this process that it does not run go to others");
            }
            *compared = sent;
        }
        let claiming = Claiming { limit: i64::try_from(limit).unwrap_or(1), solo: self.role.solo };
        let claimed = self.engine.turns.claim(self.process(), claiming).await?;
        self.engine.contact.good(sent);
        let count = claimed.len();
        for turn in claimed {
            self.start_turn(turn);
        }
        Ok(count)
    }

    fn start_turn(self: &Arc<Self>, claimed: Claimed) {
        let signals = Signals::default();
        let lease = claimed.lease;
        self.running().insert(lease.turn, (lease, signals.clone()));
        let this = Arc::clone(self);
        tokio::spawn(self.killed.clone().run_until_cancelled_owned(async move {
            let engine = Arc::clone(&this.engine);
            let run = AssertUnwindSafe(turn::run(engine, claimed.clone(), signals)).catch_unwind();
            if run.await.is_err() {
                this.release_after_panic(&claimed).await;
            }
            let mut running = this.running();
            if running.get(&lease.turn).is_some_and(|(held, _)| *held == lease) {
                running.remove(&lease.turn);
            }
            drop(running);
            this.changed.notify_one();
        }));
    }

    async fn release_after_panic(&self, claimed: &Claimed) {
        let error = Error::internal("the turn's task panicked");
        tracing::error!(turn_id = %claimed.lease.turn, request_id = %claimed.request_id, "a run of the turn panicked");
        match self.engine.turns.release(claimed, Released::Failed(TurnError::from(&error))).await {
            Ok(_) => self.engine.claim_again_after(self.engine.turns.retry_delay(claimed)),
            Err(error) => {
                tracing::error!(error = %error, "a turn could not be given back; its lease will run out")
            }
        }
    }

    /// Gives up after the time between two: a connection that swallows what is sent must not keep the next beat from
    /// trying another, and the pool's pauses between attempts to connect grow, so that after an outage a process that
    /// came back late would look dead to one that came back early.
    async fn heartbeat(&self, process: Process) -> Result<bool, Error> {
        let beat = self.engine.turns.heartbeat(&self.role.pulse, process);
        match tokio::time::timeout(self.beat_every(), beat).await {
            Ok(beaten) => beaten,
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    fn beat_every(&self) -> Duration {
        self.role.lease / 5
    }

    async fn beat_forever(self: Arc<Self>) {
        let every = self.beat_every();
        loop {
            tokio::time::sleep(every).await;
            if self.running().is_empty() {
                continue;
            }
            let sent = Instant::now();
            match self.heartbeat(self.process()).await {
                Ok(true) => self.engine.contact.good(sent),
                Ok(false) => {
                    if let Err(error) = self.become_another().await {
                        tracing::warn!(error = %error, "no new name for this process yet");
                    }
                }
                Err(error) => {
                    self.engine.contact.broken();
                    tracing::warn!(error = %error, "a heartbeat failed");
                }
            }
        }
    }

    /// Others took this process for dead: what it held is theirs. It goes on under a name of its own.
    async fn become_another(&self) -> Result<(), Error> {
        let dropped: Vec<Signals> = self.running().drain().map(|(_, (_, signals))| signals).collect();
        tracing::error!(turns = dropped.len(), "this process was declared dead; its turns are dropped");
        for signals in dropped {
            signals.lost.cancel();
        }
        let process = self.engine.turns.register_process(&self.role.host).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    async fn sweep_forever(self: Arc<Self>) {
        let mut unfinished = true;
        loop {
            let pause = if unfinished { SWEEP_EVERY.min(self.role.lease / 4) } else { IDLE_SWEEP_EVERY };
            let (asleep, wall) = (Instant::now(), SystemTime::now());
            tokio::time::sleep(pause).await;
            // Whoever was stopped itself, with the machine or alone, cannot tell who else was: it judges nobody until
            // all have had a lease's time to be heard. A machine that sleeps shows on the wall clock only.
            let slept = asleep.elapsed().max(wall.elapsed().unwrap_or_default());
            if slept > pause + self.role.lease / 4 {
                self.engine.contact.broken();
            }
            if !self.role.sweeps {
                continue;
            }
            let sent = Instant::now();
            match self.engine.turns.sweep(self.engine.contact.is_unbroken()).await {
                Ok(swept) => {
                    self.engine.contact.good(sent);
                    unfinished = swept.unfinished || !self.running().is_empty();
                }
                Err(error) => {
                    // An answer that is an error is contact all the same.
                    if error.is_transient() {
                        self.engine.contact.broken();
                    }
                    tracing::warn!(error = %error, "a sweep failed; the next one makes up for it");
                }
            }
            if unfinished {
                self.spawn_solo_if_needed().await;
            }
        }
    }

    /// A turn that killed two processes runs in one of its own, so that it kills no neighbours.
    async fn spawn_solo_if_needed(&self) {
        if self.role.solo || !self.engine.turns.solo_waiting().await.unwrap_or(false) {
            return;
        }
        crate::solo::spawn();
    }

    async fn drain(&self) {
        let deadline = Instant::now() + self.role.drain;
        let mut told = false;
        loop {
            let left = self.running().len();
            if left == 0 {
                return;
            }
            if !told && (Instant::now() >= deadline || self.hasten.is_cancelled()) {
                tracing::info!(turns = left, "handing over the turns that are still running");
                for (_, signals) in self.running().values() {
                    signals.hand_over.cancel();
                }
                told = true;
            }
            let until = if told { Instant::now().max(deadline) + Duration::from_secs(10) } else { deadline };
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.hasten.cancelled(), if !told => {}
                () = tokio::time::sleep_until(until) => {
                    if told {
                        tracing::error!(turns = left, "turns could not be handed over in time; others take them over");
                        return;
                    }
                }
            }
        }
    }
}
