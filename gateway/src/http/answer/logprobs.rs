//! Log probabilities as each endpoint writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use poem_openapi::Object;
use schemas::chunk::TokenLogprob;
use serde::Serialize;

/// Stands for minus infinity, which JSON lacks; OpenAI's number.
const IMPOSSIBLE: f32 = -9999.0;

/// Log probabilities of a chat answer.
#[derive(Debug, Clone, Default, Object, Serialize)]
pub struct ChatLogprobs {
    /// One entry a token.
    pub content: Vec<ChatLogprob>,
}

/// Log probability of one token of a chat answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ChatLogprob {
    /// The token's text; a token that is only part of a character is written as `bytes:\xNN…`.
    pub token: String,
    /// Its natural log probability at temperature 1.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The most probable alternatives, best first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// Log probability of an alternative.
#[derive(Debug, Clone, Object, Serialize)]
pub struct TopLogprob {
    /// The token's text; a token that is only part of a character is written as `bytes:\xNN…`.
    pub token: String,
    /// Its natural log probability at temperature 1.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Log probabilities of a completion, as four lists of equal length.
#[derive(Debug, Clone, Default, Object, Serialize)]
pub struct CompletionLogprobs {
    /// The tokens' texts; a token that is only part of a character is written as `bytes:\xNN…`.
    pub tokens: Vec<String>,
    /// Their natural log probabilities at temperature 1.
    pub token_logprobs: Vec<f32>,
    /// For each token the most probable alternatives.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins in the answer, in characters.
    pub text_offset: Vec<u32>,
}

impl ChatLogprobs {
    /// The log probabilities of `tokens`.
    pub fn new(tokens: Vec<TokenLogprob>) -> Self {
        Self { content: tokens.into_iter().map(ChatLogprob::from).collect() }
    }
}

impl From<TokenLogprob> for ChatLogprob {
    fn from(token: TokenLogprob) -> Self {
        let top = |(bytes, logprob): (Vec<u8>, f32)| TopLogprob {
            token: text(&bytes),
            logprob: finite(logprob),
            bytes,
        };
        Self {
            token: text(&token.bytes),
            logprob: finite(token.logprob),
            bytes: token.bytes,
            top_logprobs: token.top.into_iter().map(top).collect(),
        }
    }
}

impl CompletionLogprobs {
    /// The log probabilities of `tokens`, the first of which begins at `offset`; moves `offset` to their end.
    pub fn new(tokens: &[TokenLogprob], offset: &mut u32) -> Self {
        let mut lists = Self::default();
        for token in tokens {
            lists.tokens.push(text(&token.bytes));
            lists.token_logprobs.push(finite(token.logprob));
            let top = token.top.iter().map(|(bytes, logprob)| (text(bytes), finite(*logprob)));
            lists.top_logprobs.push(top.collect());
            lists.text_offset.push(*offset);
            *offset += characters(&token.bytes);
        }
        lists
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(IMPOSSIBLE)
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

/// Characters that begin in `bytes`: continuation bytes belong to one that began before.
fn characters(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|byte| (**byte as i8) >= -0x40).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_character_keep_their_bytes_and_count_once() {
        let token = |bytes: &[u8]| TokenLogprob {
            bytes: bytes.to_vec(),
            logprob: f32::NEG_INFINITY,
            top: Vec::new(),
        };
        let mut offset = 0;
        let lists =
            CompletionLogprobs::new(&[token(b"a"), token(b"\xc3"), token(b"\xbc"), token(b"b")], &mut offset);
        assert_eq!(lists.tokens, ["a", r"bytes:\xc3", r"bytes:\xbc", "b"]);
        assert_eq!(lists.text_offset, [0, 1, 2, 2]);
        assert_eq!(offset, 3);
        assert_eq!(lists.token_logprobs, [IMPOSSIBLE; 4]);
    }
}
