//! The stage as a function: tokens in, chunks out.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use detokenize::Detokenize;
use models::Tokenizer;
use pipelines::stage::Effect;
use pipelines::{Inbox, Outbox, Peers, Pipeline, Stage};
use schemas::admission::{Event, Notice};
use schemas::chunk::{Chunk, Chunks};
use schemas::control::{Control, Feedback, Head, Open, Say};
use schemas::hidden::Slice;
use schemas::presence::{Presence, State};
use schemas::request::{Context, Generation};
use schemas::token::{Finish, Logprobs, Token, Tokens};
use schemas::{Fingerprint, InstanceId, Role, RouteId, SequenceId, SessionId, Subject, wire};
use serde_json::{Map, json};

const FP: Fingerprint = Fingerprint(7);
const ORIGIN: InstanceId = InstanceId(1);
const ME: InstanceId = InstanceId(2);
const DOOR: InstanceId = InstanceId(5);
const PROMPT_TOKENS: u32 = 4;
const EOS: u32 = 256;

/// A byte-level tokenizer without merges: the id of a token is its byte, and 256 is a special token.
fn byte_tokenizer() -> Tokenizer {
    let mut others = 256_u32..;
    let mut vocab = Map::new();
    for byte in 0..=255_u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let character = if printable { byte } else { others.next().unwrap() };
        vocab.insert(char::from_u32(character).unwrap().to_string(), byte.into());
    }
    let eos = json!({"id": EOS, "content": "<eos>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let file = json!({"version": "1.0", "added_tokens": [eos], "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    Tokenizer::from_json(file.to_string().as_bytes()).unwrap()
}

fn open(sequence: u64, stops: &[&str], change: impl FnOnce(&mut Open)) -> Control {
    let mut generation = Generation::default();
    generation.stop.sequences = stops.iter().map(|&stop| stop.to_owned()).collect();
    let context = Context {
        session: SessionId(sequence.into()),
        choice: 0,
        attempt: 0,
        door: DOOR,
        remaining_ms: 1000,
        alone: false,
        traceparent: None,
    };
    let mut open = Open {
        sequence: SequenceId(sequence),
        context,
        route: RouteId(sequence + 100),
        shards: vec![ORIGIN],
        sample: InstanceId(3),
        detokenize: ME,
        prompt_tokens: PROMPT_TOKENS,
        forced_tokens: 0,
        max_tokens: 1000,
        generation,
        eos: vec![EOS],
        grids: vec![],
    };
    change(&mut open);
    Control::Open(Box::new(open))
}

fn token(sequence: u64, index: u32, id: u32) -> Token {
    let sequence = SequenceId(sequence);
    Token { sequence, position: PROMPT_TOKENS + index, id, finish: None, logprobs: None }
}

fn message(control: Vec<Control>, forced: Vec<Slice>, tokens: Vec<Token>) -> Bytes {
    let head = Head { origin: ORIGIN, step: 1, control };
    wire::encode(&Tokens { head, forced, tokens })
}

/// One message a byte of `text`, the last with `finish`.
fn spelt(sequence: u64, first: u32, text: &str, finish: Option<Finish>) -> Vec<Bytes> {
    let last = text.len() - 1;
    let tokens = (first..).zip(text.bytes()).map(|(index, byte)| token(sequence, index, byte.into()));
    let ended = tokens.enumerate().map(|(n, token)| Token { finish: finish.filter(|_| n == last), ..token });
    ended.map(|token| message(vec![], vec![], vec![token])).collect()
}

fn stage_with(opens: Vec<Control>) -> Detokenize {
    let pipeline: Pipeline = serde_json::from_str(r#"{"model": "m", "path": "m"}"#).unwrap();
    let mut stage = Detokenize::new(&pipeline, FP, byte_tokenizer());
    run(&mut stage, vec![message(opens, vec![], vec![])]);
    stage
}

#[derive(Default)]
struct Sent {
    messages: usize,
    chunks: Vec<Chunk>,
    feedback: Vec<(RouteId, Say)>,
    failed: Vec<RouteId>,
}

fn run_among(stage: &mut Detokenize, messages: Vec<Bytes>, peers: Peers) -> Sent {
    let mut out = Outbox::default();
    let inbox = Inbox {
        now: Instant::now(),
        instance: ME,
        jobs: vec![],
        messages,
        peers,
        payload_max: 1 << 20,
        reconnected: false,
        draining: false,
    };
    stage.process(inbox, &mut out).unwrap();
    let mut sent = Sent::default();
    for effect in out.take() {
        let Effect::Send { subject, payload, .. } = effect else { panic!("{effect:?}") };
        if subject == Subject::chunk(DOOR) {
            sent.messages += 1;
            sent.chunks.extend(wire::decode::<Chunks>(&payload).unwrap().chunks);
        } else if subject == Subject::control(DOOR) {
            let Event::Failed { route, .. } = wire::decode::<Notice>(&payload).unwrap().event else {
                panic!()
            };
            sent.failed.extend(route);
        } else {
            assert_eq!(subject, Subject::step(FP, Role::ShardForward(0), ORIGIN));
            sent.feedback.extend(wire::decode::<Feedback>(&payload).unwrap().entries);
        }
    }
    sent
}

fn run(stage: &mut Detokenize, messages: Vec<Bytes>) -> Sent {
    run_among(stage, messages, Peers::default())
}

#[test]
fn ids_leave_at_once_and_text_when_its_characters_are_whole() {
    let mut stage = stage_with(vec![open(1, &[], |_| {})]);
    let mut texts = Vec::new();
    for (index, step) in spelt(1, 0, "né🙂e\u{301}", None).into_iter().enumerate() {
        let sent = run(&mut stage, vec![step]);
        assert_eq!((sent.chunks[0].first, sent.chunks[0].ids.len()), (index as u32, 1));
        texts.push(sent.chunks[0].text.clone());
    }
    assert_eq!(texts, ["n", "", "é", "", "", "", "🙂", "e", "", "\u{301}"]);
}

#[test]
fn chunks_of_one_call_are_one_message_a_door_and_one_chunk_an_answer() {
    let mut stage = stage_with(vec![open(1, &[], |_| {}), open(2, &[], |_| {})]);
    let steps = spelt(1, 0, "ab", None).into_iter().chain(spelt(2, 0, "c", None)).collect();
    let sent = run(&mut stage, steps);
    assert_eq!((sent.messages, sent.chunks.len()), (1, 2));
    assert_eq!((sent.chunks[0].ids.len(), sent.chunks[0].text.as_str()), (2, "ab"));
    assert_eq!((sent.chunks[1].session, sent.chunks[1].text.as_str()), (SessionId(2), "c"));
}

#[test]
fn a_stop_sequence_ends_the_answer_and_the_scheduler_hears_of_it() {
    let mut stage = stage_with(vec![open(1, &["END"], |_| {})]);
    let sent = run(&mut stage, spelt(1, 0, "ok ENDless", None));
    assert_eq!((sent.chunks[0].text.as_str(), sent.chunks[0].finish), ("ok ", Some(Finish::Stop)));
    assert_eq!(sent.chunks[0].ids.len(), 6, "no id after the one that completed it");
    assert_eq!(sent.feedback, vec![(RouteId(101), Say::Stopped)]);
}

#[test]
fn text_held_for_a_stop_sequence_comes_with_the_end() {
    let mut stage = stage_with(vec![open(1, &["END"], |_| {}), open(2, &["END"], |_| {})]);
    let sent = run(&mut stage, spelt(1, 0, "the EN", Some(Finish::Length)));
    assert_eq!((sent.chunks[0].text.as_str(), sent.chunks[0].finish), ("the EN", Some(Finish::Length)));
    assert!(sent.feedback.is_empty());
    let ended = Token { finish: Some(Finish::Stop), ..token(2, 2, EOS) };
    let steps = spelt(2, 0, "EN", None).into_iter().chain([message(vec![], vec![], vec![ended])]).collect();
    let sent = run(&mut stage, steps);
    assert_eq!((sent.chunks[0].text.as_str(), sent.chunks[0].finish), ("EN", Some(Finish::Stop)));
    assert_eq!(sent.chunks[0].ids.last(), Some(&EOS));
}

#[test]
fn a_token_that_ends_the_answer_by_its_id_shows_no_text() {
    let mut stage = stage_with(vec![open(1, &[], |_| {})]);
    let sent = run(&mut stage, spelt(1, 0, "yes!", Some(Finish::Stop)));
    assert_eq!(sent.chunks[0].text, "yes");
}

#[test]
fn bytes_that_end_inside_a_character_become_the_replacement_character() {
    let mut stage = stage_with(vec![open(1, &[], |_| {})]);
    let cut = Token { finish: Some(Finish::Length), ..token(1, 1, 0xC3) };
    let sent = run(&mut stage, vec![message(vec![], vec![], vec![token(1, 0, b'a'.into()), cut])]);
    assert_eq!(sent.chunks[0].text, "a\u{FFFD}");
}

/// What the stage emits for `text`, with the tokens before `resumed_at` forced, after the text an attempt before had delivered.
fn emitted(text: &str, stops: &[&str], resumed_at: usize) -> (String, String) {
    let mut first = stage_with(vec![open(1, stops, |_| {})]);
    let delivered = run(&mut first, spelt(1, 0, text, None).into_iter().take(resumed_at).collect());
    let delivered: String = delivered.chunks.into_iter().map(|chunk| chunk.text).collect();
    let mut second = stage_with(vec![open(1, stops, |open| open.forced_tokens = resumed_at as u32)]);
    let ids: Vec<u32> = "ask:".bytes().chain(text.bytes().take(resumed_at)).map(u32::from).collect();
    let replay = Slice { sequence: SequenceId(1), start: 0, ids, sample: true };
    assert_eq!(run(&mut second, vec![message(vec![], vec![replay], vec![])]).messages, 0);
    let steps = spelt(1, 0, text, Some(Finish::Length)).into_iter().skip(resumed_at).collect();
    let rest: String = run(&mut second, steps).chunks.into_iter().map(|chunk| chunk.text).collect();
    (delivered, rest)
}

#[test]
fn an_answer_resumed_at_any_token_loses_and_doubles_no_text() {
    for (text, stops, whole) in
        [("🙂 né ENough", &["END", "ough!"][..], "🙂 né ENough"), ("a\n\nQ: b", &["\n\nQ:"], "a")]
    {
        for resumed_at in 0..text.len() {
            let (delivered, rest) = emitted(text, stops, resumed_at);
            if delivered != whole || text == whole {
                assert_eq!(delivered + &rest, whole, "resumed at {resumed_at}");
            }
        }
    }
}

#[test]
fn a_repeated_token_is_ignored_and_a_gap_fails_that_answer_only() {
    let mut stage = stage_with(vec![open(1, &[], |_| {}), open(2, &[], |_| {})]);
    run(&mut stage, spelt(1, 0, "ab", None));
    assert_eq!(run(&mut stage, spelt(1, 0, "ab", None)).messages, 0);
    let sent = run(&mut stage, vec![message(vec![], vec![], vec![token(1, 5, 65), token(2, 0, 66)])]);
    assert_eq!((sent.failed, sent.feedback), (vec![RouteId(101)], vec![(RouteId(101), Say::Cancel)]));
    assert_eq!(sent.chunks[0].text, "B");
    assert_eq!(run(&mut stage, spelt(1, 2, "c", None)).messages, 0);
}

#[test]
fn log_probabilities_carry_the_bytes_of_each_token() {
    let mut stage = stage_with(vec![open(1, &[], |open| open.generation.logprobs = Some(2))]);
    let logprobs = Some(Logprobs { logprob: -0.5, top: vec![(0xC3, -0.5), (65, -1.0)] });
    let sent = run(&mut stage, vec![message(vec![], vec![], vec![Token { logprobs, ..token(1, 0, 0xC3) }])]);
    let shown = &sent.chunks[0].logprobs[0];
    assert_eq!((shown.bytes.clone(), shown.logprob), (vec![0xC3], -0.5));
    assert_eq!(shown.top, vec![(vec![0xC3], -0.5), (vec![65], -1.0)]);
}

#[test]
fn released_answers_and_those_of_a_vanished_origin_are_freed() {
    let elsewhere = open(3, &[], |open| open.detokenize = InstanceId(99));
    let mut stage = stage_with(vec![open(1, &[], |_| {}), open(2, &[], |_| {}), elsewhere]);
    assert_eq!(stage.status().used.sequences, 2);
    run(&mut stage, vec![message(vec![Control::Release(SequenceId(1))], vec![], vec![])]);
    assert_eq!((stage.status().used.sequences, stage.status().busy), (1, true));
    let presence = Presence::bare(ORIGIN, Role::ShardForward(0), Some(FP), State::Draining);
    run_among(&mut stage, vec![], Peers::new(BTreeMap::from([(ORIGIN, presence)])));
    assert_eq!(stage.status().grants, vec![(ORIGIN, stage.status().capacity)]);
    run(&mut stage, vec![]);
    assert!(!stage.status().busy);
}
