//! tokenize → shard-forward.0: a request as token ids.

use rkyv::{Archive, Deserialize, Serialize};

use crate::Edge;
use crate::request::{Context, Generation, Payload};

/// A prompt that fits the context, ready for admission.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Who asks, and until when.
    pub context: Context,
    /// Token ids, u32 little-endian: the prompt, then the forced tokens of earlier attempts.
    pub ids: Payload,
    /// How many of `ids` are the prompt.
    pub prompt_tokens: u32,
    /// Longest answer in tokens, forced ones included. At least 1; with the prompt it fits the context.
    pub max_tokens: u32,
    /// The answer's other settings.
    pub generation: Generation,
    /// Token ids with which the model ends a sequence.
    pub eos: Vec<u32>,
}

impl Edge for Prompt {
    const KIND: u16 = 2;
}
