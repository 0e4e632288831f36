//! `tokenway chat`: a conversation, turn by turn.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use tokenway_sdk::{ChatRequest, Message};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use crate::client::Client;
use crate::sampling::Asking;

const EXAMPLES: &str = "\
Within the conversation:
  /system TEXT  replaces the system message and starts over
  /reset        forgets the conversation
  /exit         ends; so do Ctrl-D, and Ctrl-C outside an answer
  Ctrl-C        stops the answer that is being written

Examples:
  tokenway chat
  tokenway chat --system \"Answer in one word\" --temperature 0";

/// Talk to a model, with the conversation so far in mind
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    asking: Asking,
}

struct Conversation {
    asking: Asking,
    client: Client,
    model: String,
    system: Option<String>,
    turns: Vec<Message>,
    interactive: bool,
}

/// What a line from the user asks for.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Say(&'a str),
    System(&'a str),
    Reset,
    Exit,
    Nothing,
    Unknown(&'a str),
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let asking = arguments.asking;
    let client = asking.client()?;
    let model = asking.model(&client).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut conversation = Conversation {
        system: asking.system.clone(),
        asking,
        client,
        model,
        turns: Vec::new(),
        interactive: std::io::stdin().is_terminal(),
    };
    conversation.note(&format!("{} at {}; /exit ends", conversation.model, conversation.client.base()));
    let mut code = ExitCode::SUCCESS;
    while let Some(line) = conversation.read(&mut lines).await? {
        match Line::parse(&line) {
            Line::Exit => break,
            Line::Nothing => {}
            Line::Unknown(command) => {
                conversation.note(&format!("no command `{command}`: /system, /reset, /exit"))
            }
            Line::Reset => conversation.turns.clear(),
            Line::System(text) => {
                conversation.system = (!text.is_empty()).then(|| text.to_owned());
                conversation.turns.clear();
            }
            Line::Say(text) => {
                if let Err(error) = conversation.say(text).await {
                    code = crate::exit::report(&error);
                }
            }
        }
    }
    // At a terminal the user has seen each error and gone on.
    Ok(if conversation.interactive { ExitCode::SUCCESS } else { code })
}

impl Line<'_> {
    fn parse(line: &str) -> Line<'_> {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => Line::Nothing,
            "/exit" | "/quit" => Line::Exit,
            "/reset" => Line::Reset,
            "/system" => Line::System(rest.trim()),
            unknown if unknown.starts_with('/') => Line::Unknown(unknown),
            _ => Line::Say(line),
        }
    }
}

impl Conversation {
    /// The user's next line; none at the end of input or on Ctrl-C.
    async fn read(&self, lines: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<Option<String>> {
        if self.interactive {
            print_now("> ")?;
        }
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = tokio::signal::ctrl_c() => None,
        };
        if line.is_none() && self.interactive {
            print_now("\n")?;
        }
        Ok(line)
    }

    /// Asks and writes the answer. What was written before Ctrl-C stays in the conversation.
    async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let mut messages: Vec<_> = self.system.iter().map(|text| Message::system(text.as_str())).collect();
        messages.extend(self.turns.iter().cloned());
        messages.push(Message::user(text));
        let request = self.asking.request(&self.model, &messages);
        let mut said = String::new();
        let outcome = tokio::select! {
            outcome = self.stream(request, &mut said) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        print_now("\n")?;
        if !said.is_empty() {
            self.turns.extend([Message::user(text), Message::assistant(said)]);
        }
        outcome
    }

    async fn stream(&self, request: ChatRequest, said: &mut String) -> anyhow::Result<()> {
        let mut answer = self.client.chat(request).await?;
        while let Some(piece) = answer.next().await? {
            print_now(&piece)?;
            said.push_str(&piece);
        }
        if self.asking.stats {
            eprint!("\n{}", answer.stats());
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        if self.interactive {
            eprintln!("{text}");
        }
    }
}

fn print_now(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_words() {
        assert_eq!(Line::parse("  hello /exit "), Line::Say("hello /exit"));
        assert_eq!(Line::parse("/system be brief"), Line::System("be brief"));
        assert_eq!(Line::parse("/system"), Line::System(""));
        assert_eq!(Line::parse("/exit"), Line::Exit);
        assert_eq!(Line::parse("/nonsense x"), Line::Unknown("/nonsense"));
        assert_eq!(Line::parse("   "), Line::Nothing);
    }
}
