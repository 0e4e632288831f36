//! Door → journal → any door: what was asked for a stream and what its client was sent, so that another door can go on.

use rkyv::{Archive, Deserialize, Serialize};

use crate::chunk::TokenLogprob;
use crate::request::{Generation, Image, Input, Payload};
use crate::token::Finish;
use crate::{Edge, Fingerprint, InstanceId, StreamId};

/// The words in which a stream is written.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Of chat completions.
    Chat,
    /// Of completions.
    Completion,
}

/// A stream from here on is written by `door`: everything that another door needs to take it over.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Opening {
    /// The stream.
    pub stream: StreamId,
    /// Fresh for every opening: entries of another one are not of this stream's present writer.
    pub epoch: u64,
    /// The door whose entries follow.
    pub door: InstanceId,
    /// The pipeline.
    pub fp: Fingerprint,
    /// BLAKE3 of the API key that asked, if one did: nobody else may read.
    pub key: Option<[u8; 32]>,
    /// How events are written.
    pub dialect: Dialect,
    /// The `id` of every event's document.
    pub document: String,
    /// Seconds since the Unix epoch when the request came: `created` in the events, and what templates print.
    pub now_unix: i64,
    /// Whether the client asked for the usage.
    pub include_usage: bool,
    /// The prompts.
    pub inputs: Vec<Input>,
    /// Answers to each prompt.
    pub n: u32,
    /// The images of a chat.
    pub images: Vec<Image>,
    /// Everything else about the answers.
    pub generation: Generation,
    /// Tokens of the prompts, each prompt counted once.
    pub prompt_tokens: u32,
    /// What was sent before this opening: an encoded [`Entries`].
    pub sent: Payload,
}

impl Edge for Opening {
    const KIND: u16 = 11;

    fn check(&self) -> Result<(), String> {
        match self.inputs.len() * self.n as usize {
            0 => Err("a stream without answers".into()),
            _ => Ok(()),
        }
    }
}

/// A piece of one answer of a stream, as its client gets it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// The opening that it follows.
    pub epoch: u64,
    /// Which answer: prompt times `n` plus choice.
    pub index: u32,
    /// The token ids.
    pub ids: Vec<u32>,
    /// The text.
    pub text: String,
    /// One entry a token id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the answer's last piece.
    pub finish: Option<Finish>,
}

/// What a door sends to all its clients at once, recorded before it is sent.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Entries {
    /// In the order in which they are sent.
    pub entries: Vec<Entry>,
}

impl Edge for Entries {
    const KIND: u16 = 12;
}
