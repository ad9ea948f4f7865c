//! The soak as a program: told to stop, it leaves nothing behind.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{
    folder::Folder,
    process::{Process, binary},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_that_is_told_to_stop_stops_all_that_it_started() -> Result<()> {
    let folder = Folder::new("soak")?;
    let mut variables: Vec<(String, String)> = ["ALFRED_BIN_DIR", "ALFRED_PG_BIN"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    // Its own folders are in ours, so that they are found.
    variables.push(("TMPDIR".to_owned(), folder.path().to_string_lossy().into_owned()));
    let mut soak = Process::start(
        "chaos",
        &binary("chaos")?,
        &["--seed", "1", "--seconds", "300"],
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        folder.path(),
    )?;
    // Both apis and both workers run, and with them everything that they need.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(50);
    let children = loop {
        let children = children_of(soak.pid())?;
        if children.len() >= 4 {
            break children;
        }
        ensure!(soak.ended().is_none(), "it ended by itself\n{}", soak.log());
        ensure!(tokio::time::Instant::now() < deadline, "it did not start\n{}", soak.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let postgres = postgres_in(folder.path()).context("no cluster was found")?;
    TcpStream::connect(("127.0.0.1", postgres))?;
    soak.signal("TERM")?;
    let ended = soak.wait(Duration::from_secs(20)).await?;
    ensure!(!ended.success(), "a soak that was stopped has proved nothing");
    for pid in children {
        ensure!(!PathBuf::from(format!("/proc/{pid}")).exists(), "process {pid} is left");
    }
    ensure!(TcpStream::connect(("127.0.0.1", postgres)).is_err(), "its Postgres at port {postgres} is left");
    Ok(())
}

/// The api and worker processes among the children of this one.
fn children_of(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let parent_of_it = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        let is_ours = String::from_utf8_lossy(&read("environ")).contains("\0DB_ENGINE_URL=");
        if is_ours && parent_of_it == Some(parent.to_string().as_str()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The port of the cluster under this folder.
fn postgres_in(folder: &Path) -> Option<u16> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let text =
        entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cluster.env")).ok()).next()?;
    text.lines().find_map(|line| line.strip_prefix("PG_PORT="))?.trim_matches('\'').parse().ok()
}
