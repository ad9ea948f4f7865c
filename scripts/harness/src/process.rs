//! Real processes of ours, started, stopped, paused and killed by their pid, and always reaped.
//!
//! Signals go through the `kill` program, because sending one takes unsafe code and nothing here is worth that.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// A child process with its log in a file.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// The path of one of the product's binaries: in `ALFRED_BIN_DIR`, or beside the running test or program.
///
/// # Errors
/// It is not there; the message says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("ALFRED_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe().context("no path of the running program")?;
            let folder = own.parent().context("a program lies in a folder")?;
            // Tests lie in target/<profile>/deps, programs in target/<profile>.
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned()
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: run `cargo build -p api -p worker`, or set ALFRED_BIN_DIR to the folder that has it",
            path.display()
        );
    }
    Ok(path)
}

/// Waits for Ctrl-C, SIGTERM or SIGHUP and then is an error: a program that returns it drops everything that it
/// started, and so stops it.
///
/// # Errors
/// Always.
pub async fn told_to_stop<T>() -> Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    bail!("stopped")
}

/// A port that was free a moment ago.
///
/// # Errors
/// The machine has none left.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Process {
    /// Starts it with exactly these variables (and the few that any program needs), writing to `folder/name.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<'a>(
        name: &str,
        program: &Path,
        arguments: &[&str],
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(
                ["PATH", "HOME", "LLVM_PROFILE_FILE", "TMPDIR"]
                    .iter()
                    .filter_map(|name| std::env::var_os(name).map(|value| (*name, value))),
            )
            .env("RUST_BACKTRACE", "1")
            .envs(variables)
            // A stray `.env` of the checkout must not reach it.
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, name: name.to_owned(), log, ended: None })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, `CONT`. Nothing happens to one that has ended.
    ///
    /// # Errors
    /// The `kill` program is missing.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        if self.ended().is_none() {
            Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status()?;
        }
        Ok(())
    }

    /// Kills it as the kernel would, and reaps it.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // The child is ours and not yet reaped, so its pid cannot be anybody else's.
            self.child.kill().ok();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within the time.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "{} (pid {}) does not end within {within:?}\n{}",
                    self.name,
                    self.pid(),
                    self.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the kernel has stopped it (as SIGSTOP does).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    /// Its whole log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<String> = log.lines().map(|line| line.chars().take(400).collect()).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
