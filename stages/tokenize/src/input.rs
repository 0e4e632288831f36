//! The bytes of a request's prompt, wherever they are.

use bytes::Bytes;
use schemas::request::{BlobRef, Input, Payload, Request};
use schemas::{Failure, FailureKind};

/// The payload of `input`.
fn payload(input: &Input) -> &Payload {
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

/// The blobs to fetch for `request`.
pub fn blobs(request: &Request) -> Vec<BlobRef> {
    [payload(&request.input), &request.forced].into_iter().filter_map(blob).collect()
}

fn blob(payload: &Payload) -> Option<BlobRef> {
    match payload {
        Payload::Inline(_) => None,
        Payload::Blob(blob) => Some(*blob),
    }
}

/// The content of the prompt and of the forced ids; `fetched` are the blobs that [`blobs`] named.
pub fn contents<'a>(
    request: &'a Request,
    fetched: &'a [Option<Bytes>],
) -> Result<(&'a [u8], &'a [u8]), Failure> {
    let mut fetched = fetched.iter();
    let mut content = |payload: &'a Payload| match payload {
        Payload::Inline(content) => Ok(&content[..]),
        Payload::Blob(_) => match fetched.next() {
            Some(Some(content)) => Ok(&content[..]),
            _ => Err(Failure::new(FailureKind::Unavailable, "the stored prompt has expired")),
        },
    };
    Ok((content(payload(&request.input))?, content(&request.forced)?))
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
