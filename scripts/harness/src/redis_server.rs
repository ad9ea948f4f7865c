//! A real Redis of one's own, without persistence: killed, paused and filled at will.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use redis::{aio::MultiplexedConnection, streams::StreamRangeReply};
use tokio::time::Instant;

use crate::{
    folder::Folder,
    process::{Process, free_port},
};

const PROGRAMS: [&str; 3] =
    ["/usr/bin/redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"];
const SOON: Duration = Duration::from_secs(10);

/// A running one, or one that was killed.
pub struct RedisServer {
    program: &'static str,
    process: Process,
    port: u16,
    folder: Folder,
}

impl RedisServer {
    /// Starts it; none where Redis is not installed.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start() -> Result<Option<Self>> {
        let Some(program) = PROGRAMS.into_iter().find(|path| Path::new(path).exists()) else {
            return Ok(None);
        };
        let folder = Folder::new("redis")?;
        let port = free_port()?;
        let process = launch(program, port, &folder)?;
        let server = Self { program, process, port, folder };
        server.answers().await?;
        Ok(Some(server))
    }

    /// For `REDIS_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, with all that it held.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A new one, empty, on the same port.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(self.program, self.port, &self.folder)?;
        self.answers().await
    }

    /// Stops it from running, or lets it go on.
    ///
    /// # Errors
    /// The `kill` program is missing.
    pub fn pause(&mut self, is_paused: bool) -> Result<()> {
        self.process.signal(if is_paused { "STOP" } else { "CONT" })
    }

    /// A connection to it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        Ok(tokio::time::timeout(SOON, client.get_multiplexed_async_connection()).await??)
    }

    /// Everything in a stream, oldest first.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn entries(&self, stream: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let mut connection = self.connect().await?;
        let range: StreamRangeReply =
            redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await?;
        range
            .ids
            .iter()
            .map(|entry| {
                let fields = entry.map.keys().map(|name| {
                    let value: String = entry.get(name).context("a field that is text")?;
                    Ok((name.clone(), value))
                });
                fields.collect()
            })
            .collect()
    }

    async fn answers(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Ok(mut connection) = self.connect().await {
                let pong: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
                if pong.is_ok() {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < deadline, "Redis does not answer\n{}", self.process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn launch(program: &str, port: u16, folder: &Folder) -> Result<Process> {
    let port = port.to_string();
    let arguments = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxmemory-policy",
        "noeviction",
    ];
    Process::start("redis", Path::new(program), &arguments, [], folder.path())
}
