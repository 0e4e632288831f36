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

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use pipelines::tools::{ARGUMENT, Tool};
use serde::Serialize;

pub use exit::Misuse;
pub use limits::Limits;
pub use sample::Sample;

/// What the process is to do as a tool, in JSON, where it is to be one.
pub fn arguments() -> Option<OsString> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == ARGUMENT).then(|| arguments.next().unwrap_or_default())
}

/// The `main` of a tool, a [`Tool`] in JSON. Exit code 0: done; 1: failed, or the model did; 2: wrong usage, or nothing to work with.
pub fn main(tool: &OsStr) -> ExitCode {
    read(tool).and_then(|tool| run(&tool)).unwrap_or_else(|error| exit::report(&error))
}

fn read(tool: &OsStr) -> anyhow::Result<Tool> {
    serde_json::from_slice(tool.as_encoded_bytes())
        .map_err(|error| exit::misuse(format!("`tokenway` starts this, with a tool in JSON: {error}")))
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
