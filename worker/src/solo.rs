//! A process of its own for a turn that killed others: one at a time per parent, the same program with one more word.
//!
//! The child's standard input is a pipe from its parent. When it ends, because the parent stops or dies, the child hands
//! its turn over and ends as well, so no process is left behind.

use std::{
    io::Read,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Condvar, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// The word that makes this program run one such turn and end.
pub const ARGUMENT: &str = "solo";

/// How long a stopping parent waits for its child to hand over.
const PATIENCE: Duration = Duration::from_secs(10);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
static CHILD: Mutex<Child> = Mutex::new(Child { runs: false, pipe: None });
static ENDED: Condvar = Condvar::new();

/// The child of this process.
struct Child {
    runs: bool,
    /// Its standard input; dropping it tells the child to hand over.
    pipe: Option<ChildStdin>,
}

/// Says which program can run a turn by itself; unless somebody did, such turns stay where they are.
pub fn allow(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// Starts the child unless one runs.
pub(crate) fn spawn() {
    let Some(program) = PROGRAM.get() else { return };
    let mut child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    if child.runs {
        return;
    }
    tracing::warn!("a turn that ended two processes gets one of its own");
    let started = Command::new(program).arg(ARGUMENT).stdin(Stdio::piped()).spawn();
    match started {
        Ok(mut process) => {
            *child = Child { runs: true, pipe: process.stdin.take() };
            // Waiting is a thread's work: the child may take as long as a turn may.
            std::thread::spawn(move || {
                let ended = process.wait().map(|status| status.to_string());
                tracing::info!(status = ?ended, "the process of its own ended");
                *CHILD.lock().unwrap_or_else(PoisonError::into_inner) = Child { runs: false, pipe: None };
                ENDED.notify_all();
            });
        }
        Err(error) => tracing::error!(error = %error, "a process of its own could not be started"),
    }
}

/// In the parent: tells the child to hand over, and waits for its end.
pub fn stop() {
    let mut child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    child.pipe = None;
    let _ = ENDED.wait_timeout_while(child, PATIENCE, |child| child.runs);
}

/// In the child: resolves when the parent stops or is gone.
pub async fn parent_is_gone() {
    let (gone, told) = oneshot::channel();
    // A blocking read belongs on a thread; it ends with the process.
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        while matches!(std::io::stdin().lock().read(&mut nothing), Ok(1..)) {}
        let _ = gone.send(());
    });
    let _ = told.await;
}
