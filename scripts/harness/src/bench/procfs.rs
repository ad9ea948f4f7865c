//! What the kernel says a process has used. Linux only, like the figures in the documentation.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context, Result};

/// One line of /proc/PID/stat, as far as it matters here.
struct Stat {
    parent: u32,
    /// Its own processor time.
    own: u64,
    /// That of its children which have ended and were reaped.
    reaped: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in brackets and may hold anything, brackets too.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own: number(11)? + number(12)?,
            reaped: number(13)? + number(14)?,
        })
    }
}

/// The kernel counts in hundredths of a second on every machine that Linux runs on today.
fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// Processor time of one process, all its threads.
///
/// # Errors
/// It has ended.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(time(stat.own))
}

/// Processor time of a process and its children, the ended ones included.
///
/// # Errors
/// It has ended.
pub(super) fn processor_time_of_tree(pid: u32) -> Result<Duration> {
    let root = Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
    let all: HashMap<u32, Stat> = fs::read_dir("/proc")
        .context("no /proc: this program measures on Linux")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
        .collect();
    let children: u64 =
        all.values().filter(|stat| stat.parent == pid).map(|stat| stat.own + stat.reaped).sum();
    Ok(time(root.own + root.reaped + children))
}

/// The parent of a process.
///
/// # Errors
/// It has ended.
pub(super) fn parent(pid: u32) -> Result<u32> {
    Ok(Stat::read(pid).with_context(|| format!("process {pid} is gone"))?.parent)
}

/// Resident bytes of a process.
///
/// # Errors
/// It has ended.
pub(super) fn resident_bytes(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<i64>().ok())
        .with_context(|| format!("process {pid} has no memory"))?;
    Ok(kib * 1024)
}
