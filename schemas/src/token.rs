//! sample → shard-forward.0 (the next step's input) and sample → detokenize.

use rkyv::{Archive, Deserialize, Serialize};

use crate::control::Head;
use crate::hidden::Slice;
use crate::{Edge, SequenceId};

/// Why an answer ended.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// End of sequence, a stop token or a stop sequence.
    Stop,
    /// The longest answer was reached.
    Length,
}

/// Log probabilities at temperature 1 of a drawn token and its alternatives.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Of the drawn token.
    pub logprob: f32,
    /// The most probable ids with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// One drawn token.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Token {
    /// The sequence.
    pub sequence: SequenceId,
    /// Its position, in tokens from the sequence start.
    pub position: u32,
    /// Its id.
    pub id: u32,
    /// Set on the last token of an answer.
    pub finish: Option<Finish>,
    /// When the request asked for them.
    pub logprobs: Option<Logprobs>,
}

/// The tokens of one step for one receiver.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Tokens {
    /// Sender, number and decisions; empty of decisions towards shard-forward.0, which made them.
    pub head: Head,
    /// What detokenize must know of a sequence before its first token: the end of the prompt, and the forced tokens of an
    /// answer that goes on.
    pub forced: Vec<Slice>,
    /// One entry a sequence that drew.
    pub tokens: Vec<Token>,
}

impl Edge for Tokens {
    const KIND: u16 = 8;
}
