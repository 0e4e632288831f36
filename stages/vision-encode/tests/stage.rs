//! The stage as a function, around an encoder that does what a test wants.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use std::io::Cursor;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use models::ModelFolder;
use pipelines::owned::Owned;
use pipelines::stage::{Effect, Ticket};
use pipelines::{Inbox, Job, Outbox, Peers, Stage};
use schemas::admission::{Event, Notice};
use schemas::prompt::{Prompt, PromptImage, Span};
use schemas::request::{Context, Generation, Image, Payload};
use schemas::{DType, Failure, FailureKind, Fingerprint, InstanceId, Role, SessionId, Subject, wire};
use vision_encode::VisionEncode;
use vision_encode::encoder::Encoder;
use vision_encode::stage::Settings;

const FP: Fingerprint = Fingerprint(7);
const ROWS: u32 = 16;
const HIDDEN: usize = 64;
/// Number of a picture whose encoding fails.
const BAD: u8 = 200;
/// Number of a picture whose encoding panics.
const DEADLY: u8 = 201;

/// Gives rows of the brightness of each picture, once it is let.
struct Stub {
    let_go: Receiver<()>,
    pixels: usize,
}

impl Encoder for Stub {
    fn encode(&mut self, pixels: &[f32], tiles: usize, _: (u32, u32)) -> anyhow::Result<Vec<f32>> {
        // Whoever has nothing to say any more lets everything go.
        let _ = self.let_go.recv();
        let mut rows = Vec::new();
        for picture in pixels.chunks(self.pixels) {
            let brightness = picture[0];
            anyhow::ensure!(number(brightness) != BAD, "a bad picture");
            assert_ne!(number(brightness), DEADLY, "a deadly picture");
            rows.extend(std::iter::repeat_n(brightness, ROWS as usize * HIDDEN));
        }
        assert_eq!(rows.len(), tiles * ROWS as usize * HIDDEN);
        Ok(rows)
    }
}

/// The number that `picture` was made with, from one of its scaled red values.
fn number(red: f32) -> u8 {
    ((red * 0.26862954 + 0.48145466) * 255.0).round() as u8
}

struct Bench {
    stage: VisionEncode,
    let_go: Option<Sender<()>>,
    last_ticket: u64,
}

/// What a call brought.
#[derive(Default)]
struct Came {
    prompts: Vec<Prompt>,
    failures: Vec<(SessionId, Failure)>,
    acks: Vec<Ticket>,
    given_back: Vec<Ticket>,
    wake: Option<Instant>,
}

impl Bench {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision/llava");
        let vision = ModelFolder::open(&folder).unwrap().vision().unwrap().clone();
        let plan = vision.plan(1, 1).unwrap();
        assert_eq!(plan.rows(), ROWS);
        let (let_go, receiver) = channel();
        let stub = Stub { let_go: receiver, pixels: 3 * (plan.tiling.tile.0 * plan.tiling.tile.1) as usize };
        let settings = Settings { fp: FP, dtype: DType::F32, batch: 4, cache_bytes: 1 << 20 };
        let stage = VisionEncode::new(&settings, vision, Box::new(stub)).unwrap();
        Self { stage, let_go: Some(let_go), last_ticket: 0 }
    }

    /// An entry with one picture of one color.
    fn job(&mut self, picture: u8, left: Duration) -> Job {
        self.last_ticket += 1;
        let mut file = Cursor::new(Vec::new());
        let pixels = image::RgbImage::from_pixel(8, 8, image::Rgb([picture; 3]));
        pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
        let mut owned = Owned::new(self.last_ticket.into(), 0, file.get_ref().len());
        owned.content().extend_from_slice(file.get_ref());
        let (blob, content) = owned.into_blob();
        let image = Image { file: blob, width: 8, height: 8, field: format!("field {}", self.last_ticket) };
        let context = Context {
            session: SessionId(self.last_ticket.into()),
            choice: 0,
            attempt: 0,
            door: InstanceId(5),
            remaining_ms: left.as_millis() as u64,
            alone: false,
            traceparent: None,
        };
        let prompt = Prompt {
            context,
            ids: Payload::Inline(vec![0; 4 * ROWS as usize]),
            prompt_tokens: ROWS,
            max_tokens: 1,
            generation: Generation::default(),
            eos: vec![],
            images: vec![PromptImage { image, rows: ROWS }],
            spans: vec![Span { start: 0, rows: ROWS }],
            grids: vec![],
            embeddings: None,
        };
        let ticket = Ticket(self.last_ticket);
        let payload = wire::encode(&prompt);
        Job { payload, blobs: vec![Some(content)], ticket, age: Duration::ZERO, is_poison: false }
    }

    fn call(&mut self, jobs: Vec<Job>, now: Instant, draining: bool) -> anyhow::Result<Came> {
        let inbox = Inbox {
            now,
            instance: InstanceId(1),
            jobs,
            messages: vec![],
            peers: Peers::default(),
            payload_max: 1 << 20,
            reconnected: false,
            draining,
        };
        let mut out = Outbox::default();
        self.stage.process(inbox, &mut out)?;
        let mut came = Came::default();
        for effect in out.take() {
            match effect {
                Effect::Enqueue { subject, payload, .. } => {
                    assert_eq!(subject, Subject::queue(FP, Role::ShardForward(0)));
                    came.prompts.push(wire::decode(&payload).unwrap());
                }
                Effect::Send { payload, .. } => {
                    let notice: Notice = wire::decode(&payload).unwrap();
                    match notice.event {
                        Event::Failed { failure, .. } => came.failures.push((notice.session, failure)),
                        other => panic!("{other:?}"),
                    }
                }
                Effect::Ack(ticket) => came.acks.push(ticket),
                Effect::GiveBack(ticket) => came.given_back.push(ticket),
                Effect::WakeAt(time) => came.wake = Some(time),
                other => panic!("{other:?}"),
            }
        }
        Ok(came)
    }

    /// Calls the stage each time it rings, until `acks` entries are done.
    async fn until_acked(&mut self, acks: usize) -> anyhow::Result<Came> {
        let mut all = Came::default();
        let bell = self.stage.bell().unwrap();
        while all.acks.len() < acks {
            tokio::time::timeout(Duration::from_secs(10), bell.notified()).await?;
            let came = self.call(vec![], Instant::now(), false)?;
            all.prompts.extend(came.prompts);
            all.failures.extend(came.failures);
            all.acks.extend(came.acks);
        }
        Ok(all)
    }
}

fn first_value(prompt: &Prompt) -> u8 {
    match &prompt.embeddings {
        Some(Payload::Inline(rows)) => number(f32::from_le_bytes(rows[..4].try_into().unwrap())),
        other => panic!("{other:?}"),
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_picture_that_cannot_be_encoded_fails_alone_in_its_batch() -> anyhow::Result<()> {
    let mut bench = Bench::new();
    let jobs = [10, BAD, 30, 40].map(|picture| bench.job(picture, LONG));
    bench.call(jobs.into(), Instant::now(), false)?;
    bench.let_go = None;
    let came = bench.until_acked(4).await?;
    let mut pictures: Vec<u8> = came.prompts.iter().map(first_value).collect();
    pictures.sort_unstable();
    assert_eq!(pictures, [10, 30, 40]);
    assert_eq!(came.failures.len(), 1);
    assert_eq!((came.failures[0].0, came.failures[0].1.kind), (SessionId(2), FailureKind::Internal));
    Ok(())
}

#[tokio::test]
async fn a_request_out_of_time_does_not_take_another_with_the_same_picture_along() -> anyhow::Result<()> {
    let mut bench = Bench::new();
    let start = Instant::now();
    let (short, long) = (bench.job(10, Duration::from_millis(1)), bench.job(10, LONG));
    let came = bench.call(vec![short, long], start, false)?;
    assert_eq!(came.wake, Some(start + Duration::from_millis(1)));
    let late = bench.call(vec![], start + Duration::from_millis(2), false)?;
    assert_eq!(late.acks, [Ticket(1)]);
    bench.let_go = None;
    let came = bench.until_acked(1).await?;
    assert_eq!(came.prompts.iter().map(|prompt| prompt.context.session).collect::<Vec<_>>(), [SessionId(2)]);
    Ok(())
}

#[tokio::test]
async fn a_stage_whose_encoding_thread_has_died_ends() -> anyhow::Result<()> {
    let mut bench = Bench::new();
    let job = bench.job(DEADLY, LONG);
    bench.call(vec![job], Instant::now(), false)?;
    bench.let_go = None;
    assert!(bench.until_acked(1).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_draining_stage_gives_new_entries_back_and_finishes_the_others() -> anyhow::Result<()> {
    let mut bench = Bench::new();
    let held = bench.job(10, LONG);
    bench.call(vec![held], Instant::now(), false)?;
    let late = bench.job(20, LONG);
    assert_eq!(bench.call(vec![late], Instant::now(), true)?.given_back, [Ticket(2)]);
    assert!(bench.stage.status().busy);
    bench.let_go = None;
    assert_eq!(bench.until_acked(1).await?.acks, [Ticket(1)]);
    assert!(!bench.stage.status().busy);
    Ok(())
}

#[test]
fn poison_is_answered_and_not_worked_on() {
    let mut bench = Bench::new();
    let poison = Job { is_poison: true, ..bench.job(10, LONG) };
    let came = bench.call(vec![poison], Instant::now(), false).unwrap();
    assert_eq!(came.failures[0].1, Failure::poison());
    assert_eq!(came.acks, [Ticket(1)]);
}

#[test]
fn expired_and_unreadable_files_fail_by_kind() {
    let mut bench = Bench::new();
    let mut gone = bench.job(10, LONG);
    gone.blobs = vec![None];
    let mut foreign = bench.job(10, LONG);
    foreign.blobs = vec![Some(Bytes::from_static(b"short"))];
    let came = bench.call(vec![gone, foreign], Instant::now(), false).unwrap();
    assert!(came.failures.iter().all(|(_, failure)| failure.kind == FailureKind::Unavailable));
    assert_eq!(came.acks, [Ticket(1), Ticket(2)]);
}
