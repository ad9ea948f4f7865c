//! What helps when others fail ([`Breaker`]), and named places where a test may stop or pause the process. Unless a process was told a point at its start, which only
//! `APP_ENV=test` may do, each place is one load of an empty cell.

mod breaker;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

pub use self::breaker::{Breaker, BreakerSettings, Leave};

static ARMED: OnceLock<Failpoint> = OnceLock::new();

/// What happens when the point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The process ends at once, without unwinding: what kill -9 does.
    Abort,
    /// The kernel stops the whole process until somebody sends SIGCONT: a machine that sleeps.
    Stop,
    /// This task stands still for that long; the process lives on.
    Pause(Duration),
}

#[derive(Debug)]
struct Failpoint {
    name: String,
    action: Action,
    /// Times to pass before it acts; it acts once.
    left: AtomicI64,
}

const FORM: &str = "is not name[:n]=abort, name[:n]=stop or name[:n]=pause:MILLISECONDS";

/// Arms one point of this process: `name[:n]=abort`, `name[:n]=stop` or `name[:n]=pause:MILLISECONDS`, acting the n-th
/// time (1).
///
/// # Errors
/// A sentence, when the text is not of that form.
pub fn arm(text: &str) -> Result<(), String> {
    let (place, action) = text.split_once('=').ok_or(FORM)?;
    let (name, nth) = match place.split_once(':') {
        Some((name, nth)) => (name, nth.parse().map_err(|_| "has a count that is not a number")?),
        None => (place, 1),
    };
    let action = match action.split_once(':') {
        None if action == "abort" => Action::Abort,
        Some(("pause", time)) => Action::Pause(Duration::from_millis(
            time.parse().map_err(|_| "has a pause that is not a number")?,
        )),
        None if action == "stop" => Action::Stop,
        _ => return Err(FORM.to_owned()),
    };
    ARMED
        .set(Failpoint { name: name.to_owned(), action, left: AtomicI64::new(nth) })
        .map_err(|_| "was set twice".to_owned())
}

/// A place where a test may stop or pause the process.
#[expect(clippy::disallowed_methods, reason = "the thread is to stand still until the process does")]
pub async fn failpoint(name: &str) {
    let Some(armed) = ARMED.get() else { return };
    if armed.name != name || armed.left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    match armed.action {
        Action::Abort => std::process::abort(),
        Action::Stop => {
            // Through the `kill` program: sending a signal oneself takes unsafe code.
            let own = std::process::id().to_string();
            if let Err(error) = std::process::Command::new("kill").args(["-STOP", &own]).status() {
                tracing::error!(%error, "the process could not be stopped at a failpoint");
            }
            // The signal goes to any thread, which on a busy machine may be a while from taking it: this one goes no further
            // before that.
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        Action::Pause(time) => tokio::time::sleep(time).await,
    }
}
