//! `make soak`: whether any process of the demo pipeline grows while it serves.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::bench::soak::Soak;

/// Serves many mixed requests, prints how each process grows, and fails above 1 KiB a request
#[derive(Debug, Parser)]
#[command(name = "soak", version, max_term_width = 110)]
struct Args {
    /// Requests in all
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,

    /// Longest time to take, in minutes
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { requests, minutes } = Args::parse();
    let soak = Soak { requests, time_max: Duration::from_secs(minutes * 60) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(soak.run())?;
    println!("{report}");
    let faults = report.faults();
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    if faults.is_empty() {
        println!("passed: at most 1 KiB a request in every process, nothing left behind");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
