//! What identifies one request in logs, in its answer and on the bus.

use std::sync::OnceLock;
use std::time::Instant;

use poem::Request;

/// Name of the header that carries a request's id, in and out.
pub const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is taken over from a client.
const ID_BYTES_MAX: usize = 128;

/// One request.
#[derive(Debug)]
pub struct Trace {
    /// The client's id for it, or one of ours.
    pub id: String,
    /// W3C trace context: the client's, or a new one.
    pub traceparent: String,
    /// BLAKE3 of the API key that came with it.
    pub key: Option<[u8; 32]>,
    /// When it arrived.
    pub started: Instant,
    /// The model that it names, once that is known to exist: so the label of metrics stays bounded.
    pub model: OnceLock<String>,
}

impl Trace {
    /// The trace of `request`; header values that break the rules are replaced, as if they were absent.
    pub fn of(request: &Request) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            id: header(REQUEST_ID).filter(|id| is_id(id)).map_or_else(new_id, str::to_owned),
            traceparent: header("traceparent")
                .filter(|value| is_traceparent(value))
                .map_or_else(new_traceparent, str::to_owned),
            key: header("authorization")
                .and_then(|value| value.split_once(' '))
                .map(|(_, key)| *blake3::hash(key.trim().as_bytes()).as_bytes()),
            started: Instant::now(),
            model: OnceLock::new(),
        }
    }
}

fn is_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

fn new_id() -> String {
    format!("req-{:032x}", rand::random::<u128>())
}

/// `00-<trace id>-<parent id>-<flags>` in lower-case hexadecimal, neither id all zeros.
/// Source: W3C Trace Context, section 3.2.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let is_hex = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    match parts[..] {
        ["00", trace, parent, flags] => {
            is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2) && !is_zero(trace) && !is_zero(parent)
        }
        _ => false,
    }
}

fn new_traceparent() -> String {
    let (trace, parent) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
    format!("00-{trace:032x}-{parent:016x}-01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_contexts_are_taken_over() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent(&new_traceparent()));
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_short_plain_ids_are_taken_over() {
        assert!(is_id("a-1_b.c:d"));
        assert!(!is_id(""));
        assert!(!is_id("a b"));
        assert!(!is_id(&"a".repeat(129)));
    }
}
