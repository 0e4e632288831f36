//! One answer in the terminal as proof.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::door::Door;
use super::terminal::Terminal;
use crate::sampling::message;

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
    let body = json!({
        "model": model,
        "messages": [message("user", prompt)],
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let mut answer = door.client()?.chat(&body).await?;
    while let Some(piece) = answer.next().await? {
        terminal.print(&piece);
    }
    terminal.print(&format!("\n({})\n", answer.stats()));
    Ok(())
}
