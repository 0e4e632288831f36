//! One batch of requests, the same for every side of a comparison.

use serde::{Deserialize, Serialize};

use crate::bench::random::Random;

/// Requests that start together; every answer has the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// How many.
    pub batch: u32,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Decode steps: each answer is one token longer, the one that prefill gives.
    pub steps: u32,
    /// Prompts of another round are others, so that no cache can know them.
    pub round: u32,
    /// Ids are below it.
    pub vocabulary: u32,
}

impl Workload {
    /// Tokens of each answer.
    pub fn answer_tokens(&self) -> u32 {
        self.steps + 1
    }

    /// The prompts, as token ids.
    pub fn prompts(&self) -> Vec<Vec<u32>> {
        let mut random = Random::new(u64::from(self.round) << 32 | u64::from(self.batch));
        let mut id = || random.below(self.vocabulary.into()) as u32;
        (0..self.batch).map(|_| (0..self.prompt_tokens).map(|_| id()).collect()).collect()
    }
}
