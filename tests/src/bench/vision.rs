//! `bench --only vision`: images through the vision-encode process, beside the same encoder called directly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt;
use image::{ImageFormat, Rgb, RgbImage};
use models::ModelFolder;
use pipelines::Pipeline;
use pipelines::bus::{Bus, Queue};
use pipelines::owned::Owned;
use schemas::prompt::{Prompt, PromptImage, Span};
use schemas::request::{BlobRef, Context, Generation, Image, Payload};
use schemas::{Fingerprint, InstanceId, Role, SessionId, wire};
use serde::{Deserialize, Serialize};
use vision_encode::encoder::{Compute, Encoder, OnnxEncoder, Shape};

use super::spread::Spread;
use super::table::Table;
use crate::cluster::{Cluster, Options};

/// Pictures of each measurement, so many seconds of them.
const PICTURES_SIDE: (u32, u32) = (320, 240);
const DIFFERENT_PICTURES: u32 = 64;
const WARM_UP: u32 = 8;
const DEADLINE: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Debug, Clone)]
pub struct VisionBench {
    /// Model folder with an encoder.
    pub model: PathBuf,
    /// Pictures of a batch; twice as many images are on their way at once.
    pub batches: Vec<u32>,
    /// How often each side is measured.
    pub rounds: u32,
    /// Length of each measurement.
    pub window: Duration,
}

/// One side of one round, for a process of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectWork {
    /// Pictures of a batch.
    pub batch: u32,
    /// How long to go on.
    pub millis: u64,
}

/// The figures of one batch size.
#[derive(Debug, Clone, Serialize)]
pub struct VisionFigures {
    /// Pictures of a batch.
    pub batch: u32,
    /// Images a second by direct calls.
    pub direct: Spread,
    /// Images a second through the stage.
    pub stage: Spread,
    /// The second over the first, round by round.
    pub ratio: Spread,
}

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct VisionReport {
    /// The model folder's name.
    pub model: String,
    /// By batch size.
    pub figures: Vec<VisionFigures>,
}

/// Encodes ready-made pictures with direct calls; returns images a second.
pub fn direct(model: &Path, work: &DirectWork) -> anyhow::Result<f64> {
    let folder = ModelFolder::open(model)?;
    let vision = folder.vision().context("the model has no vision side")?;
    let hidden = folder.config().hidden_size as u32;
    let shape = Shape::of(vision, hidden)?;
    let compute = Compute { device: "cpu".into(), threads: None };
    let mut encoder = OnnxEncoder::load(&folder.vision_encoder(), shape, &compute)?;
    let pixels = work.batch as usize * 3 * (shape.tile.0 * shape.tile.1) as usize;
    let numbers: Vec<f32> = (0..pixels).map(|i| (i % 255) as f32 / 127.5 - 1.0).collect();
    for _ in 0..WARM_UP.div_ceil(work.batch) {
        encoder.encode(&numbers, work.batch as usize, shape.tile)?;
    }
    let (started, mut images) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(work.millis) {
        encoder.encode(&numbers, work.batch as usize, shape.tile)?;
        images += work.batch;
    }
    Ok(f64::from(images) / started.elapsed().as_secs_f64())
}

impl VisionBench {
    /// Measures both sides in turns.
    pub async fn run(&self) -> anyhow::Result<VisionReport> {
        let folder = ModelFolder::open(&self.model)?;
        let mut figures = Vec::new();
        for &batch in &self.batches {
            let (mut direct, mut stage) = (Vec::new(), Vec::new());
            for round in 0..self.rounds {
                // ABBA: whatever drifts meets both sides alike.
                for side in [round % 2, 1 - round % 2] {
                    match side {
                        0 => direct.push(self.direct_round(batch)?),
                        _ => stage.push(self.stage_round(&folder, batch).await?),
                    }
                }
            }
            let ratio: Vec<f64> = stage.iter().zip(&direct).map(|(stage, direct)| stage / direct).collect();
            figures.push(VisionFigures {
                batch,
                direct: Spread::of(direct),
                stage: Spread::of(stage),
                ratio: Spread::of(ratio),
            });
        }
        let model = self.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(VisionReport { model, figures })
    }

    fn direct_round(&self, batch: u32) -> anyhow::Result<f64> {
        let work = DirectWork { batch, millis: self.window.as_millis() as u64 };
        let output = Command::new(std::env::current_exe()?)
            .arg("--direct-vision")
            .arg(&self.model)
            .args(["--work", &serde_json::to_string(&work)?])
            .output()?;
        ensure!(output.status.success(), "direct side: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    /// One vision-encode process on a broker; this process puts prompts in and takes them out behind it.
    async fn stage_round(&self, folder: &ModelFolder, batch: u32) -> anyhow::Result<f64> {
        let mut options = Options::demo()
            .set("vision-encode", "threads", 0)
            .set("vision-encode", "batch", batch)
            // Every image is encoded.
            .set("vision-encode", "cache_mb", 0);
        options.overrides.path = Some(self.model.canonicalize()?);
        let pipeline = Pipeline::read(&options.pipeline, options.overrides.clone())?;
        let fp = pipeline.fingerprint(folder.hash()?);
        for name in ["gateway", "tokenize", "shard-forward.0", "shard-forward.1", "sample", "detokenize"] {
            options = options.without(name);
        }
        let cluster = Cluster::start(options).await?;
        let bus = Bus::connect(&cluster.nats.url(), "bench").await?;
        let prompts = prompts(&bus, folder).await?;
        let through = Through::open(bus, fp).await?;
        // Twice a batch, so that one is prepared while another is encoded.
        let at_once = 2 * batch;
        through.pass(&prompts, at_once, Stop::After(WARM_UP)).await?;
        let started = Instant::now();
        let images = through.pass(&prompts, at_once, Stop::At(started + self.window)).await?;
        Ok(f64::from(images) / started.elapsed().as_secs_f64())
    }
}

/// Prompts with one picture each, all different; the pictures are in the blob store.
async fn prompts(bus: &Bus, folder: &ModelFolder) -> anyhow::Result<Vec<Prompt>> {
    let vision = folder.vision().context("the model has no vision side")?;
    let (width, height) = PICTURES_SIDE;
    let rows = vision.plan(width, height).context("no plan")?.rows();
    let mut prompts = Vec::new();
    for number in 0..DIFFERENT_PICTURES {
        let at =
            |x: u32, y: u32| Rgb([(x + number) as u8, (y * 2) as u8, (x / 8 * y / 8 + number * 3) as u8]);
        let mut file = std::io::Cursor::new(Vec::new());
        RgbImage::from_fn(width, height, at).write_to(&mut file, ImageFormat::Png)?;
        let mut owned = Owned::new(u128::from(number), 0, file.get_ref().len());
        owned.content().extend_from_slice(file.get_ref());
        let (blob, content) = owned.into_blob();
        bus.store(blob, &content).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        prompts.push(prompt(number, Image { file: blob, width, height, field: "image".into() }, rows));
    }
    Ok(prompts)
}

fn prompt(number: u32, image: Image, rows: u32) -> Prompt {
    Prompt {
        context: Context {
            session: SessionId(number.into()),
            choice: 0,
            attempt: 0,
            door: InstanceId(0),
            remaining_ms: DEADLINE.as_millis() as u64,
            alone: false,
            traceparent: None,
        },
        ids: Payload::Inline(vec![0; 4 * rows as usize]),
        prompt_tokens: rows,
        max_tokens: 1,
        generation: Generation::default(),
        eos: Vec::new(),
        images: vec![PromptImage { image, rows }],
        spans: vec![Span { start: 0, rows }],
        grids: vec![],
        embeddings: None,
    }
}

/// When to stop putting prompts in.
#[derive(Debug, Clone, Copy)]
enum Stop {
    After(u32),
    At(Instant),
}

/// Both ends of the stage.
struct Through {
    bus: Bus,
    fp: Fingerprint,
    behind: async_nats::jetstream::consumer::PullConsumer,
}

impl Through {
    async fn open(bus: Bus, fp: Fingerprint) -> anyhow::Result<Self> {
        let until = Instant::now() + DEADLINE;
        loop {
            // The stage makes the queues once it has loaded its model.
            match bus.workers(Queue::New, fp, Role::ShardForward(0)).await {
                Ok(behind) => return Ok(Self { bus, fp, behind }),
                Err(error) => ensure!(Instant::now() < until, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Keeps `at_once` prompts in the stage until `stop`, then waits for the last; returns how many came out.
    async fn pass(&self, prompts: &[Prompt], at_once: u32, stop: Stop) -> anyhow::Result<u32> {
        let queue = Queue::New.subject(self.fp, Role::VisionEncode);
        let mut prompts = prompts.iter().cycle();
        let (mut sent, mut out) = (0, 0);
        let mut come = self.behind.messages().await?;
        loop {
            let goes_on = match stop {
                Stop::After(count) => sent < count,
                Stop::At(time) => Instant::now() < time,
            };
            if goes_on && sent - out < at_once {
                let prompt = prompts.next().context("no prompts")?;
                self.bus
                    .enqueue(&queue, wire::encode(prompt))
                    .await
                    .map_err(|failure| anyhow::anyhow!("{failure}"))?;
                sent += 1;
                continue;
            }
            if sent == out {
                return Ok(out);
            }
            let message = tokio::time::timeout(DEADLINE, come.next()).await?.context("the queue ended")??;
            if let Some(Payload::Blob(blob)) = wire::decode::<Prompt>(&message.payload)?.embeddings {
                self.read(blob).await?;
            }
            message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
            out += 1;
        }
    }

    async fn read(&self, blob: BlobRef) -> anyhow::Result<()> {
        self.bus.fetch(blob).await?.context("embeddings have expired")?;
        self.bus.delete(blob).await
    }
}

impl std::fmt::Display for VisionReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = PICTURES_SIDE;
        writeln!(
            f,
            "vision-encode with `{}`, PNGs of {width} by {height}, beside ONNX Runtime on ready pixels:",
            self.model
        )?;
        let mut table = Table::new(["batch", "direct images/s", "stage images/s", "ratio"]);
        for it in &self.figures {
            let ratio = format!("{:.2}", it.ratio);
            let cells = [it.batch.to_string(), it.direct.to_string(), it.stage.to_string(), ratio];
            table.row(cells);
        }
        write!(f, "{table}")
    }
}
