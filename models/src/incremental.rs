//! Decoding token by token, into pieces of text that are final.

use std::mem;
use std::sync::Arc;

use crate::tokenizer::{Tokenizer, TokenizerError};

/// How much of a prompt is looked at: enough to complete a character and to know whether a space comes first.
const PROMPT_TAIL_TOKENS: usize = 16;

/// Tokens held back at most while they wait for the rest of a character. A character has four bytes, so a
/// fifth token that still ends in U+FFFD shows that the bytes are not UTF-8.
const HELD_TOKENS_MAX: usize = 4;

/// Turns token ids into text as they come.
///
/// The pieces from [`push`](Self::push) and [`finish`](Self::finish), joined, are what [`Tokenizer::decode`]
/// makes of all ids at once (with a prompt tail: what it adds to the text of the prompt). Text that later
/// tokens might change is held back: the beginning of a character whose bytes are split over tokens.
///
/// One difference remains, for tokenizers with byte fallback: they turn a *run* of byte tokens into U+FFFD
/// when any of its bytes is wrong, also those of characters that were complete, and so delivered, before the
/// wrong byte came.
#[derive(Debug)]
pub struct IncrementalDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Decoding is joining bytes: the bytes of a character that is not complete, at most three.
    Bytes(Vec<u8>),
    /// Any other decoder.
    Window(Window),
}

/// The last tokens, decoded together, because a token's text depends on its neighbours.
#[derive(Debug, Default)]
struct Window {
    /// Tokens whose text has been given out: the neighbours of those that follow.
    given: Vec<u32>,
    /// What `given` decodes to by itself.
    given_text: String,
    /// Tokens whose text is held back.
    held: Vec<u32>,
}

impl IncrementalDecoder {
    /// Starts after a prompt. `prompt_tail` holds its last tokens, or all, or none for an answer that is
    /// decoded by itself.
    pub fn new(tokenizer: Arc<Tokenizer>, prompt_tail: &[u32], skip_special: bool) -> Self {
        let state =
            if tokenizer.joins_bytes() { State::Bytes(Vec::new()) } else { State::Window(Window::default()) };
        let mut decoder = Self { tokenizer, skip_special, state };
        decoder.look_at(prompt_tail);
        decoder
    }

    /// Adds a token and returns the text that has become final, often its own, sometimes none.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        if !self.tokenizer.is_decoded(id, self.skip_special) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(incomplete) => {
                incomplete.extend(self.tokenizer.joined_bytes(id).unwrap_or_default());
                Ok(take_complete(incomplete))
            }
            State::Window(window) => window.push(&self.tokenizer, id),
        }
    }

    /// Returns the text that was held back, as it reads when nothing follows.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        match &mut self.state {
            State::Bytes(incomplete) => Ok(String::from_utf8_lossy(&mem::take(incomplete)).into_owned()),
            State::Window(window) => {
                let text = window.text(&self.tokenizer)?;
                window.give_held(&self.tokenizer, &text)
            }
        }
    }

    /// Takes the state that pushing the prompt would have led to. The tail may begin inside a character,
    /// whose last bytes would spoil what follows them.
    fn look_at(&mut self, prompt_tail: &[u32]) {
        let tail = &prompt_tail[prompt_tail.len().saturating_sub(PROMPT_TAIL_TOKENS)..];
        let inside_character = |id: &u32| {
            let bytes = self.tokenizer.token_bytes(*id);
            bytes.is_some_and(|bytes| bytes.first().is_some_and(|byte| (0x80..0xC0).contains(byte)))
        };
        let cut = tail.iter().take_while(|id| inside_character(id)).count();
        for &id in &tail[cut..] {
            // A prompt that cannot be decoded is no context; the answer is still decoded, by itself.
            if self.push(id).is_err() {
                self.state = State::Window(Window::default());
            }
        }
    }
}

impl Window {
    fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TokenizerError> {
        self.held.push(id);
        let text = self.text(tokenizer)?;
        let grown = text.len() > self.given_text.len() && text.starts_with(&self.given_text);
        let is_final = grown && !text.ends_with(char::REPLACEMENT_CHARACTER);
        if is_final || self.held.len() > HELD_TOKENS_MAX {
            self.give_held(tokenizer, &text)
        } else {
            Ok(String::new())
        }
    }

    /// What the held tokens add to `text`, the text of the window. They become the neighbours of the next
    /// ones, unless they add nothing: beside neighbours without text, a decoder that drops the first space
    /// would drop another.
    fn give_held(&mut self, tokenizer: &Tokenizer, text: &str) -> Result<String, TokenizerError> {
        let held = mem::take(&mut self.held);
        let held_text = tokenizer.decode(&held, false)?;
        let added = match text.strip_prefix(self.given_text.as_str()) {
            Some(added) => added.to_owned(),
            None => held_text.clone(), // what was given out cannot be changed any more
        };
        if !added.is_empty() {
            (self.given, self.given_text) = (held, held_text);
        }
        Ok(added)
    }

    /// Special tokens that are to be skipped never get here, so none are skipped now.
    fn text(&self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        tokenizer.decode(&[self.given.as_slice(), &self.held].concat(), false)
    }
}

/// Removes the complete characters from the front of `bytes`, and what cannot become one, which reads as
/// U+FFFD.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut incomplete = Vec::new();
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_last = chunks.peek().is_none();
        match std::str::from_utf8(chunk.invalid()) {
            Ok(_) => {} // empty
            Err(error) if is_last && error.error_len().is_none() => incomplete = chunk.invalid().to_vec(),
            Err(_) => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
    *bytes = incomplete;
    text
}
