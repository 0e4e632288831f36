//! What clients ask while processes fail: every kind of answer whose state must survive.

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::merged;
use crate::process::repository;

/// One request, which has the same answer whenever it is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is special about it, for reports.
    pub kind: &'static str,
    /// Where it is posted.
    pub path: &'static str,
    /// Its fields; `model` and `stream` are the client's.
    pub fields: Value,
    /// Whether its answer is streamed.
    pub streamed: bool,
}

/// Kinds of requests that differ in what must survive of them.
const KINDS: usize = 6;
/// Lengths of prompt and answer in tokens, which are bytes for the demo model; its context is 512.
const LENGTHS: [(usize, u32); 3] = [(16, 300), (120, 160), (300, 200)];
/// Of an image's answer: its prompt takes most of the context.
const IMAGE_TOKENS: u32 = 60;

/// All questions: each kind, streamed and not, at each length.
pub fn all() -> anyhow::Result<Vec<Question>> {
    let image = std::fs::read(repository().join("models/demo/scenes/01.png")).context("scenes/01.png")?;
    let image = format!("data:image/png;base64,{}", STANDARD.encode(image));
    let mut questions = Vec::new();
    for (length, (prompt_tokens, max_tokens)) in LENGTHS.into_iter().enumerate() {
        for kind in 0..KINDS {
            for streamed in [true, false] {
                let seed = 10 * length + kind;
                questions.push(question(kind, seed, prompt_tokens, max_tokens, &image, streamed));
            }
        }
    }
    Ok(questions)
}

fn question(
    kind: usize,
    seed: usize,
    prompt_tokens: usize,
    max_tokens: u32,
    image: &str,
    streamed: bool,
) -> Question {
    // Each question has words of its own, so that none is helped by what another left behind.
    let prompt: String = format!("{seed} times upon a time, ").chars().cycle().take(prompt_tokens).collect();
    let common = json!({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": true, "seed": seed});
    let complete = |kind, fields| Question {
        kind,
        path: "/v1/completions",
        fields: merged(common.clone(), fields),
        streamed,
    };
    match kind {
        0 => complete("greedy", json!({"temperature": 0})),
        1 => complete("seeded", json!({"temperature": 1.0})),
        2 => complete(
            "penalties",
            json!({"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.1}),
        ),
        3 => complete("stop", json!({"temperature": 1.0, "stop": ["no such text", "Q7", "zzz"]})),
        4 => complete("logprobs", json!({"temperature": 0, "logprobs": 2})),
        _ => {
            let content = json!([
                {"type": "image_url", "image_url": {"url": image}},
                {"type": "text", "text": "Describe the image."},
            ]);
            let fields = json!({
                "messages": [{"role": "user", "content": content}],
                "temperature": 1.0, "seed": seed, "max_tokens": IMAGE_TOKENS, "ignore_eos": true,
            });
            Question { kind: "image", path: "/v1/chat/completions", fields, streamed }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_asked_streamed_and_not() {
        let questions = all().unwrap();
        let kinds: BTreeSet<(&str, bool)> = questions.iter().map(|it| (it.kind, it.streamed)).collect();
        assert_eq!(kinds.len(), 2 * KINDS);
    }
}
