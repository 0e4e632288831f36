//! The stage as a function: steps in, messages out.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipelines::stage::Effect;
use pipelines::{Inbox, Outbox, Peers, Pipeline, Stage};
use sample::Sample;
use schemas::admission::{Event, Notice};
use schemas::control::{Control, Feedback, Head, Open, Say};
use schemas::hidden::Slice;
use schemas::logits::{Logits, NeedRow, Row};
use schemas::presence::{Presence, State};
use schemas::request::{Context, Generation};
use schemas::token::{Finish, Tokens};
use schemas::{Fingerprint, InstanceId, Role, RouteId, SequenceId, SessionId, Subject, wire};

const FP: Fingerprint = Fingerprint(7);
const ORIGIN: InstanceId = InstanceId(1);
const ME: InstanceId = InstanceId(2);
const DETOKENIZE: InstanceId = InstanceId(3);
const KEEPER: InstanceId = InstanceId(4);
const DOOR: InstanceId = InstanceId(5);
const PROMPT: [u32; 3] = [4, 5, 6];

fn open(sequence: u64, change: impl FnOnce(&mut Open)) -> Control {
    let mut generation = Generation::default();
    generation.sampling.temperature = 0.0;
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
        shards: vec![ORIGIN, KEEPER],
        sample: ME,
        detokenize: DETOKENIZE,
        prompt_tokens: PROMPT.len() as u32,
        forced_tokens: 0,
        max_tokens: 10,
        generation,
        eos: vec![0],
        grids: vec![],
    };
    change(&mut open);
    Control::Open(Box::new(open))
}

fn slice(sequence: u64, start: u32, ids: &[u32]) -> Slice {
    Slice { sequence: SequenceId(sequence), start, ids: ids.to_vec(), sample: true }
}

fn row(sequence: u64, position: u32, candidates: &[(u32, f32)]) -> Row {
    let logsumexp = candidates.iter().map(|(_, logit)| logit.exp()).sum::<f32>().ln();
    Row {
        sequence: SequenceId(sequence),
        position,
        vocabulary: candidates.len() as u32,
        candidates: candidates.to_vec(),
        extras: Vec::new(),
        logsumexp,
        logsumexp_scaled: logsumexp,
    }
}

fn logits(step: u64, control: Vec<Control>, slices: Vec<Slice>, rows: Vec<Row>) -> Bytes {
    let head = Head { origin: ORIGIN, step, control };
    wire::encode(&Logits { head, keeper: KEEPER, slices, rows })
}

/// The first step of one sequence: its prompt, and a row in which id 8 is the largest.
fn first_step(control: Control) -> Bytes {
    logits(1, vec![control], vec![slice(1, 0, &PROMPT)], vec![row(1, 3, &[(8, 2.0), (0, 1.0)])])
}

fn stage() -> Sample {
    let pipeline = r#"{"model": "m", "path": "m", "stages": {"shard-forward": {"shards": 2}}}"#;
    Sample::new(&serde_json::from_str::<Pipeline>(pipeline).unwrap(), FP)
}

struct Sent {
    subject: String,
    payload: Bytes,
}

fn run_with(stage: &mut Sample, messages: Vec<Bytes>, peers: Peers, now: Instant) -> Vec<Sent> {
    let mut out = Outbox::default();
    let inbox = Inbox {
        now,
        instance: ME,
        jobs: Vec::new(),
        messages,
        peers,
        payload_max: 1 << 20,
        reconnected: false,
        draining: false,
    };
    stage.process(inbox, &mut out).unwrap();
    let sent = |effect| match effect {
        Effect::Send { subject, payload, .. } => Sent { subject: subject.to_string(), payload },
        other => panic!("{other:?}"),
    };
    out.take().into_iter().map(sent).collect()
}

fn run(stage: &mut Sample, messages: Vec<Bytes>) -> Vec<Sent> {
    run_with(stage, messages, Peers::default(), Instant::now())
}

fn tokens(sent: &Sent, role: Role, to: InstanceId) -> Tokens {
    assert_eq!(sent.subject, Subject::step(FP, role, to).to_string());
    wire::decode(&sent.payload).unwrap()
}

fn scheduler(sent: &Sent) -> Tokens {
    tokens(sent, Role::ShardForward(0), ORIGIN)
}

fn text(sent: &Sent) -> Tokens {
    tokens(sent, Role::Detokenize, DETOKENIZE)
}

fn peer(instance: InstanceId, role: Role) -> (InstanceId, Presence) {
    (instance, Presence::bare(instance, role, Some(FP), State::Ready))
}

#[test]
fn the_token_goes_to_the_scheduler_first_and_with_the_controls_to_detokenize() {
    let sent = run(&mut stage(), vec![first_step(open(1, |_| {}))]);
    assert_eq!(sent.len(), 2);
    let (next, text) = (scheduler(&sent[0]), text(&sent[1]));
    assert_eq!((next.head.step, next.head.control.len(), next.forced.len()), (1, 0, 0));
    assert_eq!((next.tokens[0].id, next.tokens[0].position, next.tokens[0].finish), (8, 3, None));
    assert_eq!(text.tokens, next.tokens);
    assert!(matches!(&text.head.control[..], [Control::Open(open)] if open.sequence == SequenceId(1)));
    assert_eq!((text.forced[0].start, &text.forced[0].ids[..]), (0, &PROMPT[..]));
}

#[test]
fn a_release_reaches_detokenize_without_any_token() {
    let mut stage = stage();
    run(&mut stage, vec![first_step(open(1, |_| {}))]);
    assert_eq!((stage.status().used.sequences, stage.status().busy), (1, true));
    let sent = run(&mut stage, vec![logits(2, vec![Control::Release(SequenceId(1))], vec![], vec![])]);
    assert_eq!(scheduler(&sent[0]).tokens, vec![]);
    assert_eq!(text(&sent[1]).head.control, vec![Control::Release(SequenceId(1))]);
    assert!(!stage.status().busy);
}

#[test]
fn rows_of_a_sequence_that_another_instance_samples_are_ignored() {
    let elsewhere = open(1, |open| open.sample = InstanceId(99));
    let sent = run(&mut stage(), vec![first_step(elsewhere)]);
    assert_eq!(sent.len(), 1);
    assert_eq!(scheduler(&sent[0]).tokens, vec![]);
}

#[test]
fn a_repeated_step_gets_the_same_answer_and_no_second_draw() {
    let mut stage = stage();
    let penalised = || open(1, |open| open.generation.sampling.frequency_penalty = 1.5);
    let with_extras = |position, extras: &[(u32, f32)]| {
        let candidates =
            [(8, 2.0), (9, 1.0)].into_iter().filter(|(id, _)| !extras.iter().any(|(other, _)| other == id));
        Row { extras: extras.to_vec(), vocabulary: 2, ..row(1, position, &candidates.collect::<Vec<_>>()) }
    };
    let first = logits(1, vec![penalised()], vec![slice(1, 0, &PROMPT)], vec![with_extras(3, &[])]);
    let second = logits(2, vec![], vec![slice(1, 3, &[8])], vec![with_extras(4, &[(8, 2.0)])]);
    run(&mut stage, vec![first]);
    let once = run(&mut stage, vec![second.clone()]);
    assert_eq!(scheduler(&once[0]).tokens[0].id, 9, "8 was penalised");
    let again = run(&mut stage, vec![second]);
    let payloads = |sent: &[Sent]| sent.iter().map(|sent| sent.payload.clone()).collect::<Vec<_>>();
    assert_eq!(payloads(&once), payloads(&again));
    let third = logits(3, vec![], vec![slice(1, 4, &[9])], vec![with_extras(5, &[(8, 2.0), (9, 0.4)])]);
    assert_eq!(scheduler(&run(&mut stage, vec![third])[0]).tokens[0].id, 8, "each was counted once");
}

#[test]
fn a_draw_outside_the_candidates_asks_the_keeper_and_ends_with_its_answer() {
    let mut stage = stage();
    let hot = open(1, |open| {
        open.generation.sampling.temperature = 1.0;
        open.generation.sampling.top_k = 2;
    });
    let whole = row(1, 3, &[(3, 2.0), (8, 2.0), (0, 1.0)]);
    let truncated = Row { candidates: vec![(3, 2.0)], ..whole.clone() };
    let sent = run(&mut stage, vec![logits(1, vec![hot], vec![slice(1, 0, &PROMPT)], vec![truncated])]);
    assert_eq!(scheduler(&sent[0]).tokens, vec![]);
    assert_eq!(sent[1].subject, Subject::step(FP, Role::ShardForward(1), KEEPER).to_string());
    let need: NeedRow = wire::decode(&sent[1].payload).unwrap();
    assert_eq!((need.origin, need.step, need.sample, need.rows), (ORIGIN, 1, ME, vec![(SequenceId(1), 3)]));
    let sent = run(&mut stage, vec![logits(1, vec![], vec![], vec![whole.clone()])]);
    assert!([8, 3].contains(&scheduler(&sent[0]).tokens[0].id));
    assert_eq!(text(&sent[1]).tokens.len(), 1);
    let sent = run(&mut stage, vec![logits(1, vec![], vec![], vec![whole])]);
    assert_eq!(scheduler(&sent[0]).tokens, vec![], "the second answer finds nobody waiting");
}

#[test]
fn the_end_of_sequence_stops_unless_ignored_and_the_length_always() {
    let finish = |change: fn(&mut Open), candidates: &[(u32, f32)]| {
        let step = logits(1, vec![open(1, change)], vec![slice(1, 0, &PROMPT)], vec![row(1, 3, candidates)]);
        scheduler(&run(&mut stage(), vec![step])[0]).tokens[0].finish
    };
    let eos = [(0, 2.0), (1, 1.0)];
    assert_eq!(finish(|_| {}, &eos), Some(Finish::Stop));
    assert_eq!(finish(|open| open.generation.stop.ignore_eos = true, &eos), None);
    assert_eq!(finish(|open| open.max_tokens = 1, &[(1, 2.0)]), Some(Finish::Length));
    assert_eq!(finish(|open| open.generation.stop.token_ids = vec![9], &[(9, 2.0)]), Some(Finish::Stop));
}

#[test]
fn before_min_tokens_the_end_of_sequence_cannot_be_drawn() {
    let mut stage = stage();
    let held = open(1, |open| open.generation.min_tokens = 1);
    let row_at = |position| Row { extras: vec![(0, 9.0)], ..row(1, position, &[(8, 2.0)]) };
    let first = logits(1, vec![held], vec![slice(1, 0, &PROMPT)], vec![row_at(3)]);
    let second = logits(2, vec![], vec![slice(1, 3, &[8])], vec![row_at(4)]);
    assert_eq!(scheduler(&run(&mut stage, vec![first])[0]).tokens[0].id, 8);
    let token = scheduler(&run(&mut stage, vec![second])[0]).tokens[0].clone();
    assert_eq!((token.id, token.finish), (0, Some(Finish::Stop)));
}

#[test]
fn logits_that_are_not_finite_fail_that_sequence_only() {
    let mut stage = stage();
    let step = logits(
        1,
        vec![open(1, |_| {}), open(2, |_| {})],
        vec![slice(1, 0, &PROMPT), slice(2, 0, &PROMPT)],
        vec![row(1, 3, &[(8, f32::NAN)]), row(2, 3, &[(8, 1.0)])],
    );
    let sent = run(&mut stage, vec![step]);
    let notice: Notice = wire::decode(&sent[0].payload).unwrap();
    assert_eq!(sent[0].subject, Subject::control(DOOR).to_string());
    assert!(matches!(notice.event, Event::Failed { route: Some(RouteId(101)), .. }));
    assert_eq!(scheduler(&sent[1]).tokens[0].sequence, SequenceId(2));
    let feedback: Feedback = wire::decode(&sent[2].payload).unwrap();
    assert_eq!(feedback.entries, vec![(RouteId(101), Say::Cancel)]);
    let sent = run(&mut stage, vec![logits(2, vec![Control::Release(SequenceId(1))], vec![], vec![])]);
    assert_eq!(text(&sent[1]).head.control, vec![Control::Release(SequenceId(1))]);
}

#[test]
fn forced_rows_of_a_resumed_answer_reach_detokenize_and_count_as_generated() {
    let resumed = open(1, |open| {
        open.forced_tokens = 2;
        open.max_tokens = 3;
    });
    let rows = vec![row(1, 5, &[(8, 2.0)])];
    let sent = run(&mut stage(), vec![logits(1, vec![resumed], vec![slice(1, 0, &[4, 5, 6, 7, 8])], rows)]);
    assert_eq!(scheduler(&sent[0]).tokens[0].finish, Some(Finish::Length));
    assert_eq!(text(&sent[1]).forced[0].ids, vec![4, 5, 6, 7, 8]);
}

#[test]
fn what_belongs_to_a_vanished_origin_is_freed() {
    let alive = Peers::new(BTreeMap::from([peer(ORIGIN, Role::ShardForward(0))]));
    let now = Instant::now();
    let mut announced = stage();
    run_with(&mut announced, vec![first_step(open(1, |_| {}))], alive.clone(), now);
    run_with(&mut announced, vec![], alive, now);
    assert_eq!(announced.status().used.sequences, 1);
    assert_eq!(announced.status().grants, vec![(ORIGIN, announced.status().capacity)]);
    run_with(&mut announced, vec![], Peers::default(), now);
    assert_eq!((announced.status().used.sequences, announced.status().grants.len()), (0, 0));
    let mut unannounced = stage();
    run_with(&mut unannounced, vec![first_step(open(1, |_| {}))], Peers::default(), now);
    run_with(&mut unannounced, vec![], Peers::default(), now);
    assert_eq!(unannounced.status().used.sequences, 1);
    run_with(&mut unannounced, vec![], Peers::default(), now + Duration::from_secs(60));
    assert_eq!(unannounced.status().used.sequences, 0);
}

#[test]
fn a_message_of_another_kind_is_refused_and_the_rest_is_done() {
    let foreign = wire::encode(&Feedback { entries: vec![] });
    let sent = run(&mut stage(), vec![foreign, Bytes::from_static(b"?"), first_step(open(1, |_| {}))]);
    assert_eq!(sent.len(), 2);
}
