//! The scheduling shard as a function: what comes in, what goes out. The echo engine computes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pipelines::graph::{InFlight, ShardForward};
use pipelines::stage::{Effect, Ticket};
use pipelines::{Inbox, Job, Outbox, Peers, Stage};
use schemas::admission::{Event, Notice};
use schemas::control::{Control, Feedback, Head, Say};
use schemas::hidden::Hidden;
use schemas::presence::{Presence, Room, State};
use schemas::prompt::{Grid, Prompt};
use schemas::request::{Context, Generation, Payload};
use schemas::token::{Finish, Token, Tokens};
use schemas::{Edge, FailureKind, Fingerprint, InstanceId, Role, RouteId, SequenceId, SessionId, wire};

mod alone;
mod outgrown;

use super::first::{First, SWEEP_AFTER};
use super::shard::Shard;
use crate::engine::{Echo, Engine};

const FP: Fingerprint = Fingerprint(1);
const ME: InstanceId = InstanceId(10);
const LATER: InstanceId = InstanceId(11);
const SAMPLE: InstanceId = InstanceId(12);
const DETOKENIZE: InstanceId = InstanceId(13);
const DOOR: InstanceId = InstanceId(14);
/// An image of every prompt, as positions count it.
const IMAGE: Grid = Grid { start: 1, rows: 1, columns: 2 };
const PAYLOAD_MAX: usize = 1 << 20;

/// A scheduling shard and what surrounds it.
struct Bench {
    first: First,
    alive: Vec<InstanceId>,
    /// Who has made its connection anew.
    reconnected: Vec<InstanceId>,
    peers: Peers,
    now: Instant,
    last_ticket: u64,
}

/// What one call brought out.
#[derive(Default)]
struct Came {
    steps: Vec<Hidden>,
    notices: Vec<Notice>,
    acks: Vec<Ticket>,
    /// Later stages that were spoken to directly.
    told: Vec<InstanceId>,
    wakes_at_once: bool,
}

impl Bench {
    fn new(change: impl FnOnce(&mut ShardForward)) -> Self {
        Self::with_engine(change, |echo| Box::new(echo))
    }

    fn with_engine(
        change: impl FnOnce(&mut ShardForward),
        engine: impl FnOnce(Echo) -> Box<dyn Engine>,
    ) -> Self {
        let mut settings = ShardForward {
            max_sequences: 8,
            kv_tokens: 1024,
            step_tokens: 32,
            in_flight: InFlight::Fixed(1),
            shards: 2,
            ..ShardForward::default()
        };
        change(&mut settings);
        let echo = Echo::new(false, settings.kv_tokens, settings.block_tokens).unwrap();
        let shard = Shard::new(engine(echo), FP, 0, false, 64);
        let first = First::new(shard, settings, 2, 1);
        let alive = vec![LATER, SAMPLE, DETOKENIZE];
        let mut bench = Self {
            first,
            alive,
            reconnected: Vec::new(),
            peers: Peers::default(),
            now: Instant::now(),
            last_ticket: 0,
        };
        bench.meet();
        bench
    }

    /// A new snapshot of who is alive.
    fn meet(&mut self) {
        let all = [
            (LATER, Role::ShardForward(1)),
            (SAMPLE, Role::Sample),
            (DETOKENIZE, Role::Detokenize),
            (DOOR, Role::Gateway),
        ];
        let announced = all.into_iter().filter(|(instance, _)| self.alive.contains(instance));
        let reconnects = |instance| u64::from(self.reconnected.contains(&instance));
        let peers: BTreeMap<InstanceId, Presence> = announced
            .map(|(instance, role)| {
                let presence = presence(instance, role);
                (instance, Presence { reconnects: reconnects(instance), ..presence })
            })
            .collect();
        self.peers = Peers::new(peers);
    }

    fn call(&mut self, jobs: Vec<Job>, messages: Vec<Bytes>) -> Came {
        self.now += Duration::from_millis(1);
        let mut out = Outbox::default();
        let inbox = Inbox {
            now: self.now,
            instance: ME,
            jobs,
            messages,
            peers: self.peers.clone(),
            payload_max: PAYLOAD_MAX,
            reconnected: false,
            draining: false,
        };
        self.first.process(inbox, &mut out).unwrap();
        let mut came = Came::default();
        for effect in out.take() {
            match effect {
                Effect::Send { payload, receiver, .. } => match wire::kind(&payload).unwrap() {
                    Notice::KIND => came.notices.push(wire::decode(&payload).unwrap()),
                    Hidden::KIND if receiver == Some(LATER) => {
                        came.steps.push(wire::decode(&payload).unwrap())
                    }
                    _ => came.told.extend(receiver),
                },
                Effect::Ack(ticket) => came.acks.push(ticket),
                Effect::WakeAt(time) => came.wakes_at_once |= time <= self.now,
                other => panic!("unexpected {other:?}"),
            }
        }
        came
    }

    /// Submits prompts of these lengths; returns what the admission and the first step brought.
    fn submit(&mut self, lengths: &[u32]) -> (Came, Came) {
        let jobs = lengths.iter().map(|length| self.job(*length)).collect();
        let admission = self.call(jobs, Vec::new());
        let step = self.call(Vec::new(), Vec::new());
        (admission, step)
    }

    fn job(&mut self, length: u32) -> Job {
        self.job_with(length, false)
    }

    fn job_alone(&mut self, length: u32) -> Job {
        self.job_with(length, true)
    }

    fn job_with(&mut self, length: u32, alone: bool) -> Job {
        self.last_ticket += 1;
        let ids: Vec<u8> = (0..length).flat_map(|id| id.to_le_bytes()).collect();
        let context = Context {
            session: SessionId(self.last_ticket.into()),
            choice: 0,
            attempt: 0,
            door: DOOR,
            remaining_ms: 60_000,
            alone,
            traceparent: None,
        };
        let prompt = Prompt {
            context,
            ids: Payload::Inline(ids),
            prompt_tokens: length,
            max_tokens: 100,
            generation: Generation::default(),
            eos: vec![],
            images: vec![],
            spans: vec![],
            grids: vec![IMAGE],
            embeddings: None,
        };
        Job {
            payload: wire::encode(&prompt),
            blobs: vec![],
            ticket: Ticket(self.last_ticket),
            age: Duration::ZERO,
            is_poison: false,
        }
    }

    /// Answers a step as sample does.
    fn draw(&mut self, step: &Hidden, finish: Option<Finish>) -> Came {
        let message = tokens(step, finish);
        self.call(Vec::new(), vec![message])
    }
}

fn tokens(step: &Hidden, finish: Option<Finish>) -> Bytes {
    let drawn = step.slices.iter().filter(|slice| slice.sample).map(|slice| Token {
        sequence: slice.sequence,
        position: slice.start + slice.ids.len() as u32,
        id: 7,
        finish,
        logprobs: None,
    });
    let head = Head { origin: ME, step: step.head.step, control: vec![] };
    wire::encode(&Tokens { head, forced: vec![], tokens: drawn.collect() })
}

fn presence(instance: InstanceId, role: Role) -> Presence {
    let room = Room { sequences: 8, kv_blocks: 64 };
    let bare = Presence::bare(instance, role, Some(FP), State::Ready);
    Presence { capacity: room, grants: vec![(ME, room)], ..bare }
}

fn route_of(came: &Came) -> RouteId {
    match &came.notices[0].event {
        Event::Admitted { route, .. } => route.id,
        other => panic!("{other:?}"),
    }
}

fn released(step: &Hidden) -> Vec<SequenceId> {
    let released = step.head.control.iter().filter_map(|control| match control {
        Control::Release(sequence) => Some(*sequence),
        Control::Open(_) | Control::ReleaseBelow(_) => None,
    });
    released.collect()
}

#[test]
fn admission_is_told_and_acknowledged_before_the_first_step_is_computed() {
    let mut bench = Bench::new(|_| {});
    let (admission, step) = bench.submit(&[5]);
    assert!(matches!(admission.notices[0].event, Event::Admitted { prompt_tokens: 5, .. }));
    assert_eq!(admission.acks, [Ticket(1)]);
    assert!(admission.steps.is_empty() && admission.wakes_at_once);
    assert_eq!(step.steps.len(), 1);
    assert!(matches!(&step.steps[0].head.control[0], Control::Open(open) if open.prompt_tokens == 5));
}

#[test]
fn nothing_is_pulled_without_a_complete_route() {
    let mut bench = Bench::new(|_| {});
    bench.alive.retain(|instance| *instance != SAMPLE);
    bench.meet();
    bench.call(vec![], vec![]);
    assert_eq!(bench.first.room(), 0);
    bench.alive.push(SAMPLE);
    bench.meet();
    bench.call(vec![], vec![]);
    assert_eq!(bench.first.room(), 8);
}

#[test]
fn a_long_prompt_is_prefilled_in_chunks_beside_the_decode_of_others() {
    let mut bench = Bench::new(|_| {});
    let (_, first) = bench.submit(&[4]);
    let job = bench.job(70);
    bench.call(vec![job], vec![]);
    let second = bench.draw(&first.steps[0], None);
    let rows: Vec<(usize, bool)> = second.steps[0].slices.iter().map(|s| (s.ids.len(), s.sample)).collect();
    assert_eq!(rows, [(1, true), (31, false)], "one row decodes, the rest of the budget prefills");
    let third = bench.draw(&second.steps[0], None);
    let fourth = bench.draw(&third.steps[0], None);
    let last = &fourth.steps[0].slices[1];
    assert_eq!((last.start, last.ids.len(), last.sample), (62, 8, true));
}

#[test]
fn a_repeated_token_is_not_appended_twice() {
    let mut bench = Bench::new(|_| {});
    let (_, step) = bench.submit(&[4]);
    let message = tokens(&step.steps[0], None);
    let next = bench.call(vec![], vec![message.clone(), message.clone()]);
    assert_eq!(next.steps[0].slices[0].start, 4);
    let repeated = bench.call(vec![], vec![message]);
    assert!(repeated.steps.is_empty(), "the next step is already on its way");
}

#[test]
fn a_finished_or_cancelled_sequence_is_released_everywhere() {
    let mut bench = Bench::new(|_| {});
    let (_, step) = bench.submit(&[4]);
    let end = bench.draw(&step.steps[0], Some(Finish::Stop));
    assert_eq!(released(&end.steps[0]), [SequenceId(1)]);
    assert_eq!(bench.first.status().used, Room::default());

    let (admission, step) = bench.submit(&[4]);
    let cancel = Feedback { entries: vec![(route_of(&admission), Say::Cancel)] };
    let end = bench.call(vec![], vec![wire::encode(&cancel)]);
    assert_eq!(released(&end.steps[0]), [SequenceId(2)], "although a step was on its way");
    let late = bench.draw(&step.steps[0], None);
    assert!(late.steps.is_empty() && !bench.first.status().busy);
}

#[test]
fn a_dead_instance_ends_the_sequences_of_its_routes() {
    for dead in [LATER, SAMPLE, DETOKENIZE] {
        let mut bench = Bench::new(|_| {});
        bench.submit(&[4]);
        bench.alive.retain(|instance| *instance != dead);
        bench.meet();
        let came = bench.call(vec![], vec![]);
        let Event::Failed { failure, route: Some(_) } = &came.notices[0].event else { panic!("{dead}") };
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert_eq!(bench.first.status().used.sequences, 0);
        let releases = came.steps.iter().map(released).collect::<Vec<_>>();
        let told = match dead {
            LATER => vec![SAMPLE],
            SAMPLE => vec![SAMPLE, DETOKENIZE],
            _ => vec![DETOKENIZE],
        };
        assert_eq!(
            (releases, came.told),
            (vec![vec![SequenceId(1)]], told),
            "the dead, and whoever it cannot tell"
        );
    }
}

#[test]
fn a_prefill_that_a_dead_sample_never_answers_keeps_nobody_waiting() {
    let mut bench = Bench::new(|_| {});
    let (_, first) = bench.submit(&[70]);
    assert!(first.steps[0].slices.iter().all(|slice| !slice.sample), "a chunk without a token");
    bench.alive.retain(|instance| *instance != SAMPLE);
    bench.meet();
    bench.call(vec![], vec![]);
    bench.alive.push(SAMPLE);
    bench.meet();
    let (admission, step) = bench.submit(&[4]);
    let steps = [admission.steps, step.steps].concat();
    assert!(steps.iter().any(|step| !step.slices.is_empty()), "the lane is free for the next prompt");
}

#[test]
fn what_was_on_its_way_to_one_that_reconnected_is_given_up() {
    for shaken in [LATER, SAMPLE, DETOKENIZE] {
        let mut bench = Bench::new(|_| {});
        let (admission, first) = bench.submit(&[4]);
        let route = route_of(&admission);
        bench.reconnected.push(shaken);
        bench.meet();
        let came = bench.call(vec![], vec![]);
        let [Notice { event: Event::Failed { route: failed, failure }, .. }] = &came.notices[..] else {
            panic!("{:?}", came.notices)
        };
        assert_eq!((*failed, failure.is_bus_away()), (Some(route), true), "{shaken}");
        let (_, next) = bench.submit(&[3]);
        let steps: Vec<&Hidden> = came.steps.iter().chain(&next.steps).collect();
        let freed: Vec<SequenceId> = steps.iter().flat_map(|step| released(step)).collect();
        assert_eq!(freed, sequences(&first.steps[0]), "{shaken}");
        assert!(steps.iter().any(|step| !step.slices.is_empty()), "the lane is free for the next prompt");
    }
}

#[test]
fn later_stages_are_told_what_lives_until_nothing_is_that_a_release_may_be_lost_of() {
    let mut bench = Bench::new(|_| {});
    // Those that have just come may have been there before.
    bench.call(vec![], vec![]);
    bench.now += SWEEP_AFTER;
    assert!(bench.call(vec![], vec![]).told.contains(&SAMPLE));
    for come_back in [true, false] {
        bench.submit(&[4]);
        if come_back {
            bench.alive.retain(|instance| *instance != SAMPLE);
            bench.meet();
            bench.call(vec![], vec![]);
            bench.alive.push(SAMPLE);
        } else {
            bench.reconnected.push(SAMPLE);
        }
        bench.meet();
        bench.call(vec![], vec![]);
        bench.now += SWEEP_AFTER;
        let told = bench.call(vec![], vec![]).told;
        assert!(told.contains(&SAMPLE) && told.contains(&DETOKENIZE), "{told:?}");
        bench.now += SWEEP_AFTER;
        assert!(bench.call(vec![], vec![]).told.is_empty(), "nothing is left of that time");
    }
    let (admission, _) = bench.submit(&[4]);
    let route = route_of(&admission);
    bench.first.sweep_after(bench.now);
    for _ in 0..2 {
        bench.now += SWEEP_AFTER;
        assert!(bench.call(vec![], vec![]).told.contains(&SAMPLE), "it lives still");
    }
    bench.call(vec![], vec![wire::encode(&Feedback { entries: vec![(route, Say::Cancel)] })]);
    bench.now += SWEEP_AFTER;
    assert!(bench.call(vec![], vec![]).told.contains(&SAMPLE));
    bench.now += SWEEP_AFTER;
    assert!(bench.call(vec![], vec![]).told.is_empty());
}

#[test]
fn a_client_that_does_not_read_stops_at_its_window() {
    let mut bench = Bench::new(|settings| settings.window = 3);
    let (admission, mut came) = bench.submit(&[4]);
    for _ in 0..3 {
        came = bench.draw(&came.steps[0], None);
    }
    let stopped = bench.draw(&came.steps[0], None);
    assert!(stopped.steps.is_empty(), "four tokens are unread");
    let read = Feedback { entries: vec![(route_of(&admission), Say::Delivered(4))] };
    assert_eq!(bench.call(vec![], vec![wire::encode(&read)]).steps.len(), 1);
}

#[test]
fn without_blocks_the_youngest_is_preempted_and_comes_back_with_its_tokens_forced() {
    let mut bench = Bench::new(|settings| settings.kv_tokens = 128);
    let (_, mut came) = bench.submit(&[15, 15, 15]);
    came = bench.draw(&came.steps[0], None);
    let mut reopened = None;
    for _ in 0..60 {
        let Some(step) = came.steps.first() else { break };
        let again = step.head.control.iter().find_map(|control| match control {
            Control::Open(open) if open.forced_tokens > 0 => Some(open.grids.clone()),
            _ => None,
        });
        reopened = reopened.or(again);
        let released = released(step);
        assert!(step.slices.iter().all(|slice| !released.contains(&slice.sequence)));
        // The oldest ends now and then, so that there is room for the preempted.
        let oldest = step.slices.first().map_or(0, |slice| slice.start);
        let finish = (oldest > 52).then_some(Finish::Length);
        came = bench.draw(&step.clone(), finish);
    }
    assert_eq!(reopened, Some(vec![IMAGE]), "none came back, or without its images");
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut bench = Bench::new(|_| {});
    let job = bench.job(2000);
    let came = bench.call(vec![job], vec![]);
    assert!(
        matches!(&came.notices[0].event, Event::Failed { failure, .. } if failure.kind == FailureKind::Invalid)
    );
    assert_eq!(came.acks, [Ticket(1)]);
}

/// Which sequences a step has rows of.
fn sequences(step: &Hidden) -> Vec<SequenceId> {
    step.slices.iter().map(|slice| slice.sequence).collect()
}

#[test]
fn sequences_of_a_door_that_has_gone_end() {
    let mut bench = Bench::new(|_| {});
    bench.alive.push(DOOR);
    bench.meet();
    let (_, step) = bench.submit(&[4]);
    bench.alive.retain(|instance| *instance != DOOR);
    bench.meet();
    let came = bench.call(vec![], vec![]);
    assert!(matches!(&came.notices[0].event, Event::Failed { failure, .. } if !failure.is_instance_lost()));
    let released_by = [came.steps, bench.draw(&step.steps[0], None).steps].concat();
    assert_eq!(released_by.iter().flat_map(released).collect::<Vec<_>>(), sequences(&step.steps[0]));
    assert_eq!(bench.first.status().used, Room::default());
}

#[test]
fn two_steps_on_their_way_hold_different_sequences() {
    let mut bench = Bench::new(|settings| settings.in_flight = InFlight::Fixed(2));
    let (_, first) = bench.submit(&[4, 4, 4, 4]);
    let came = bench.draw(&first.steps[0], None);
    let other = bench.call(vec![], vec![]);
    let sequences = |step: &Hidden| step.slices.iter().map(|slice| slice.sequence).collect::<Vec<_>>();
    assert_eq!(sequences(&came.steps[0]).len(), 2);
    assert_eq!(sequences(&other.steps[0]).len(), 2);
    assert!(sequences(&came.steps[0]).iter().all(|it| !sequences(&other.steps[0]).contains(it)));
}
