//! Answers of `POST /v1/completions`.

use pipelines::session::Piece;
use poem_openapi::Object;
use poem_openapi::types::MaybeUndefined;
use serde::Serialize;

use super::dialect::{Dialect, Head, is_visible};
use super::logprobs::CompletionLogprobs;
use super::usage::{FinishReason, Usage};
use crate::http::collect::Whole;

/// The answers to a completions request.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Completion {
    /// Begins with `cmpl-`.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
    /// The model that answered.
    pub model: String,
    /// Fingerprint of weights, tokenizer, template and layer plan.
    pub system_fingerprint: String,
    /// One entry an answer: those to the first prompt, then those to the second, and so on.
    pub choices: Vec<CompletionChoice>,
    /// Tokens of the request.
    pub usage: Usage,
}

/// One event of a streamed completion.
#[derive(Debug, Clone, Object, Serialize)]
pub struct CompletionChunk {
    /// Begins with `cmpl-`, the same in all events of a stream.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since the Unix epoch, the same in all events of a stream.
    pub created: i64,
    /// The model that answers.
    pub model: String,
    /// Fingerprint of weights, tokenizer, template and layer plan.
    pub system_fingerprint: String,
    /// The piece of one answer; empty in the event with the usage.
    pub choices: Vec<CompletionChoice>,
    /// With `stream_options.include_usage`: null, and the tokens of the request in the last event.
    #[serde(skip_serializing_if = "MaybeUndefined::is_undefined")]
    #[oai(nullable)]
    pub usage: MaybeUndefined<Usage>,
}

/// One answer, or the next piece of one.
#[derive(Debug, Clone, Object, Serialize)]
pub struct CompletionChoice {
    /// Its place among the answers: prompt times `n` plus choice.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Why it ended; null before the last piece of a stream.
    #[oai(nullable)]
    pub finish_reason: Option<FinishReason>,
    /// When the request asked for them.
    #[oai(nullable)]
    pub logprobs: Option<CompletionLogprobs>,
}

/// Writes completions.
pub struct CompletionDialect {
    /// The latest event: the next one replaces its choice only.
    chunk: CompletionChunk,
    /// For each answer the prompt that goes before it, until it has gone out.
    echoes: Vec<Option<String>>,
    /// For each answer the characters before the next token.
    offsets: Vec<u32>,
    with_logprobs: bool,
}

impl CompletionDialect {
    /// For as many answers as there are `echoes`; with `include_usage`, every event has a `usage`.
    pub fn new(head: Head, echoes: Vec<Option<String>>, with_logprobs: bool, include_usage: bool) -> Self {
        let chunk = CompletionChunk {
            id: head.id,
            object: "text_completion".into(),
            created: head.created,
            model: head.model,
            system_fingerprint: head.fingerprint,
            choices: Vec::new(),
            usage: if include_usage { MaybeUndefined::Null } else { MaybeUndefined::Undefined },
        };
        Self { chunk, offsets: vec![0; echoes.len()], echoes, with_logprobs }
    }

    fn choice(&mut self, index: usize, piece: Piece) -> CompletionChoice {
        let text = match self.echoes[index].take() {
            Some(prompt) => prompt + &piece.text,
            None => piece.text,
        };
        let offset = &mut self.offsets[index];
        CompletionChoice {
            index: index as u32,
            text,
            finish_reason: piece.finish.map(FinishReason::from),
            logprobs: self.with_logprobs.then(|| CompletionLogprobs::new(&piece.logprobs, offset)),
        }
    }
}

impl Dialect for CompletionDialect {
    type Event = CompletionChunk;
    type Document = Completion;

    fn event(&mut self, index: usize, piece: Piece) -> Option<&CompletionChunk> {
        if !is_visible(&piece) {
            return None;
        }
        let choice = self.choice(index, piece);
        self.chunk.choices.clear();
        self.chunk.choices.push(choice);
        Some(&self.chunk)
    }

    fn usage(&mut self, usage: Usage) -> &CompletionChunk {
        self.chunk.choices.clear();
        self.chunk.usage = MaybeUndefined::Value(usage);
        &self.chunk
    }

    fn document(mut self, answers: Vec<Whole>, usage: Usage) -> Completion {
        let choices = answers.into_iter().enumerate().map(|(index, answer)| {
            let whole = Piece {
                text: answer.text,
                ids: Vec::new(),
                logprobs: answer.logprobs,
                finish: Some(answer.finish),
            };
            self.choice(index, whole)
        });
        let choices = choices.collect();
        Completion {
            id: self.chunk.id,
            object: self.chunk.object,
            created: self.chunk.created,
            model: self.chunk.model,
            system_fingerprint: self.chunk.system_fingerprint,
            choices,
            usage,
        }
    }
}
