//! detokenize → door: pieces of answers.

use rkyv::{Archive, Deserialize, Serialize};

use crate::token::Finish;
use crate::{Edge, RouteId, SessionId};

/// A token as a client sees it in `logprobs`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's own bytes, perhaps a part of a character.
    pub bytes: Vec<u8>,
    /// Log probability at temperature 1.
    pub logprob: f32,
    /// The most probable alternatives, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// The next piece of one answer.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The session.
    pub session: SessionId,
    /// Which attempt of it.
    pub attempt: u32,
    /// The admission that made it.
    pub route: RouteId,
    /// Index in the answer of the first of `ids`: a session sees a gap or a repeat by it.
    pub first: u32,
    /// The token ids, released at once.
    pub ids: Vec<u32>,
    /// Text that became releasable; may lag behind `ids` by part of a character or of a stop sequence.
    pub text: String,
    /// One entry a token id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the last chunk.
    pub finish: Option<Finish>,
}

/// All chunks of one step for one door.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Chunks {
    /// One entry a session.
    pub chunks: Vec<Chunk>,
}

impl Edge for Chunks {
    const KIND: u16 = 9;
}
