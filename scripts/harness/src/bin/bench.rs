//! The measurements as a program; `scripts/bench` builds what it needs and runs it.

#![expect(clippy::print_stdout, reason = "a program's output")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use harness::{
    bench::{Plan, SECTIONS, Table, run},
    fakes::model,
    process::told_to_stop,
};

/// One thread, so that the load generator takes as little as it can; the floor has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut given = std::env::args().skip(1).peekable();
    if given.next_if_eq("model").is_some() {
        let port: u16 = given.next().context("model needs a port")?.parse()?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        return Ok(model::serve(listener).await?);
    }
    let (plan, write) = arguments(given)?;
    let show = |table: &Table| println!("{}", table.text());
    let report = tokio::select! {
        report = run(&plan, &show) => report?,
        stopped = told_to_stop() => return stopped,
    };
    for (name, value) in &report.machine {
        println!("{name:10} {value}");
    }
    if write {
        let page = plan.root.join("docs/performance.md");
        report.write(
            &page,
            if plan.quick { "./scripts/bench --quick --write" } else { "./scripts/bench --write" },
        )?;
        println!("\nwritten to {}", page.display());
    }
    Ok(())
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(Plan, bool)> {
    let mut plan = Plan {
        sections: Vec::new(),
        quick: false,
        workers: 2,
        hold: None,
        settings: Vec::new(),
        variables: Vec::new(),
        root: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?,
    };
    let mut write = false;
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
        let number = |value: String| -> Result<u64> {
            value.parse().with_context(|| format!("{argument} {value}: not a number"))
        };
        let pair = |value: String| -> Result<(String, String)> {
            let (name, value) =
                value.split_once('=').with_context(|| format!("{argument} {value}: not NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        match argument.as_str() {
            "--quick" => plan.quick = true,
            "--write" => write = true,
            "--workers" => plan.workers = usize::try_from(number(value()?)?)?,
            "--hold" => plan.hold = Some(Duration::from_secs(number(value()?)?)),
            "--set" => plan.settings.push(pair(value()?)?),
            "--env" => plan.variables.push(pair(value()?)?),
            section if SECTIONS.contains(&section) => plan.sections.push(argument),
            _ => bail!("{argument} is neither an option nor one of {}", SECTIONS.join(", ")),
        }
    }
    if plan.sections.is_empty() && plan.hold.is_none() {
        plan.sections = SECTIONS.map(str::to_owned).to_vec();
    }
    if plan.workers == 0 {
        bail!("--workers 0: nobody would run a turn");
    }
    Ok((plan, write))
}
