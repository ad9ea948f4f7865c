//! The worker as it is, with tools that ring a fake server at `OUTSIDE_URL`: for tests of what happens to calls beyond
//! the database when their worker dies.

use anyhow::{Result, anyhow};
use shared::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use worker::{Extras, solo};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("OUTSIDE_URL").unwrap_or_default();
    let alone = std::env::args().nth(1).as_deref() == Some(solo::ARGUMENT);
    let config = Config::from_env()?;
    shared::telemetry::start("worker", &config);
    if let Some(armed) = &config.failpoint {
        shared::resilience::arm(armed).map_err(|why| anyhow!("ALFRED_FAILPOINT: {why}"))?;
    }
    if !alone {
        solo::allow(std::env::current_exe()?);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let pages = url.clone();
    let extras = Extras {
        tools: harness::fakes::outside::tools(&url),
        cached_tools: Some(Box::new(move |cache| harness::fakes::outside::cached_tools(&pages, cache))),
        solo: alone,
    };
    let mut running = worker::start(config, extras).await?;
    if alone {
        tokio::select! {
            () = running.ended() => {}
            _ = terminate.recv() => running.hand_over().await,
            () = solo::parent_is_gone() => running.hand_over().await,
        }
    } else {
        terminate.recv().await;
        running.stop().await;
        solo::stop();
    }
    Ok(())
}
