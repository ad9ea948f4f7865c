//! The worker's binary: `worker` runs until SIGTERM or SIGINT, `worker solo` runs one turn that killed others.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use shared::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use worker::{Extras, START_PATIENCE, solo};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            tell(&error);
            return ExitCode::from(2);
        }
    };
    shared::telemetry::start("worker", &config);
    let run = || -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the worker could not run");
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let alone = std::env::args().nth(1).as_deref() == Some(solo::ARGUMENT);
    if let Some(armed) = &config.failpoint {
        shared::resilience::arm(armed).map_err(|why| anyhow::anyhow!("ALFRED_FAILPOINT: {why}"))?;
    }
    if !alone {
        solo::allow(std::env::current_exe()?);
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stop = async move || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
    let running = tokio::select! {
        started = start(config, alone) => started?,
        () = stop() => return Ok(()),
    };
    if alone {
        serve_alone(running, stop()).await;
        return Ok(());
    }
    stop().await;
    tracing::info!("stopping: no more claims; running turns finish or are handed over");
    running.stop().await;
    solo::stop();
    Ok(())
}

/// Until its one turn has ended, or until somebody wants this process to end first.
async fn serve_alone(mut running: worker::Running, told: impl Future<Output = ()>) {
    tokio::select! {
        () = running.ended() => {}
        () = told => running.hand_over().await,
        () = solo::parent_is_gone() => running.hand_over().await,
    }
}

/// Waits for a database that is not up yet, as it is when everything starts at once.
async fn start(config: Config, alone: bool) -> anyhow::Result<worker::Running> {
    let begun = std::time::Instant::now();
    loop {
        match worker::start(config.clone(), Extras { solo: alone, ..Extras::default() }).await {
            Ok(running) => return Ok(running),
            Err(error)
                if begun.elapsed() < START_PATIENCE
                    && error.downcast_ref::<shared::Error>().is_some_and(shared::Error::is_transient) =>
            {
                tracing::warn!(error = format!("{error:#}"), "the database does not answer yet");
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[expect(clippy::print_stderr, reason = "a start that fails is told to whoever started it")]
fn tell(what: &dyn std::fmt::Display) {
    eprintln!("worker: {what}");
}
