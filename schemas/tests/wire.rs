//! Every edge: bytes that never change under one wire version, at any alignment, refused when cut or altered.
//!
//! The files in `golden/` were written by this test: `UPDATE_GOLDEN=1 cargo test --release -p schemas`, for a new wire
//! version only.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use schemas::admission::{Event, Notice, Route};
use schemas::chunk::{Chunk, Chunks, TokenLogprob};
use schemas::control::{Control, Feedback, Head, Open, Say};
use schemas::hidden::{Hidden, Slice};
use schemas::journal::{Dialect, Entries, Entry, Opening};
use schemas::logits::{Logits, NeedRow, Row};
use schemas::presence::{Presence, Room, State};
use schemas::prompt::{Grid, Prompt, PromptImage, Span};
use schemas::quarantine::Quarantined;
use schemas::request::{BlobRef, Context, Generation, Image, Input, Payload, Request, Sampling, Stop};
use schemas::token::{Finish, Logprobs, Token, Tokens};
use schemas::{
    DType, Edge, Failure, Fingerprint, InstanceId, Role, RouteId, SequenceId, SessionId, StreamId, Tensor,
    WireError, wire,
};

fn context() -> Context {
    Context {
        session: SessionId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        choice: 2,
        attempt: 1,
        door: InstanceId(0xd00d),
        remaining_ms: 12_345,
        alone: true,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

fn generation() -> Generation {
    Generation {
        max_tokens: Some(64),
        min_tokens: 3,
        sampling: Sampling { temperature: 0.5, seed: 42, logit_bias: vec![(7, -1.5)], ..Sampling::default() },
        stop: Stop { sequences: vec!["\n\n".into()], token_ids: vec![9], ignore_eos: true },
        logprobs: Some(4),
    }
}

fn request() -> Request {
    Request {
        context: context(),
        now_unix: 1_700_000_000,
        input: Input::Chat(Payload::Inline(br#"{"messages":[]}"#.to_vec())),
        generation: generation(),
        images: vec![image()],
        forced: Payload::Inline(vec![1, 0, 0, 0, 2, 0, 0, 0]),
    }
}

fn prompt() -> Prompt {
    Prompt {
        context: context(),
        ids: Payload::Blob(BlobRef { hash: [7; 32], bytes: 400 }),
        prompt_tokens: 97,
        max_tokens: 64,
        generation: generation(),
        eos: vec![1, 5],
        images: vec![PromptImage { image: image(), rows: 6 }],
        spans: vec![Span { start: 3, rows: 4 }, Span { start: 9, rows: 2 }],
        grids: vec![Grid { start: 3, rows: 2, columns: 2 }, Grid { start: 9, rows: 1, columns: 2 }],
        embeddings: Some(Payload::Inline(vec![0; 12])),
    }
}

fn image() -> Image {
    let file = BlobRef { hash: [8; 32], bytes: 900 };
    Image { file, width: 64, height: 48, field: "messages[0].content[0].image_url".into() }
}

fn head() -> Head {
    let open = Open {
        sequence: SequenceId(11),
        context: context(),
        route: RouteId(0xabc),
        shards: vec![InstanceId(1), InstanceId(2)],
        sample: InstanceId(3),
        detokenize: InstanceId(4),
        prompt_tokens: 97,
        forced_tokens: 3,
        max_tokens: 64,
        generation: generation(),
        eos: vec![1, 5],
        grids: vec![Grid { start: 3, rows: 2, columns: 2 }],
    };
    Head {
        origin: InstanceId(1),
        step: 99,
        control: vec![Control::Open(Box::new(open)), Control::Release(SequenceId(10))],
    }
}

fn slice() -> Slice {
    Slice { sequence: SequenceId(11), start: 96, ids: vec![5, 6], sample: true }
}

fn hidden() -> Hidden {
    let data: Vec<u8> = (0..2 * 3 * 4).collect();
    let states = Tensor::new(DType::F32, vec![2, 3], data.into()).unwrap();
    Hidden { head: head(), slices: vec![slice()], states: Some(states) }
}

fn logits() -> Logits {
    let row = Row {
        sequence: SequenceId(11),
        position: 98,
        vocabulary: 264,
        candidates: vec![(5, 3.25), (9, 3.0)],
        extras: vec![(7, -0.5)],
        logsumexp: 4.5,
        logsumexp_scaled: 7.75,
    };
    Logits { head: head(), keeper: InstanceId(2), slices: vec![slice()], rows: vec![row] }
}

fn tokens() -> Tokens {
    let token = Token {
        sequence: SequenceId(11),
        position: 98,
        id: 5,
        finish: Some(Finish::Length),
        logprobs: Some(Logprobs { logprob: -1.25, top: vec![(5, -1.25), (9, -1.5)] }),
    };
    Tokens { head: head(), forced: vec![slice()], tokens: vec![token] }
}

fn chunks() -> Chunks {
    let chunk = Chunk {
        session: context().session,
        attempt: 1,
        route: RouteId(0xabc),
        first: 3,
        ids: vec![5],
        text: "é🙂".into(),
        logprobs: vec![TokenLogprob {
            bytes: vec![0xf0, 0x9f],
            logprob: -0.5,
            top: vec![(vec![0xf0], -0.5)],
        }],
        finish: Some(Finish::Stop),
    };
    Chunks { chunks: vec![chunk] }
}

fn opening() -> Opening {
    Opening {
        stream: StreamId(0xfeed_beef),
        epoch: 77,
        door: InstanceId(0xd00d),
        fp: Fingerprint(0xfeed),
        key: Some([9; 32]),
        dialect: Dialect::Completion,
        document: "cmpl-1".into(),
        now_unix: 1_700_000_000,
        include_usage: true,
        inputs: vec![Input::Text(Payload::Inline(b"once".to_vec()))],
        n: 2,
        images: vec![image()],
        generation: generation(),
        prompt_tokens: 4,
        sent: Payload::Inline(vec![1, 2, 3]),
    }
}

fn entries() -> Entries {
    let Chunk { ids, text, logprobs, finish, .. } = chunks().chunks.remove(0);
    let entry = Entry { stream: StreamId(0xfeed_beef), epoch: 77, index: 1, ids, text, logprobs, finish };
    Entries { entries: vec![entry] }
}

fn presence() -> Presence {
    Presence {
        instance: InstanceId(2),
        role: Role::ShardForward(1),
        fp: Some(Fingerprint(0xfeed)),
        state: State::Draining,
        beat: 17,
        reconnects: 2,
        busy_ms: 4,
        done: 1000,
        used: Room { sequences: 3, kv_blocks: 40 },
        capacity: Room { sequences: 64, kv_blocks: 2048 },
        grants: vec![(InstanceId(1), Room { sequences: 32, kv_blocks: 1024 })],
        held: vec![(InstanceId(9), Room { sequences: 1, kv_blocks: 2 })],
        compute: "host/cpu/0-1".into(),
        pid: 4321,
        admin: Some("127.0.0.1:9000".into()),
        version: "0.1.0 (abc)".into(),
    }
}

fn notice() -> Notice {
    let route = Route {
        fp: Fingerprint(0xfeed),
        id: RouteId(0xabc),
        shards: vec![InstanceId(1), InstanceId(2)],
        sample: InstanceId(3),
        detokenize: InstanceId(4),
    };
    Notice { session: context().session, attempt: 1, event: Event::Admitted { route, prompt_tokens: 97 } }
}

fn failed() -> Notice {
    let failure = Failure::invalid("max_tokens", "too long").with_code("context_length_exceeded");
    Notice { session: context().session, attempt: 0, event: Event::Failed { route: None, failure } }
}

fn feedback() -> Feedback {
    Feedback { entries: vec![(RouteId(0xabc), Say::Delivered(16)), (RouteId(0xabd), Say::Cancel)] }
}

fn need_row() -> NeedRow {
    NeedRow { origin: InstanceId(1), step: 99, sample: InstanceId(3), rows: vec![(SequenceId(11), 98)] }
}

fn quarantined() -> Quarantined {
    Quarantined { fp: Fingerprint(0xfeed), prompt: [0xab; 32] }
}

/// Runs the same check over a sample of every edge.
macro_rules! for_every_edge {
    ($check:ident) => {{
        $check("request", request());
        $check("prompt", prompt());
        $check("admitted", notice());
        $check("failed", failed());
        $check("feedback", feedback());
        $check("hidden", hidden());
        $check("logits", logits());
        $check("need_row", need_row());
        $check("tokens", tokens());
        $check("chunks", chunks());
        $check("presence", presence());
        $check("opening", opening());
        $check("entries", entries());
        $check("quarantined", quarantined());
    }};
}

/// An edge that can be read back.
trait Readable: Edge + PartialEq + Debug {
    fn read(payload: &Bytes) -> Result<Self, WireError>;
}

macro_rules! readable {
    ($($edge:ty),*) => { $(impl Readable for $edge {
        fn read(payload: &Bytes) -> Result<Self, WireError> { wire::decode(payload) }
    })* };
}

readable!(
    Request,
    Prompt,
    Notice,
    Feedback,
    Hidden,
    Logits,
    NeedRow,
    Tokens,
    Chunks,
    Presence,
    Opening,
    Entries,
    Quarantined
);

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_bytes_of_every_edge_are_those_of_this_wire_version() {
    fn check<T: Readable>(name: &str, message: T) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
        let bytes = hex(&wire::encode(&message));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            bytes,
            "{name}: a change needs a new WIRE_VERSION"
        );
    }
    for_every_edge!(check);
}

#[test]
fn every_edge_comes_back_whole_at_every_alignment() {
    fn check<T: Readable>(name: &str, message: T) {
        let bytes = wire::encode(&message);
        for offset in 0..16 {
            let mut shifted = BytesMut::zeroed(offset);
            shifted.extend_from_slice(&bytes);
            let payload = shifted.freeze().slice(offset..);
            assert_eq!(T::read(&payload).as_ref(), Ok(&message), "{name} at offset {offset}");
        }
    }
    for_every_edge!(check);
}

#[test]
fn every_truncation_is_refused() {
    fn check<T: Readable>(name: &str, message: T) {
        let bytes = wire::encode(&message);
        for length in 0..bytes.len() {
            let cut = T::read(&bytes.slice(..length));
            assert!(cut.as_ref() != Ok(&message), "{name} cut to {length} bytes");
        }
    }
    for_every_edge!(check);
}

#[test]
fn flipped_bits_never_panic() {
    fn check<T: Readable>(_name: &str, message: T) {
        let bytes = wire::encode(&message);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Refused or read as another valid message: both are fine, a panic is not.
            drop(T::read(&flipped.into()));
        }
    }
    for_every_edge!(check);
}

#[test]
fn another_version_and_another_kind_are_named() {
    let mut bytes = wire::encode(&feedback()).to_vec();
    assert!(matches!(Request::read(&bytes.clone().into()), Err(WireError::Kind { expected: 1, .. })));
    bytes[2] = 0xff;
    assert!(matches!(Feedback::read(&bytes.into()), Err(WireError::Version { found: 0x00ff })));
    assert!(matches!(Feedback::read(&Bytes::from_static(b"HTTP/1.1")), Err(WireError::Foreign { .. })));
}

#[test]
fn tensor_bytes_stay_in_the_message() {
    let payload = wire::encode(&hidden());
    let read = Hidden::read(&payload).unwrap();
    let data = read.states.unwrap();
    let (inner, outer) = (data.data().as_ptr_range(), payload.as_ptr_range());
    assert!(outer.start <= inner.start && inner.end <= outer.end);
}

#[test]
fn states_for_another_number_of_rows_are_refused() {
    let mut message = hidden();
    message.slices[0].ids.push(7);
    assert!(matches!(Hidden::read(&wire::encode(&message)), Err(WireError::Invalid { .. })));
}

#[test]
fn grids_that_are_empty_or_overlap_or_leave_the_prompt_are_refused() {
    let grid = |start, rows, columns| Grid { start, rows, columns };
    for grids in [
        vec![grid(0, 0, 3)],
        vec![grid(0, 3, 0)],
        vec![grid(96, 1, 2)],
        vec![grid(4, u32::MAX, u32::MAX)],
        vec![grid(u32::MAX, 1, 1)],
        vec![grid(3, 2, 2), grid(6, 1, 1)],
        vec![grid(9, 1, 1), grid(3, 1, 1)],
    ] {
        let prompt = Prompt { grids: grids.clone(), ..prompt() };
        assert!(matches!(Prompt::read(&wire::encode(&prompt)), Err(WireError::Invalid { .. })), "{grids:?}");
        let mut hidden = hidden();
        let Control::Open(open) = &mut hidden.head.control[0] else { unreachable!() };
        open.grids.clone_from(&grids);
        assert!(matches!(Hidden::read(&wire::encode(&hidden)), Err(WireError::Invalid { .. })), "{grids:?}");
    }
}
