//! The stage as a function: requests in, prompts or failures out.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::time::{Duration, Instant};

use bytes::Bytes;
use models::{ChatTemplate, Tokenizer};
use pipelines::stage::{Effect, Ticket};
use pipelines::{Inbox, Job, Outbox, Peers, Stage};
use schemas::admission::{Event, Notice};
use schemas::prompt::Prompt;
use schemas::request::{BlobRef, Context, Generation, Input, Payload, Request};
use schemas::{Failure, FailureKind, Fingerprint, InstanceId, Role, SessionId, Subject, wire};
use serde_json::{Map, Value, json};
use tokenize::chat::Conversations;
use tokenize::limits::{CONTEXT_LENGTH_EXCEEDED, Limits};
use tokenize::{Model, Tokenize};

const FP: Fingerprint = Fingerprint(7);
const DOOR: InstanceId = InstanceId(5);
const BOS: u32 = 256;

/// A byte-level tokenizer without merges: the id of a token is its byte, and 256 is a special token put before plain text.
fn byte_tokenizer() -> Tokenizer {
    let mut others = 256_u32..;
    let mut vocab = Map::new();
    for byte in 0..=255_u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let character = if printable { byte } else { others.next().unwrap() };
        vocab.insert(char::from_u32(character).unwrap().to_string(), byte.into());
    }
    let bos = json!({"id": BOS, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let start = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let post = json!({"type": "TemplateProcessing", "single": [start, sequence("A")],
        "pair": [start, sequence("A"), sequence("B")],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}}});
    let file = json!({"version": "1.0", "added_tokens": [bos], "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": post, "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    Tokenizer::from_json(file.to_string().as_bytes()).unwrap()
}

fn model() -> Model {
    let template = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}\
        {{ raise_exception('no system messages') }}{% endif %}[{{ message.content }}]{% endfor %}\
        {{ shout }}{% if add_generation_prompt %}>{% endif %}";
    let tokens: Map<String, Value> = [("bos_token".to_owned(), "<s>".into())].into_iter().collect();
    Model {
        tokenizer: byte_tokenizer(),
        template: Some(Conversations::new(ChatTemplate::new(template, tokens).unwrap())),
        vision: None,
        limits: Limits { context_length: 20_000, vocabulary: 257 },
        eos: vec![BOS],
    }
}

fn request(input: Input) -> Request {
    let context = Context {
        session: SessionId(1),
        choice: 0,
        attempt: 0,
        door: DOOR,
        remaining_ms: 1000,
        alone: false,
        traceparent: None,
    };
    let images = Vec::new();
    Request { context, now_unix: 0, input, images, generation: Generation::default(), forced: inline([]) }
}

fn inline(content: impl AsRef<[u8]>) -> Payload {
    Payload::Inline(content.as_ref().to_vec())
}

fn text(text: &str) -> Request {
    request(Input::Text(inline(text)))
}

fn chat(body: &Value) -> Request {
    request(Input::Chat(inline(body.to_string())))
}

fn ids(ids: &[u32]) -> Request {
    request(Input::Ids(inline(bytes_of(ids))))
}

fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn ids_of(prompt: &Prompt) -> Vec<u32> {
    let Payload::Inline(bytes) = &prompt.ids else { panic!("a blob") };
    bytes.chunks(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect()
}

fn tokenized(request: &Request) -> Vec<u32> {
    ids_of(&model().tokenize(request, &[]).unwrap())
}

fn refused(request: &Request) -> Failure {
    model().tokenize(request, &[]).unwrap_err()
}

fn spelt(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn job(ticket: u64, payload: Bytes) -> Job {
    Job {
        payload,
        blobs: Vec::new(),
        ticket: Ticket(ticket),
        age: Duration::from_millis(400),
        is_poison: false,
    }
}

fn run(jobs: Vec<Job>) -> Vec<Effect> {
    let mut stage = Tokenize::new(FP, model());
    let mut out = Outbox::default();
    let (now, peers) = (Instant::now(), Peers::default());
    let inbox = Inbox {
        now,
        instance: InstanceId(1),
        jobs,
        messages: vec![],
        peers,
        payload_max: 1 << 20,
        reconnected: false,
        draining: false,
    };
    stage.process(inbox, &mut out).unwrap();
    out.take()
}

fn failure(effect: &Effect) -> Failure {
    let Effect::Send { subject, payload, .. } = effect else { panic!("{effect:?}") };
    assert_eq!(*subject, Subject::control(DOOR));
    match wire::decode::<Notice>(payload).unwrap().event {
        Event::Failed { route: None, failure } => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_text_gets_the_tokenizers_special_tokens_and_a_rendered_chat_only_its_own() {
    assert_eq!(tokenized(&text("hé")), [vec![BOS], spelt("hé")].concat());
    let message = json!({"role": "user", "content": "hi"});
    let rendered = tokenized(&chat(&json!({"messages": [message]})));
    assert_eq!(rendered, [vec![BOS], spelt("[hi]>")].concat());
    let body = json!({"messages": [message], "chat_template_kwargs": {"shout": "!"}, "add_generation_prompt": false});
    assert_eq!(tokenized(&chat(&body)), [vec![BOS], spelt("[hi]!")].concat());
    assert_eq!(tokenized(&ids(&[3, 1, 2])), [3, 1, 2]);
}

#[test]
fn forced_tokens_follow_the_prompt_and_are_not_counted_as_such() {
    let resumed = Request { forced: inline([9, 0, 0, 0, 8, 0, 0, 0]), ..ids(&[1, 2, 3]) };
    let prompt = model().tokenize(&resumed, &[]).unwrap();
    assert_eq!((ids_of(&prompt), prompt.prompt_tokens), (vec![1, 2, 3, 9, 8], 3));
    assert_eq!((prompt.max_tokens, prompt.eos), (19_997, vec![BOS]));
}

#[test]
fn forced_tokens_may_be_a_blob_beside_that_of_the_prompt() {
    let blob = |n: u8| Payload::Blob(BlobRef { hash: [n; 32], bytes: 4 });
    let resumed = Request { forced: blob(2), ..request(Input::Ids(blob(1))) };
    let fetched = |n: u8| Some(Bytes::from(vec![n, 0, 0, 0]));
    let prompt = model().tokenize(&resumed, &[fetched(7), fetched(9)]).unwrap();
    assert_eq!((ids_of(&prompt), prompt.prompt_tokens), (vec![7, 9], 1));
    let expired = model().tokenize(&resumed, &[fetched(7), None]).unwrap_err();
    assert_eq!(expired.kind, FailureKind::Unavailable);
}

#[test]
fn an_answer_that_has_begun_waits_in_a_queue_of_its_own() {
    let mut resumed = ids(&[1]);
    resumed.context.attempt = 1;
    let effects = run(vec![job(1, wire::encode(&resumed))]);
    let Effect::Enqueue { subject, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(subject, &Subject::resume(FP, Role::ShardForward(0)));
}

#[test]
fn what_breaks_a_rule_is_invalid_and_names_its_field() {
    let with = |change: fn(&mut Generation)| {
        let mut request = text("hi");
        change(&mut request.generation);
        request
    };
    let system = json!({"messages": [{"role": "system", "content": ""}]});
    for (request, field) in [
        (ids(&[257]), "prompt"),
        (ids(&[]), "prompt"),
        (request(Input::Ids(inline([1, 2, 3]))), "prompt"),
        (request(Input::Text(inline([0xFF]))), "prompt"),
        (chat(&system), "messages"),
        (chat(&json!({"messages": []})), "messages"),
        (chat(&json!({"prompt": "hi"})), "messages"),
        (with(|it| it.max_tokens = Some(0)), "max_tokens"),
        (with(|it| it.sampling.logit_bias = vec![(5, 1.0), (257, 1.0)]), "logit_bias"),
        (with(|it| it.stop.token_ids = vec![300]), "stop_token_ids"),
    ] {
        let failure = refused(&request);
        assert_eq!(
            (failure.kind, failure.param.as_deref()),
            (FailureKind::Invalid, Some(field)),
            "{request:?}"
        );
    }
    assert_eq!(refused(&chat(&system)).message, "no system messages");
}

#[test]
fn too_long_prompt_fails_that_request_only() {
    let long = wire::encode(&ids(&[1; 20_000]));
    let effects = run(vec![job(1, long), job(2, wire::encode(&text("hi")))]);
    assert_eq!(failure(&effects[0]).code.as_deref(), Some(CONTEXT_LENGTH_EXCEEDED));
    assert_eq!(effects[1], Effect::Ack(Ticket(1)));
    let Effect::Enqueue { subject, context, payload } = &effects[2] else { panic!("{effects:?}") };
    assert_eq!(context.remaining_ms, 600);
    assert_eq!((subject, context.door), (&Subject::queue(FP, Role::ShardForward(0)), DOOR));
    assert_eq!(wire::decode::<Prompt>(payload).unwrap().prompt_tokens, 3);
    assert_eq!(effects[3], Effect::Ack(Ticket(2)));
}

#[test]
fn a_long_prompt_travels_as_a_blob_that_is_stored_before_its_entry() {
    let effects = run(vec![job(1, wire::encode(&ids(&[1; 12_289])))]);
    let [Effect::Store { blob, content, .. }, Effect::Enqueue { payload, .. }, Effect::Ack(_)] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(wire::decode::<Prompt>(payload).unwrap().ids, Payload::Blob(*blob));
    assert_eq!((content.len(), payload.len() < 1024), (4 * 12_289, true));
}

#[test]
fn a_prompt_in_the_blob_store_is_named_fetched_and_missed_when_it_has_expired() {
    let blob = BlobRef { hash: [1; 32], bytes: 8 };
    let stored = wire::encode(&request(Input::Ids(Payload::Blob(blob))));
    assert_eq!(Tokenize::new(FP, model()).attachments(&stored), vec![blob]);
    let fetched = Job { blobs: vec![Some(bytes_of(&[4, 2]).into())], ..job(1, stored.clone()) };
    let expired = Job { blobs: vec![None], ..job(2, stored) };
    let effects = run(vec![fetched, expired]);
    let Effect::Enqueue { payload, .. } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(ids_of(&wire::decode(payload).unwrap()), [4, 2]);
    assert_eq!(failure(&effects[2]).kind, FailureKind::Unavailable);
    assert_eq!(effects[3], Effect::Ack(Ticket(2)));
}

#[test]
fn poison_is_answered_and_not_worked_on() {
    let effects = run(vec![Job { is_poison: true, ..job(1, wire::encode(&text("hi"))) }]);
    assert_eq!(failure(&effects[0]).kind, FailureKind::Internal);
    assert_eq!(effects[1], Effect::Ack(Ticket(1)));
}

#[test]
fn a_deadline_that_passed_in_the_queue_ends_the_request() {
    let late = Job { age: Duration::from_secs(1), ..job(1, wire::encode(&text("hi"))) };
    let effects = run(vec![late]);
    assert_eq!(failure(&effects[0]).kind, FailureKind::DeadlineExceeded);
    assert_eq!(effects[1], Effect::Ack(Ticket(1)));
}

#[test]
fn an_entry_that_is_no_request_is_acknowledged_and_forgotten() {
    assert_eq!(run(vec![job(1, Bytes::from_static(b"not ours"))]), vec![Effect::Ack(Ticket(1))]);
}
