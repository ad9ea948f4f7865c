//! Running a test on a stack: bounded in time, with the processes' logs when it fails.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use harness::stack::{Builder, ModelChoice, Stack};

/// The longest that any single thing may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Starts the stack, runs the test, and has the oracle expect that all went well unless the test judged by itself.
pub(crate) async fn run(builder: Builder, test: impl AsyncFnOnce(&mut Stack) -> Result<()>) -> Result<()> {
    let mut stack = builder.start().await.context("the stack does not start")?;
    match tokio::time::timeout(Duration::from_secs(120), test(&mut stack)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(anyhow!("{error:#}\n{}", stack.logs())),
        Err(_) => Err(anyhow!("the test is not over after two minutes\n{}", stack.logs())),
    }
}

/// A stack within the test's process, with the model stand-in.
pub(crate) fn here() -> Builder {
    Stack::builder().in_process()
}

/// A stack within the test's process, with the offline model at full speed.
pub(crate) fn offline() -> Builder {
    Stack::builder().in_process().model(ModelChoice::Offline { delay_ms: 0 })
}

/// A stack of real processes, with the model stand-in.
pub(crate) fn processes() -> Builder {
    Stack::builder()
}

/// Fails with this sentence and both values, when they differ.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($what:tt)+) => {
        // A match keeps temporaries of both sides alive.
        match (&$left, &$right) {
            (left, right) => anyhow::ensure!(left == right, "{}: {left:?} is not {right:?}", format!($($what)+)),
        }
    };
}
pub(crate) use ensure_eq;
