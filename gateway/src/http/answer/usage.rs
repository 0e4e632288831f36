//! How much a request used, and why an answer ended.

use poem_openapi::{Enum, Object};
use schemas::token::Finish;
use serde::Serialize;

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Object, Serialize)]
pub struct Usage {
    /// Tokens of the prompts, each prompt counted once.
    pub prompt_tokens: u32,
    /// Tokens of all answers.
    pub completion_tokens: u32,
    /// Their sum.
    pub total_tokens: u32,
}

impl Usage {
    /// The usage of `prompt_tokens` and `completion_tokens`.
    pub fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended it, or a stop token or a stop sequence.
    Stop,
    /// The longest answer was reached.
    Length,
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
        }
    }
}
