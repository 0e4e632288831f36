//! One answer: its decoder, its stop sequences, the position that comes next.
//!
//! Everything released after a token is a function of the token ids up to it. An attempt that takes over replays the forced
//! ids without emitting, and so arrives at the same released text and the same held-back text as the one that delivered them.

use std::sync::Arc;

use models::{IncrementalDecoder, Tokenizer, TokenizerError};
use schemas::chunk::TokenLogprob;
use schemas::control::Open;
use schemas::hidden::Slice;
use schemas::token::{Finish, Logprobs, Token};

use crate::stop::{Released, StopMatcher};

/// Why an answer has no more text.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Tokens before this one are missing.
    #[error("token at position {found} where {expected} is next")]
    Gap {
        /// The position in the message.
        found: u32,
        /// The next position of the answer.
        expected: u32,
    },
    /// The tokenizer refuses a token.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// What a token adds to an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Index of the token in the answer.
    pub index: u32,
    /// Its id.
    pub id: u32,
    /// Text that it made releasable.
    pub text: String,
    /// Its log probability, when asked for.
    pub logprob: Option<TokenLogprob>,
    /// Why it is the last one, if it is.
    pub finish: Option<Finish>,
    /// Whether a stop sequence ended the answer, which shard-forward.0 does not know.
    pub stopped: bool,
}

/// The text of one sequence.
#[derive(Debug)]
pub struct Answer {
    open: Open,
    tokenizer: Arc<Tokenizer>,
    prompt_tail: Vec<u32>,
    decoder: Option<IncrementalDecoder>,
    stops: StopMatcher,
    next: u32,
    ended: bool,
}

impl Answer {
    /// An answer before its first token.
    pub fn new(open: Open, tokenizer: Arc<Tokenizer>) -> Self {
        let stops = StopMatcher::new(&open.generation.stop.sequences);
        Self { open, tokenizer, prompt_tail: Vec::new(), decoder: None, stops, next: 0, ended: false }
    }

    /// What shard-forward.0 said of it.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Ends it: what comes later is ignored.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Takes in the end of the prompt, and tokens that were delivered by earlier attempts.
    pub fn replay(&mut self, slice: &Slice) -> Result<(), AnswerError> {
        for (position, id) in (slice.start..).zip(&slice.ids) {
            if position < self.next || self.ended {
                continue;
            }
            if position < self.open.prompt_tokens {
                self.prompt_tail.push(*id);
            } else {
                self.expect(position)?;
                let text = self.decode(*id)?;
                // An answer that had ended would not have been resumed.
                self.stops.push(&text);
            }
            self.next = position.saturating_add(1);
        }
        Ok(())
    }

    /// Takes in a token; none when it came before or after the end.
    pub fn push(&mut self, token: Token) -> Result<Option<Piece>, AnswerError> {
        if self.ended || token.position < self.next.max(self.open.prompt_tokens) {
            return Ok(None);
        }
        self.expect(token.position)?;
        self.next = token.position.saturating_add(1);
        let Released { text, stopped } = self.release(&token)?;
        let finish = if stopped { Some(Finish::Stop) } else { token.finish };
        self.ended = finish.is_some();
        Ok(Some(Piece {
            index: token.position - self.open.prompt_tokens,
            id: token.id,
            text,
            logprob: token.logprobs.map(|logprobs| self.logprob(token.id, logprobs)),
            finish,
            stopped: stopped && token.finish.is_none(),
        }))
    }

    fn expect(&self, position: u32) -> Result<(), AnswerError> {
        let expected = self.next.max(self.open.prompt_tokens);
        if position == expected { Ok(()) } else { Err(AnswerError::Gap { found: position, expected }) }
    }

    /// The text that `token` releases. A token that ends the answer by its id is no part of the text.
    fn release(&mut self, token: &Token) -> Result<Released, AnswerError> {
        let mut text =
            if token.finish == Some(Finish::Stop) { String::new() } else { self.decode(token.id)? };
        if token.finish.is_some() {
            text.push_str(&self.decoder().finish()?);
        }
        let mut released = self.stops.push(&text);
        if token.finish.is_some() && !released.stopped {
            released.text.push_str(&self.stops.finish());
        }
        Ok(released)
    }

    fn decode(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.decoder().push(id)
    }

    fn decoder(&mut self) -> &mut IncrementalDecoder {
        let tokenizer = &self.tokenizer;
        let prompt_tail = &self.prompt_tail;
        self.decoder.get_or_insert_with(|| IncrementalDecoder::new(tokenizer.clone(), prompt_tail, true))
    }

    fn logprob(&self, id: u32, logprobs: Logprobs) -> TokenLogprob {
        let bytes = |id| self.tokenizer.token_bytes(id).unwrap_or_default();
        let top = logprobs.top.into_iter().map(|(id, logprob)| (bytes(id), logprob));
        TokenLogprob { bytes: bytes(id), logprob: logprobs.logprob, top: top.collect() }
    }
}
