//! The `tokenway` command: serves models, talks to them, and looks at what runs.
//!
//! It speaks HTTP and NATS only, so it starts on a machine where libtorch does not.

mod exit;
mod locate;
mod signals;

mod up;

mod client;
mod sampling;

mod chat;
mod run;

mod interrupt;
mod progress;

mod convert;
mod repair;

mod compute;
mod quantize;

mod memory;
mod printable;
mod table;

mod checkpoint;
mod inspect;
mod named;
mod pull;
mod registry;
mod tokenize;

mod bus;
mod doctor;
mod last;
mod status;
mod status_table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use pipelines::tools::Tool;

const EXAMPLES: &str = "\
Examples:
  tokenway up                                   serve the demo model on http://127.0.0.1:8080
  tokenway up --model ~/models/llama --shards 2 serve a model folder of one's own
  tokenway up --model hf:ORG/NAME               serve a model of the Hugging Face Hub
  tokenway run \"What is 12 + 30?\"               one answer
  tokenway chat                                 a conversation
  tokenway status --watch                       what runs, live
  tokenway doctor                               what is missing, and what to do about it
  tokenway models                               which models there are, and whether they fit
  tokenway models pull ORG/NAME                 download a model of the Hugging Face Hub
  tokenway inspect llama-q4_k.gguf              what is in a model's files
  tokenway tokenize --model ~/models/llama Hi   the tokens of a text
  tokenway convert ~/models/llama llama-q4_k.gguf --type q4_k
                                                write a GGUF
  tokenway repair damaged.gguf whole.gguf       write a GGUF again that readers refuse
  tokenway convert --vision ~/models/llava      make a model's vision encoder servable
  tokenway bench models/demo                    tokens per second of prompts and of generation
  tokenway validate ~/models/llama              whether files are whole and compute what they should
  tokenway profile ~/models/llama --trace t.json
                                                where the time of a step goes
  tokenway quantize ~/models/llama llama-q4_k.gguf --type q4_k --text wiki.test.raw
                                                write a GGUF, and what that costs the model

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

/// Serves language models as a pipeline of processes on NATS.
#[derive(Parser)]
#[command(name = "tokenway", version = bus::VERSION, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Arguments),
    Run(run::Arguments),
    Chat(chat::Arguments),
    Status(status::Arguments),
    Doctor(doctor::Arguments),
    Convert(convert::Arguments),
    Quantize(quantize::Arguments),
    Repair(repair::Arguments),
    Models(registry::Arguments),
    Inspect(inspect::Arguments),
    Tokenize(tokenize::Arguments),
    #[command(flatten)]
    Compute(Tool),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  tokenway completions bash > ~/.local/share/bash-completion/completions/tokenway"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: `up` must start its processes from the thread that lives as long as it does (see `up::parent_death`).
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    let outcome = runtime.block_on(dispatch(arguments.command));
    // A read of standard input may still be blocked.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| exit::report(&error))
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Run(arguments) => run::run(arguments).await,
        Command::Chat(arguments) => chat::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Convert(arguments) => convert::run(arguments).await,
        Command::Quantize(arguments) => quantize::run(arguments).await,
        Command::Repair(arguments) => repair::run(arguments).await,
        Command::Models(arguments) => registry::run(arguments).await,
        Command::Inspect(arguments) => inspect::run(arguments).await,
        Command::Tokenize(arguments) => tokenize::run(arguments).await,
        Command::Compute(tool) => compute::run(tool).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tokenway", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_prompt_is_required_and_replicas_are_checked() {
        assert!(Arguments::try_parse_from(["tokenway", "run"]).is_err());
        assert!(Arguments::try_parse_from(["tokenway", "up", "--replicas", "sample=two"]).is_err());
        assert!(Arguments::try_parse_from(["tokenway", "up", "--replicas", "shard-forward.1=2"]).is_ok());
    }

    #[test]
    fn ids_to_decode_are_numbers_with_commas_and_exclude_a_text() {
        let parse = |more: &[&str]| {
            let first = ["tokenway", "tokenize", "--model", "m"];
            Arguments::try_parse_from(first.iter().chain(more)).is_ok()
        };
        assert!(parse(&["--decode", "1,2,3"]) && parse(&["text"]) && parse(&[]));
        assert!(!parse(&["--decode", "1,-2"]) && !parse(&["--decode", "1", "text"]));
        // The template decides over special tokens.
        assert!(parse(&["--chat", "text"]) && !parse(&["--chat", "--no-special", "text"]));
    }
}
