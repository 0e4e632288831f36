//! `tokenway doctor`: what this machine lacks, and what to do about it.

mod broker;
mod machine;
mod programs;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tokenway doctor
  tokenway doctor --nats nats://10.0.0.5:4222
  tokenway doctor --json | jq '.checks[] | select(.level != \"ok\")'

Exit codes: 0 nothing fails, 1 something does.";

/// Check programs, libraries, the NATS server and this machine
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// NATS server to check [default: that of the running `tokenway up`, if one runs]
    #[arg(long, value_name = "URL", env = "TOKENWAY_NATS")]
    nats: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not as it could.
    Warn,
    /// `tokenway up` would not work.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Ok, found: found.into(), advice: None }
    }

    /// Works, but not as it could.
    pub fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    /// `tokenway up` would not work.
    pub fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut checks = programs::check().await;
    checks.extend(broker::check(arguments.nats.as_deref()).await);
    checks.extend(machine::check().await);
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::json!({ "checks": checks }))?;
    } else {
        out.write_all(
            render(&checks, out.is_terminal() && std::env::var_os("NO_COLOR").is_none()).as_bytes(),
        )?;
    }
    let failed = checks.iter().any(|check| check.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn render(checks: &[Check], colour: bool) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (word, code) = match check.level {
            Level::Ok => ("ok  ", 32),
            Level::Warn => ("warn", 33),
            Level::Fail => ("fail", 31),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        text += &format!("{word}  {:<width$}  {}\n", check.name, check.found);
        if let Some(advice) = &check.advice {
            text += &format!("      {:<width$}  -> {advice}\n", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_not_ok_says_what_to_do() {
        let checks = [Check::ok("a", "fine"), Check::fail("longer", "absent", "make setup")];
        assert_eq!(
            render(&checks, false),
            "ok    a       fine\nfail  longer  absent\n              -> make setup\n"
        );
    }
}
