//! Answers as a whole, for requests that do not stream.

use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use pipelines::session::Answer;
use schemas::chunk::TokenLogprob;
use schemas::token::Finish;
use schemas::{Failure, FailureKind};

use crate::http::answer::dialect::Dialect;
use crate::http::generate::Opened;
use crate::http::meter::Meter;

/// One answer from its first to its last token.
pub struct Whole {
    /// The text.
    pub text: String,
    /// One entry a token, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: Finish,
}

/// Waits for all answers. When one fails, the others are cancelled.
pub async fn collect<D: Dialect>(
    opened: Opened,
    mut meter: Meter,
    dialect: D,
) -> Result<D::Document, Failure> {
    meter.admitted(opened.prompt_tokens);
    let meter = Mutex::new(meter);
    let reading = opened.answers.into_iter().map(|(index, answer)| read(index, answer, &meter));
    let answers = try_join_all(reading).await?;
    let usage = meter.into_inner().unwrap_or_else(PoisonError::into_inner).usage();
    Ok(dialect.document(answers, usage))
}

async fn read(index: usize, mut answer: Answer, meter: &Mutex<Meter>) -> Result<Whole, Failure> {
    let mut text = String::new();
    let mut logprobs = Vec::new();
    while let Some(piece) = answer.next().await.transpose()? {
        meter.lock().unwrap_or_else(PoisonError::into_inner).grew(index, piece.ids.len());
        text.push_str(&piece.text);
        logprobs.extend(piece.logprobs);
        if let Some(finish) = piece.finish {
            return Ok(Whole { text, logprobs, finish });
        }
    }
    Err(Failure::new(FailureKind::Internal, "an answer ended without a reason"))
}
