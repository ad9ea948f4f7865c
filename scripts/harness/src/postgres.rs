//! A cluster of one's own, for tests that stop, crash and restart Postgres: no other test may feel that.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::folder::Folder;

/// A private cluster, stopped and removed on drop.
pub struct Cluster {
    folder: Folder,
}

/// How to stop the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As an operator does: sessions are ended, everything is written.
    Fast,
    /// As a crash does: the next start recovers from the log.
    Immediate,
}

impl Stop {
    fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

impl Cluster {
    /// Makes and starts one. It dies with this process even when nothing is dropped.
    ///
    /// # Errors
    /// No server binaries, or they do not start.
    pub async fn start() -> Result<Self> {
        let cluster = Self { folder: Folder::new("pg")? };
        cluster.run(&["start", "--createdb", "--while", &std::process::id().to_string()], &[]).await?;
        Ok(cluster)
    }

    /// The connection URL of a role: `owner`, `app`, `engine` or `admin`.
    ///
    /// # Errors
    /// The script's.
    pub async fn url(&self, role: &str) -> Result<String> {
        self.run(&["url"], &[role]).await
    }

    /// Stops the server; the data stay.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&self, how: Stop) -> Result<()> {
        self.run(&["stop"], &[how.word()]).await.map(drop)
    }

    /// Starts the server again, on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&self) -> Result<()> {
        self.run(&["start"], &[]).await.map(drop)
    }

    /// Stops and starts.
    ///
    /// # Errors
    /// Either fails.
    pub async fn restart(&self, how: Stop) -> Result<()> {
        self.run(&["restart"], &[how.word()]).await.map(drop)
    }

    async fn run(&self, before: &[&str], after: &[&str]) -> Result<String> {
        let mut command = Command::new(script());
        command.args(before).arg(self.folder.path()).args(after).stdin(Stdio::null()).stderr(Stdio::piped());
        let shown = format!("scripts/pg {}", before.join(" "));
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .context("the thread that runs a script was lost")?
            .with_context(|| format!("cannot run {shown}"))?;
        if !output.status.success() {
            bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        Command::new(script())
            .arg("stop")
            .arg(self.folder.path())
            .arg("immediate")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok();
        // The data belong to another account when we are root; a failed test keeps its logs, not its data.
        std::fs::remove_dir_all(self.folder.path().join("data")).ok();
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pg")
}
