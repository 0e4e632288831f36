//! From a request to its open answers: one for each prompt and choice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use pipelines::record::Record;
use pipelines::session::{Answer, Ask, AskImage, AskInput, Door, Images};
use schemas::Failure;
use schemas::journal::Dialect;
use schemas::request::{Generation, Input};

use crate::http::answer::dialect::Head;
use crate::http::streams::Asked;

/// What a checked request asks of the pipeline.
pub struct Plan {
    /// The pipeline.
    pub record: Record,
    /// The prompts.
    pub inputs: Vec<AskInput>,
    /// The images of a chat.
    pub images: Vec<AskImage>,
    /// Answers to each prompt.
    pub n: u32,
    /// Everything else about the answers.
    pub generation: Generation,
    /// Seconds since the Unix epoch when the request came.
    pub now_unix: i64,
    /// Trace context of the request.
    pub traceparent: String,
}

/// Answers that the pipeline has admitted.
pub struct Opened {
    /// The answers with their places: prompt times `n` plus choice.
    pub answers: Vec<(usize, Answer)>,
    /// Tokens of the prompts, each prompt counted once.
    pub prompt_tokens: u32,
    /// The prompts as they travel.
    pub inputs: Vec<Input>,
    /// The images of a chat, in the store while they are held.
    pub images: Arc<Images>,
}

impl Plan {
    /// How many answers it asks for.
    pub fn answers(&self) -> usize {
        self.inputs.len() * self.n as usize
    }

    /// What the journal has to know beside the prompts.
    pub fn asked(&self, dialect: Dialect, head: &Head, include_usage: bool, key: Option<[u8; 32]>) -> Asked {
        let generation = self.generation.clone();
        Asked { dialect, head: head.clone(), include_usage, n: self.n, generation, key }
    }

    /// Opens all answers at once. When one is refused, the others are cancelled.
    pub async fn open(self, door: &Door) -> Result<Opened, Failure> {
        let n = self.n as usize;
        let record = &self.record;
        let answers = self.answers();
        let images = door.store(&self.images).await?;
        let prompts = try_join_all(self.inputs.into_iter().map(|input| door.take_in(input))).await?;
        let asks = (0..answers).map(|index| Ask {
            choice: index as u32,
            input: prompts[index / n].clone(),
            images: images.clone(),
            generation: self.generation.clone(),
            now_unix: self.now_unix,
            deadline: Duration::from_secs(record.deadline_seconds),
            traceparent: Some(self.traceparent.clone()),
        });
        let answers = try_join_all(asks.map(|ask| door.open(record, ask))).await?;
        let prompt_tokens = answers.iter().step_by(n).map(Answer::prompt_tokens).sum();
        let inputs = prompts.iter().map(|prompt| prompt.input().clone()).collect();
        Ok(Opened { answers: answers.into_iter().enumerate().collect(), prompt_tokens, inputs, images })
    }
}
