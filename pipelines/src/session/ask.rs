//! What a door asks for: one answer to one prompt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::Failure;
use schemas::request::{BlobRef, Generation, Input, Payload};

use super::images::Images;
use crate::bus::{Bus, INLINE_BYTES_MAX};

/// Longest list of forced ids that travels inside a request: with the longest inline prompt it fits an entry.
const FORCED_INLINE_BYTES_MAX: usize = 8 * 1024;

/// One answer to one prompt, with everything fixed that must not differ on a second try.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which of the request's independent answers this is; keys the random numbers.
    pub choice: u32,
    /// The prompt, see [`Door::take_in`](super::Door::take_in).
    pub input: Input,
    /// The images of a chat, in the order of its image parts.
    pub images: Arc<Images>,
    /// The answer's settings.
    pub generation: Generation,
    /// Seconds since the Unix epoch, for templates that print the date.
    pub now_unix: i64,
    /// Longest time until the answer's end.
    pub deadline: Duration,
    /// W3C trace context of the client's request.
    pub traceparent: Option<String>,
}

/// The prompt as the client gave it.
#[derive(Debug, Clone)]
pub enum AskInput {
    /// JSON object with `messages` and what else the chat template gets.
    Chat(Vec<u8>),
    /// Text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

impl AskInput {
    /// The prompt as it travels: inside the message, or by hash when it is long.
    pub(super) async fn onto(self, bus: &Bus) -> Result<Input, Failure> {
        Ok(match self {
            AskInput::Chat(json) => Input::Chat(payload(json, bus).await?),
            AskInput::Text(text) => Input::Text(payload(text.into_bytes(), bus).await?),
            AskInput::Ids(ids) => Input::Ids(payload(bytes_of(&ids), bus).await?),
        })
    }
}

/// The delivered tokens of an answer as they travel in the request of its next attempt, beside the prompt.
pub(super) async fn forced(ids: &[u32], bus: &Bus) -> Result<Payload, Failure> {
    payload_up_to(FORCED_INLINE_BYTES_MAX, bytes_of(ids), bus).await
}

fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

async fn payload(content: Vec<u8>, bus: &Bus) -> Result<Payload, Failure> {
    payload_up_to(INLINE_BYTES_MAX, content, bus).await
}

async fn payload_up_to(inline_max: usize, content: Vec<u8>, bus: &Bus) -> Result<Payload, Failure> {
    if content.len() <= inline_max {
        return Ok(Payload::Inline(content));
    }
    let content = Bytes::from(content);
    let blob = BlobRef { hash: *blake3::hash(&content).as_bytes(), bytes: content.len() as u64 };
    bus.store(blob, &content).await?;
    Ok(Payload::Blob(blob))
}
