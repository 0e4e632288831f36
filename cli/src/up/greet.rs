//! One answer in the terminal as proof.

use std::time::Duration;

use anyhow::Context as _;
use tokenway_sdk::{ChatRequest, Message};

use super::door::Door;
use super::terminal::Terminal;

const DEADLINE: Duration = Duration::from_secs(60);

/// Streams the answer of `model` to `prompt` into the terminal, while logs wait.
pub async fn greet(terminal: &Terminal, door: &Door, model: &str, prompt: &str) -> anyhow::Result<()> {
    terminal.hold();
    let answered = tokio::time::timeout(DEADLINE, stream(terminal, door, model, prompt)).await;
    terminal.release();
    answered.unwrap_or_else(|_| Err(anyhow::anyhow!("no end after {DEADLINE:?}"))).context("the first answer")
}

async fn stream(terminal: &Terminal, door: &Door, model: &str, prompt: &str) -> anyhow::Result<()> {
    terminal.print(&format!("\n> {prompt}\n"));
    let request = ChatRequest::new(model, [Message::user(prompt)]);
    let mut answer = door.client()?.chat(request).await?;
    while let Some(piece) = answer.next().await? {
        terminal.print(&piece);
    }
    terminal.print(&format!("\n({})\n", answer.stats()));
    Ok(())
}
