//! `tokenway run`: one answer.

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::Args;
use tokenway_sdk::Message;

use crate::sampling::Asking;

const EXAMPLES: &str = "\
Examples:
  tokenway run \"What is 12 + 30?\"
  tokenway run --temperature 0.8 --seed 7 --max-tokens 200 --stats \"Tell me a story\"
  git diff | tokenway run --system \"Write a commit message\" -
  tokenway run --json \"Hello\" | jq .usage";

/// Ask one question and stream the answer
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The user's message; `-` reads it from standard input
    prompt: String,
    #[command(flatten)]
    asking: Asking,
    /// Print the whole response as JSON, once it is complete
    #[arg(long, conflicts_with = "stats")]
    json: bool,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let asking = &arguments.asking;
    let mut messages: Vec<_> = asking.system.iter().map(|text| Message::system(text.as_str())).collect();
    messages.push(Message::user(prompt(&arguments.prompt)?));

    let client = asking.client()?;
    let model = asking.model(&client).await?;
    let request = asking.request(&model, &messages);
    let mut out = std::io::stdout();
    if arguments.json {
        let response = client.chat_whole(&request).await?;
        writeln!(out, "{}", response.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut answer = client.chat(request).await?;
    while let Some(piece) = answer.next().await? {
        out.write_all(piece.as_bytes())?;
        out.flush()?;
    }
    writeln!(out)?;
    if asking.stats {
        eprintln!("{}", answer.stats());
    }
    Ok(ExitCode::SUCCESS)
}

fn prompt(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
