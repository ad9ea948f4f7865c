//! A TCP proxy in front of Postgres that can be told to misbehave.
//!
//! It understands just enough of the wire protocol to know where messages end, which statement is being run and when
//! its reply is complete; so it can let a COMMIT through and lose the answer.

mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use self::wire::{Frontend, Messages};

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Keeps connections open, accepts new ones, and passes nothing on.
    BlackHole,
    /// Passes answers on, this much later.
    Delay(Duration),
    /// Closes every new connection at once.
    Refuse,
}

struct Shared {
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Cancelled and replaced to cut every open connection.
    cut: Mutex<CancellationToken>,
    /// Statements whose reply is to be lost: a part of their text, and how often still.
    lose: Mutex<Option<(String, usize)>>,
    lost: AtomicUsize,
    /// Cut the next connection after so many bytes of answers.
    cut_after: Mutex<Option<usize>>,
    connections: AtomicUsize,
}

/// A running proxy; it stops when dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Proxy {
    /// In front of this server.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            mode: watch::Sender::new(Mode::Pass),
            cut: Mutex::new(CancellationToken::new()),
            lose: Mutex::new(None),
            lost: AtomicUsize::new(0),
            cut_after: Mutex::new(None),
            connections: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self { address, shared, stop })
    }

    /// The same URL, through this proxy.
    ///
    /// # Errors
    /// It is no URL.
    pub fn url(&self, direct: &str) -> Result<String> {
        let (head, rest) = direct
            .split_once('@')
            .map_or_else(
                || direct.split_once("://").map(|(scheme, rest)| (format!("{scheme}://"), rest)),
                |(head, rest)| Some((format!("{head}@"), rest)),
            )
            .ok_or_else(|| anyhow::anyhow!("not a URL"))?;
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        Ok(format!("{head}{}{path}", self.address))
    }

    /// From now on.
    pub fn mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Cuts every open connection.
    pub fn cut_all(&self) {
        let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.cancel();
        *cut = CancellationToken::new();
    }

    /// Cuts one connection, the next one that has carried so many bytes of answers.
    pub fn cut_after(&self, bytes: usize) {
        *self.shared.cut_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// Runs the next `times` statements whose text contains this (without case), then cuts their connections before
    /// the reply passes. `commit` alone means the COMMIT of a transaction.
    pub fn lose_replies_to(&self, statement: &str, times: usize) {
        *self.shared.lose.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((statement.to_ascii_lowercase(), times));
    }

    /// How many replies were lost so far.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Acquire)
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// Whether the reply to this statement is to be lost; counts down when it is.
    fn takes(&self, statement: &str) -> bool {
        let mut lose = self.lose.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((part, times)) = lose.as_mut() else { return false };
        let text = statement.trim().trim_end_matches(';').to_ascii_lowercase();
        let hit = if part == "commit" { text == "commit" } else { text.contains(part.as_str()) };
        if hit {
            *times -= 1;
            if *times == 0 {
                *lose = None;
            }
        }
        hit
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let client = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
        };
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let cut = shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = cut.cancelled() => {}
                // Either direction's end ends the connection; how it ended does not matter.
                _ = connection(client, &shared) => {}
            }
        });
    }
}

async fn connection(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    if *shared.mode.borrow() == Mode::Refuse {
        return Ok(());
    }
    client.set_nodelay(true)?;
    passing(shared).await;
    let server = TcpStream::connect(shared.target).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = AtomicBool::new(false);
    tokio::select! {
        outcome = forward(from_client, to_server, shared, &losing) => outcome,
        outcome = back(from_server, to_client, shared, &losing) => outcome,
    }
}

/// Waits while bytes are swallowed.
async fn passing(shared: &Shared) -> Mode {
    let mut mode = shared.mode.subscribe();
    let passing = mode.wait_for(|mode| !matches!(mode, Mode::BlackHole)).await.map(|mode| *mode);
    passing.unwrap_or(Mode::Pass)
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
) -> std::io::Result<()> {
    let mut frontend = Frontend::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let statements = frontend.feed(&buffer[..read]);
        if statements.iter().any(|statement| shared.takes(statement)) {
            losing.store(true, Ordering::Release);
        }
        passing(shared).await;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
) -> std::io::Result<()> {
    let mut messages = Messages::default();
    let mut buffer = vec![0; 64 << 10];
    let mut carried = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let ready = messages.feed(&buffer[..read]);
        if losing.load(Ordering::Acquire) {
            if ready {
                // The server has done the work and said so; nobody will hear it.
                shared.lost.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            }
            continue;
        }
        if let Mode::Delay(pause) = passing(shared).await {
            tokio::time::sleep(pause).await;
        }
        carried += read;
        let cut = {
            let mut limit = shared.cut_after.lock().unwrap_or_else(PoisonError::into_inner);
            limit.take_if(|limit| carried >= *limit).is_some()
        };
        to.write_all(&buffer[..read]).await?;
        if cut {
            return Ok(());
        }
    }
}
