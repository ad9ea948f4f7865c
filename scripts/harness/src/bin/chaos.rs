//! The soak as a program; `scripts/chaos` builds what it needs and runs it.

#![expect(clippy::print_stdout, reason = "a program's output")]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use harness::{
    chaos::{Plan, run},
    process::told_to_stop,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let plan = arguments()?;
    println!(
        "seed {}, {} s, {} conversations over 2 api and 2 worker processes",
        plan.seed,
        plan.length.as_secs(),
        plan.conversations
    );
    let report = tokio::select! {
        report = run(plan, |at, fault| println!("{:7.1} s  {fault}", at.as_secs_f64())) => report?,
        stopped = told_to_stop() => return stopped,
    };
    println!("\nseed        {}", plan.seed);
    println!("turns       {} accepted, ended as {:?}", report.turns, report.endings);
    println!("takeovers   {}", report.takeovers);
    println!("faults      {}", report.faults.values().sum::<usize>());
    for (fault, times) in &report.faults {
        println!("            {times:4} × {fault}");
    }
    println!("complaints  {}", report.complaints.len());
    for complaint in report.complaints.iter().take(20) {
        println!("            {complaint}");
    }
    println!("violations  {}", report.violations.len());
    for violation in report.violations.iter().take(50) {
        println!("            {violation}");
    }
    if report.violations.is_empty() && report.complaints.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{}", report.logs);
    Ok(ExitCode::FAILURE)
}

fn arguments() -> Result<Plan> {
    let mut plan =
        Plan { seed: u64::from(rand::random::<u32>()), length: Duration::from_secs(120), conversations: 8 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().with_context(|| format!("{name} needs a value"))?;
        let number: u64 = value.parse().with_context(|| format!("{name} {value}: not a number"))?;
        match name.as_str() {
            "--seed" => plan.seed = number,
            "--seconds" => plan.length = Duration::from_secs(number),
            "--conversations" => plan.conversations = usize::try_from(number)?,
            _ => bail!("unknown option {name}: --seed N, --seconds N (120), --conversations N (8)"),
        }
    }
    Ok(plan)
}
