//! A process of its own for a turn that killed others: one at a time per parent, the same program with one more word.

use std::{
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// The word that makes this program run one such turn and end.
pub const ARGUMENT: &str = "solo";

static CHILD: LazyLock<AtomicBool> = LazyLock::new(AtomicBool::default);
static PROGRAM: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

/// Says which program can run a turn by itself; unless somebody did, such turns stay where they are.
pub fn allow(program: std::path::PathBuf) {
    let _ = PROGRAM.set(program);
}

/// Starts the child unless one runs.
pub(crate) fn spawn() {
    let Some(program) = PROGRAM.get() else { return };
    if CHILD.swap(true, Ordering::SeqCst) {
        return;
    }
    tracing::warn!("a turn that ended two processes gets one of its own");
    let started = Command::new(program).arg(ARGUMENT).stdin(Stdio::null()).spawn();
    match started {
        Ok(mut child) => {
            // Waiting is a thread's work: the child may take as long as a turn may.
            std::thread::spawn(move || {
                let ended = child.wait();
                tracing::info!(status = ?ended.map(|status| status.to_string()), "the process of its own ended");
                CHILD.store(false, Ordering::SeqCst);
            });
        }
        Err(error) => {
            tracing::error!(error = %error, "a process of its own could not be started");
            CHILD.store(false, Ordering::SeqCst);
        }
    }
}
