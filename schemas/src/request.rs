//! Door → tokenize: what a client asked, with everything fixed that must not differ on a second try.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{Edge, InstanceId, SessionId};

/// What every message of one request carries.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The session at the door.
    pub session: SessionId,
    /// Which of the request's independent answers this is; keys the random numbers.
    pub choice: u32,
    /// Counts the openings of the same answer: 0, then one more a resume.
    pub attempt: u32,
    /// Where admissions, failures and chunks go.
    pub door: InstanceId,
    /// Time left when this message was sent, in milliseconds.
    pub remaining_ms: u64,
    /// Whether no other request may be worked on beside it: it may have ended those who served it before.
    pub alone: bool,
    /// W3C trace context of the client's request.
    pub traceparent: Option<String>,
}

/// Bytes that travel in the message, or by hash in the blob store when they would make it too large.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Here.
    Inline(Vec<u8>),
    /// In the blob store.
    Blob(BlobRef),
}

/// A blob by its content.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobRef {
    /// BLAKE3 of the content.
    pub hash: [u8; 32],
    /// Length of the content.
    pub bytes: u64,
}

/// How the prompt was given. The payload is UTF-8 or token ids, as the variant says.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// JSON object with `messages` (and `tools`, `template` arguments when given), for the model's chat template.
    Chat(Payload),
    /// Text, encoded with the tokenizer's own special tokens.
    Text(Payload),
    /// Token ids, u32 little-endian, taken as they are.
    Ids(Payload),
}

/// How the next token is drawn from the logits. Each default leaves the distribution as it is.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Keeps the k largest logits; 0 keeps all.
    pub top_k: u32,
    /// Keeps the smallest set of tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less probable than this fraction of the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Key of the random numbers, with the choice and the position.
    pub seed: u64,
    /// Subtracted once from the logit of every token generated before.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it was generated before.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of every token in prompt or answer; 1 is none.
    pub repetition_penalty: f32,
    /// Added to the logits of these token ids.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
        }
    }
}

/// What ends an answer, beside its length.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Stop {
    /// Texts that end the answer and are not part of it.
    pub sequences: Vec<String>,
    /// Token ids that end the answer like the model's own end of sequence.
    pub token_ids: Vec<u32>,
    /// Goes on after the model's end of sequence.
    pub ignore_eos: bool,
}

/// Everything about an answer but its prompt.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct Generation {
    /// Longest answer in tokens; none is whatever the context leaves.
    pub max_tokens: Option<u32>,
    /// No end of sequence before this many tokens.
    pub min_tokens: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What ends the answer.
    pub stop: Stop,
    /// Log probability of each token and of this many alternatives.
    pub logprobs: Option<u8>,
}

/// An image of a request, in the blob store. The door has read its header and knows its size, not whether it is whole.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The file's bytes: PNG, JPEG, WebP or GIF.
    pub file: BlobRef,
    /// Width in pixels, as the image is looked at: after the rotation that the file asks for.
    pub width: u32,
    /// Height in pixels, as the image is looked at.
    pub height: u32,
    /// The request field that it came in, for errors.
    pub field: String,
}

/// A request as a door publishes it. Tokenize is a pure function of it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Request {
    /// Who asks, and until when.
    pub context: Context,
    /// Seconds since the Unix epoch at the door, for templates that print the date.
    pub now_unix: i64,
    /// The prompt.
    pub input: Input,
    /// The images of a chat, in the order of its `image` parts.
    pub images: Vec<Image>,
    /// The answer.
    pub generation: Generation,
    /// Tokens of this answer that were delivered by earlier attempts: ids, u32 little-endian.
    pub forced: Payload,
}

impl Edge for Request {
    const KIND: u16 = 1;
}
