//! From a request to its open answers: one for each prompt and choice.

use std::time::Duration;

use futures_util::future::try_join_all;
use pipelines::record::Record;
use pipelines::session::{Answer, Ask, AskImage, AskInput, Door};
use schemas::Failure;
use schemas::request::Generation;

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

/// Answers that the pipeline has admitted, in the order prompt times `n` plus choice.
pub struct Opened {
    /// The answers.
    pub answers: Vec<Answer>,
    /// Tokens of the prompts, each prompt counted once.
    pub prompt_tokens: u32,
}

impl Plan {
    /// How many answers it asks for.
    pub fn answers(&self) -> usize {
        self.inputs.len() * self.n as usize
    }

    /// Opens all answers at once. When one is refused, the others are cancelled.
    pub async fn open(self, door: &Door) -> Result<Opened, Failure> {
        let n = self.n as usize;
        let record = &self.record;
        let images = door.store(&self.images).await?;
        let asks = (0..self.answers()).map(|index| Ask {
            choice: index as u32,
            input: self.inputs[index / n].clone(),
            images: images.clone(),
            generation: self.generation.clone(),
            now_unix: self.now_unix,
            deadline: Duration::from_secs(record.deadline_seconds),
            traceparent: Some(self.traceparent.clone()),
        });
        let answers = try_join_all(asks.map(|ask| door.open(record, ask))).await?;
        let prompt_tokens = answers.iter().step_by(n).map(Answer::prompt_tokens).sum();
        Ok(Opened { answers, prompt_tokens })
    }
}
