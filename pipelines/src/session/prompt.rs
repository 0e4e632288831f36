//! The prompt of one request: inside its message, or by hash in the blob store when it is long.

use bytes::Bytes;
use schemas::request::{BlobRef, Input, Payload};
use schemas::{Failure, FailureKind};

use super::ask::AskInput;
use crate::bus::{Bus, INLINE_BYTES_MAX};

/// Longest list of forced ids that travels inside a request: with the longest inline prompt it fits an entry.
const FORCED_INLINE_BYTES_MAX: usize = 8 * 1024;

/// A prompt as it travels.
///
/// What is in the blob store is kept here too: the store is in the broker's memory, and a broker that starts anew has lost it.
#[derive(Debug, Clone)]
pub struct TakenIn {
    input: Input,
    content: Option<(BlobRef, Bytes)>,
}

impl TakenIn {
    /// What is said of it on the bus.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Puts a long prompt into the store.
    pub(super) async fn new(asked: AskInput, bus: &Bus) -> Result<Self, Failure> {
        let (content, input): (Vec<u8>, fn(Payload) -> Input) = match asked {
            AskInput::Chat(json) => (json, Input::Chat),
            AskInput::Text(text) => (text.into_bytes(), Input::Text),
            AskInput::Ids(ids) => (bytes_of(&ids), Input::Ids),
        };
        let (payload, content) = payload(INLINE_BYTES_MAX, content);
        let taken = Self { input: input(payload), content };
        taken.store(bus).await?;
        Ok(taken)
    }

    /// What another door has taken in. `NotFound` when the store does not have it any more.
    pub(super) async fn adopt(input: Input, bus: &Bus) -> Result<Self, Failure> {
        let (Input::Chat(payload) | Input::Text(payload) | Input::Ids(payload)) = &input;
        let Payload::Blob(blob) = payload else { return Ok(Self { input, content: None }) };
        let content = bus.fetch(*blob).await.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "prompt of a stream");
            Failure::new(FailureKind::Unavailable, "the store for long prompts and images cannot be reached")
        })?;
        let Some(content) = content else {
            let reason = "the prompt of the stream is not there any more";
            return Err(Failure::new(FailureKind::NotFound, reason).with_code("stream_not_found"));
        };
        Ok(Self { content: Some((*blob, content)), input })
    }

    /// Puts into the store what is not there.
    pub(super) async fn store(&self, bus: &Bus) -> Result<(), Failure> {
        match &self.content {
            Some((blob, content)) => bus.store(*blob, content).await,
            None => Ok(()),
        }
    }
}

/// The delivered tokens of an answer as they travel in the request of its next attempt, beside the prompt.
pub(super) async fn forced(ids: &[u32], bus: &Bus) -> Result<Payload, Failure> {
    let (payload, content) = payload(FORCED_INLINE_BYTES_MAX, bytes_of(ids));
    if let Some((blob, content)) = content {
        bus.store(blob, &content).await?;
    }
    Ok(payload)
}

fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// How `content` travels, and what must be in the store for it.
fn payload(inline_max: usize, content: Vec<u8>) -> (Payload, Option<(BlobRef, Bytes)>) {
    if content.len() <= inline_max {
        return (Payload::Inline(content), None);
    }
    let content = Bytes::from(content);
    let blob = BlobRef { hash: *blake3::hash(&content).as_bytes(), bytes: content.len() as u64 };
    (Payload::Blob(blob), Some((blob, content)))
}
