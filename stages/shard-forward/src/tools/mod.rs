//! What the `tokenway` command computes with a model, without a pipeline: its speed, its soundness, how well it predicts.

mod exit;

mod model;
mod progress;
mod table;

mod limits;
mod sample;

pub mod bench;
pub mod perplexity;
pub mod profile;
pub mod validate;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use pipelines::tools::{ARGUMENT, Tool};
use serde::Serialize;

pub use exit::Misuse;
pub use limits::Limits;
pub use sample::Sample;

/// The command line as behind `tokenway`.
#[derive(Parser)]
#[command(name = "tokenway", version = pipelines::service::VERSION, max_term_width = 110)]
struct Line {
    #[command(subcommand)]
    tool: Tool,
}

/// The tool's command line, where this process is to be one.
pub fn arguments() -> Option<impl Iterator<Item = OsString>> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == ARGUMENT).then_some(arguments)
}

/// The `main` of a tool. Exit code 0: done; 1: failed, or the model did; 2: wrong usage, or nothing to work with.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = Line::parse_from(std::iter::once(OsString::from("tokenway")).chain(arguments));
    run(&line.tool).unwrap_or_else(|error| exit::report(&error))
}

fn run(tool: &Tool) -> anyhow::Result<ExitCode> {
    match tool {
        Tool::Bench(arguments) => print(arguments.json, &bench::run(arguments)?)?,
        Tool::Perplexity(arguments) => print(arguments.json, &perplexity::run(arguments)?)?,
        Tool::Profile(arguments) => print(arguments.json, &profile::run(arguments)?)?,
        Tool::Validate(arguments) => {
            let report = validate::run(arguments)?;
            match arguments.markdown {
                true => writeln!(std::io::stdout(), "{}", report.markdown())?,
                false => print(arguments.json, &report)?,
            }
            return Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As one JSON object on a line, or as text.
fn print(json: bool, report: &(impl Serialize + std::fmt::Display)) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(report)?)?,
        false => writeln!(out, "{report}")?,
    }
    Ok(())
}
