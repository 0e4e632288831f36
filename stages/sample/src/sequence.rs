//! One sequence: its rules, its draws, the end of its answer.

use schemas::SequenceId;
use schemas::control::Open;
use schemas::hidden::Slice;
use schemas::logits::Row;
use schemas::token::{Finish, Token};

use crate::draw::draw;
use crate::logprobs::logprobs;
use crate::order::{self, RowError};
use crate::philox::uniform;
use crate::rules::Rules;

/// Tokens at the end of a prompt that detokenize is told: enough to complete a character, and to see whether a space follows.
const PROMPT_TAIL_TOKENS: u32 = 16;

/// What a row gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    /// The next token.
    Token(Token),
    /// Nothing before the complete row is there.
    NeedRow,
    /// Nothing: this position has passed.
    Passed,
}

/// A sequence that shard-forward.0 has opened here.
#[derive(Debug)]
pub struct Sequence {
    open: Open,
    rules: Rules,
    awaited: Option<u32>,
    failed: bool,
}

impl Sequence {
    /// A sequence before its first row.
    pub fn new(open: Open) -> Self {
        Self { rules: Rules::new(&open), open, awaited: None, failed: false }
    }

    /// What shard-forward.0 said of it.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Whether it has failed: its rows are ignored until it is released.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Marks it failed.
    pub fn fail(&mut self) {
        self.failed = true;
        self.awaited = None;
    }

    /// Adds the rows of `slice` to the history.
    pub fn push(&mut self, slice: &Slice) -> Result<(), RowError> {
        self.rules.push(&self.open, slice)
    }

    /// Draws from `row`, and remembers when its complete form is needed.
    pub fn draw(&mut self, row: &Row) -> Result<Drawn, RowError> {
        let expected = self.rules.next();
        if row.position < expected {
            return Ok(Drawn::Passed);
        }
        let misplaced = RowError::Position { found: row.position, expected };
        let Some(index) =
            row.position.checked_sub(self.open.prompt_tokens).filter(|_| row.position == expected)
        else {
            return Err(misplaced);
        };
        let drawn = match self.token(row, index)? {
            Some(token) => Drawn::Token(token),
            None if row.complete() => return Err(RowError::NotFinite),
            None => Drawn::NeedRow,
        };
        self.awaited = (drawn == Drawn::NeedRow).then_some(row.position);
        Ok(drawn)
    }

    /// Draws from a row that was asked for.
    pub fn draw_awaited(&mut self, row: &Row) -> Result<Drawn, RowError> {
        if self.awaited != Some(row.position) {
            return Ok(Drawn::Passed);
        }
        if !row.complete() {
            return Err(RowError::Partial);
        }
        self.draw(row)
    }

    /// The rows of `slice` that detokenize needs to know: the end of the prompt, and forced tokens.
    pub fn history(&self, slice: &Slice) -> Option<Slice> {
        let from = self.open.prompt_tokens.saturating_sub(PROMPT_TAIL_TOKENS).max(slice.start);
        let end = self.open.prompt_tokens.saturating_add(self.open.forced_tokens);
        let range = (from - slice.start) as usize..end.saturating_sub(slice.start) as usize;
        let ids: Vec<u32> = slice.ids.iter().take(range.end).skip(range.start).copied().collect();
        let sequence = self.open.sequence;
        (!ids.is_empty()).then_some(Slice { sequence, start: from, ids, sample: false })
    }

    fn token(&self, row: &Row, index: u32) -> Result<Option<Token>, RowError> {
        order::check(row)?;
        let generation = &self.open.generation;
        let extras = self.rules.adjusted(&self.open, row, index)?;
        let number = uniform(generation.sampling.seed, self.open.context.choice, index);
        let Some(id) = draw(row, &extras, &generation.sampling, number)? else { return Ok(None) };
        let logprobs = match generation.logprobs {
            None => None,
            Some(count) => match logprobs(row, id, count)? {
                None => return Ok(None),
                some => some,
            },
        };
        let finish = self.finish(id, index);
        let sequence: SequenceId = self.open.sequence;
        Ok(Some(Token { sequence, position: row.position, id, finish, logprobs }))
    }

    /// Whether token `id` at `index` of the answer is its last. Before `min_tokens`, ids that end it cannot be drawn.
    fn finish(&self, id: u32, index: u32) -> Option<Finish> {
        if self.open.ends_on(id) {
            Some(Finish::Stop)
        } else if index.saturating_add(1) >= self.open.max_tokens {
            Some(Finish::Length)
        } else {
            None
        }
    }
}
