//! `gateway`: the REST door of tokenway.

use std::process::ExitCode;

use clap::Parser;
use gateway::command::{Args, run};
use pipelines::service::finish;
use pipelines::telemetry::init_logs;
use schemas::Role;

fn main() -> ExitCode {
    let args = Args::parse();
    init_logs(args.process.log_format);
    finish(Role::Gateway, run(args))
}
