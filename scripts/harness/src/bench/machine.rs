//! What the figures were measured on.

use std::{fs, path::Path, process::Command};

/// Names and values for the head of the report.
pub(super) fn describe(root: &Path) -> Vec<(String, String)> {
    let mut lines = vec![
        ("date", said(root, "date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", commit(root)),
        ("processor", processor()),
        ("memory", memory()),
        ("kernel", said(root, "uname", &["-sr"])),
        ("disk", disk()),
        ("compiler", said(root, "rustc", &["--version"])),
    ];
    lines.push(("build", "profile fast (opt-level 2, no link-time optimisation)".to_owned()));
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn said(root: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn commit(root: &Path) -> String {
    let commit = said(root, "git", &["rev-parse", "--short=12", "HEAD"]);
    // What the report itself changes does not count.
    let changed = said(root, "git", &["status", "--porcelain", "--", ".", ":!docs/performance.md"]);
    if changed.is_empty() { commit } else { format!("{commit} with local changes") }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
        .unwrap_or_else(|| "unknown".to_owned());
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{count} × {name}")
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0);
    format!("{} GiB", kib / 1024 / 1024)
}

/// The file system under the data: a tmpfs would make every commit free.
fn disk() -> String {
    let folder = std::env::temp_dir();
    let output = Command::new("df").args(["-T", "--"]).arg(&folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let kind = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(1).map(str::to_owned));
    format!("{}, fsync on", kind.unwrap_or_else(|| "unknown".to_owned()))
}
