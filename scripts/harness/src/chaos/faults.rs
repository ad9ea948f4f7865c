//! What can break.

use std::time::Duration;

use anyhow::Result;
use rand::{RngExt, rngs::StdRng};

use crate::{postgres::Stop, proxy::Mode, stack::Stack};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// One thing that breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// For people.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// A worker dies at once.
    WorkerKilled = "kill -9 a worker";
    /// A worker sleeps past its lease and wakes up.
    WorkerPaused = "SIGSTOP a worker past its lease";
    /// A worker is replaced in good order.
    WorkerReplaced = "SIGTERM a worker";
    /// An API process dies at once.
    ApiKilled = "kill -9 an api";
    /// An API process is replaced in good order.
    ApiReplaced = "SIGTERM an api";
    /// Postgres is restarted.
    PostgresRestarted = "restart Postgres";
    /// Postgres crashes and recovers.
    PostgresCrashed = "crash Postgres";
    /// Postgres is away for longer than the lease.
    PostgresAway = "Postgres away past the lease";
    /// Listening connections end.
    ListenersCut = "cut the listeners";
    /// All connections end.
    EverybodyCut = "cut all connections";
    /// Some commits happen and nobody hears of it.
    RepliesLost = "lose replies to COMMIT";
    /// The network swallows everything for a while.
    Silence = "black-hole the network";
    /// The network is slow for a while.
    Slowness = "slow the network";
}

impl Fault {
    /// Any of them; those that stop everything come less often.
    pub fn any(random: &mut StdRng) -> Self {
        loop {
            let fault = Self::ALL[random.random_range(0..Self::ALL.len())];
            let rare = matches!(fault, Self::PostgresAway | Self::PostgresCrashed | Self::PostgresRestarted);
            if !rare || random.random_bool(0.4) {
                return fault;
            }
        }
    }

    /// Does it, and mends what would not mend by itself.
    pub(super) async fn commit(self, stack: &mut Stack, random: &mut StdRng) -> Result<()> {
        let worker = random.random_range(0..stack.workers.len());
        let api = random.random_range(0..stack.apis.len());
        match self {
            Self::WorkerKilled => {
                stack.workers[worker].kill();
                stack.workers.remove(worker);
                stack.start_worker(&[]).await?;
            }
            Self::WorkerPaused => {
                stack.workers[worker].real().signal("STOP")?;
                tokio::time::sleep(Duration::from_millis(random.random_range(500..5000))).await;
                stack.workers[worker].real().signal("CONT")?;
            }
            Self::WorkerReplaced => {
                stack.start_worker(&[]).await?;
                stack.workers[worker].stop().await?;
                stack.workers.remove(worker);
            }
            Self::ApiKilled => {
                stack.apis[api].real().kill();
                stack.restart_api(api).await?;
            }
            Self::ApiReplaced => {
                stack.apis[api].stop().await?;
                stack.restart_api(api).await?;
            }
            Self::PostgresRestarted => stack.database.cluster().restart(Stop::Fast).await?,
            Self::PostgresCrashed => stack.database.cluster().restart(Stop::Immediate).await?,
            Self::PostgresAway => {
                stack.database.cluster().stop(Stop::Immediate).await?;
                tokio::time::sleep(Duration::from_millis(random.random_range(2500..5000))).await;
                stack.database.cluster().start_again().await?;
            }
            Self::ListenersCut => {
                stack.database.cut_listeners().await.ok();
            }
            Self::EverybodyCut => {
                stack.database.cut_everybody().await.ok();
            }
            Self::RepliesLost => stack.proxy().lose_replies_to("commit", random.random_range(1..4)),
            Self::Silence => {
                stack.proxy().mode(Mode::BlackHole);
                tokio::time::sleep(Duration::from_millis(random.random_range(300..3500))).await;
                stack.proxy().mode(Mode::Pass);
            }
            Self::Slowness => {
                stack.proxy().mode(Mode::Delay(Duration::from_millis(random.random_range(5..60))));
                tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
                stack.proxy().mode(Mode::Pass);
            }
        }
        Ok(())
    }
}

/// Leaves everything running.
pub(super) async fn mend(stack: &mut Stack) -> Result<()> {
    stack.proxy().mode(Mode::Pass);
    let mut ended = Vec::new();
    for (index, worker) in stack.workers.iter_mut().enumerate() {
        worker.real().signal("CONT")?;
        if worker.real().ended().is_some() {
            ended.push(index);
        }
    }
    for index in ended.into_iter().rev() {
        stack.workers.remove(index);
        stack.start_worker(&[]).await?;
    }
    for index in 0..stack.apis.len() {
        if stack.apis[index].real().ended().is_some() {
            stack.restart_api(index).await?;
        }
    }
    Ok(())
}
