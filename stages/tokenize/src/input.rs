//! The bytes of a request's prompt, wherever they are.

use bytes::Bytes;
use schemas::request::{BlobRef, Input, Payload};
use schemas::{Failure, FailureKind};

/// The payload of `input`.
pub fn payload(input: &Input) -> &Payload {
    match input {
        Input::Chat(payload) | Input::Text(payload) | Input::Ids(payload) => payload,
    }
}

/// The request field that clients know `input` by.
pub fn field(input: &Input) -> &'static str {
    match input {
        Input::Chat(_) => "messages",
        Input::Text(_) | Input::Ids(_) => "prompt",
    }
}

/// The blobs to fetch for `input`.
pub fn blobs(input: &Input) -> Vec<BlobRef> {
    match payload(input) {
        Payload::Inline(_) => Vec::new(),
        Payload::Blob(blob) => vec![*blob],
    }
}

/// The content of `input`; `fetched` are the blobs that [`blobs`] named.
pub fn content<'a>(input: &'a Input, fetched: &'a [Option<Bytes>]) -> Result<&'a [u8], Failure> {
    match payload(input) {
        Payload::Inline(content) => Ok(content),
        Payload::Blob(_) => match fetched.first() {
            Some(Some(content)) => Ok(content),
            _ => Err(Failure::new(FailureKind::Unavailable, "the stored prompt has expired")),
        },
    }
}

/// Text that must be UTF-8.
pub fn text<'a>(content: &'a [u8], field: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(content)
        .map_err(|error| Failure::invalid(field, format!("`{field}` is not UTF-8: {error}")))
}

/// Token ids from u32 little-endian.
pub fn ids(content: &[u8], field: &str) -> Result<Vec<u32>, Failure> {
    let (ids, rest) = content.as_chunks::<4>();
    if rest.is_empty() {
        return Ok(ids.iter().map(|id| u32::from_le_bytes(*id)).collect());
    }
    Err(Failure::invalid(
        field,
        format!("`{field}` is {} bytes of token ids, must be a multiple of 4", content.len()),
    ))
}

/// The bytes of token ids, u32 little-endian.
pub fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}
