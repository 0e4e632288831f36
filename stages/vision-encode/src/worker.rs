//! The threads behind the stage: one prepares images while the other encodes those before, in batches across requests.
//!
//! The stage's own thread stays free to keep its deliveries alive: one picture may take longer than the broker waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use half::bf16;
use models::{ImagePlan, ImageRules};
use schemas::request::Image;
use schemas::{DType, Failure, FailureKind};
use tokio::sync::Notify;

use crate::decode::decode;
use crate::encoder::Encoder;
use crate::pictures::{Pictures, Scale, cut};

/// Images that are prepared and wait for the encoder: as many as it needs not to wait.
const PREPARED_MAX: usize = 8;

/// An image to encode.
#[derive(Debug)]
pub(crate) struct Task {
    /// The stage's number of it.
    pub(crate) id: u64,
    /// What the request says of it.
    pub(crate) image: Image,
    /// The file.
    pub(crate) file: Bytes,
    /// What becomes of it.
    pub(crate) plan: ImagePlan,
    /// After this time nobody waits for it.
    pub(crate) deadline: Instant,
}

/// What became of a task: rows of embeddings in the pipeline's dtype.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: u64,
    pub(crate) result: Result<Bytes, Failure>,
}

/// The two threads. They end when this is dropped.
pub(crate) struct Worker {
    tasks: Option<SyncSender<Task>>,
    done: Receiver<Done>,
    bell: Arc<Notify>,
    /// Set when the stage has gone, and by a thread that ends.
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a worker computes with.
pub(crate) struct Tools {
    pub(crate) encoder: Box<dyn Encoder>,
    pub(crate) rules: ImageRules,
    pub(crate) dtype: DType,
    /// Pictures encoded together.
    pub(crate) batch: usize,
    /// Tasks that may wait.
    pub(crate) tasks_max: usize,
}

impl Worker {
    /// Starts the threads.
    pub(crate) fn start(tools: Tools) -> std::io::Result<Self> {
        let (tasks, task_receiver) = sync_channel(tools.tasks_max);
        let (prepared, prepared_receiver) = sync_channel(PREPARED_MAX);
        // As many as there are tasks, which are bounded.
        let (done, done_receiver) = channel();
        let bell = Arc::new(Notify::new());
        let ended = Arc::new(AtomicBool::new(false));
        let report = Report { done, bell: bell.clone(), ended: ended.clone() };
        let preparing = Preparing { rules: tools.rules.clone(), report: report.clone() };
        let encoding = Encoding { scale: Scale::new(&tools.rules), tools, report, waiting: VecDeque::new() };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let threads = vec![
            thread("prepare").spawn(move || preparing.run(&task_receiver, &prepared))?,
            thread("encode").spawn(move || encoding.run(&prepared_receiver))?,
        ];
        Ok(Self { tasks: Some(tasks), done: done_receiver, bell, ended, threads })
    }

    /// Rings when something is done.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    /// Hands over as many of `tasks` as there is room for, the first ones first. Fails when the threads have ended.
    pub(crate) fn take(&self, tasks: &mut VecDeque<Task>) -> anyhow::Result<()> {
        anyhow::ensure!(!self.ended.load(Ordering::Acquire), "an encoding thread has ended");
        let Some(sender) = &self.tasks else { return Ok(()) };
        while let Some(task) = tasks.pop_front() {
            match sender.try_send(task) {
                Ok(()) => {}
                Err(TrySendError::Full(task)) => {
                    tasks.push_front(task);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => anyhow::bail!("the encoding threads have ended"),
            }
        }
        Ok(())
    }

    /// What has been done since the last call.
    pub(crate) fn done(&self) -> impl Iterator<Item = Done> {
        self.done.try_iter()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What waits is somebody else's: its deliveries are not acknowledged.
        self.ended.store(true, Ordering::Release);
        self.tasks = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an encoding thread panicked");
            }
        }
    }
}

#[derive(Clone)]
struct Report {
    done: std::sync::mpsc::Sender<Done>,
    bell: Arc<Notify>,
    ended: Arc<AtomicBool>,
}

/// Tells the stage when its thread ends, by a panic too: a stage without it would hold its deliveries for ever.
struct LastWord(Report);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.bell.notify_one();
    }
}

impl Report {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn say(&self, id: u64, result: Result<Bytes, Failure>) {
        // The receiver is gone only when the stage has ended.
        let _ = self.done.send(Done { id, result });
        self.bell.notify_one();
    }
}

/// An image whose pixels are cut.
struct Prepared {
    task: Task,
    pictures: Pictures,
}

impl Prepared {
    /// Width and height of each picture.
    fn size(&self) -> (u32, u32) {
        self.task.plan.tiling.tile
    }
}

/// The thread that decodes, resizes and cuts.
struct Preparing {
    rules: ImageRules,
    report: Report,
}

impl Preparing {
    fn run(self, tasks: &Receiver<Task>, prepared: &SyncSender<Prepared>) {
        let _last_word = LastWord(self.report.clone());
        while let Ok(task) = tasks.recv() {
            if self.report.has_ended() {
                return;
            }
            let started = Instant::now();
            let prepared_image = match self.prepare(&task) {
                Ok(pictures) => Prepared { task, pictures },
                Err(failure) => {
                    self.report.say(task.id, Err(failure));
                    continue;
                }
            };
            if prepared.send(prepared_image).is_err() {
                return;
            }
            metrics::histogram!("tokenway_image_prepare_seconds").record(started.elapsed().as_secs_f64());
        }
    }

    fn prepare(&self, task: &Task) -> Result<Pictures, Failure> {
        if task.deadline <= Instant::now() {
            return Err(late());
        }
        let image = decode(&task.file, &task.image)?;
        Ok(cut(image, &task.plan.tiling, self.rules.filter))
    }
}

/// The thread that encodes.
struct Encoding {
    tools: Tools,
    scale: Scale,
    report: Report,
    waiting: VecDeque<Prepared>,
}

impl Encoding {
    fn run(mut self, prepared: &Receiver<Prepared>) {
        let _last_word = LastWord(self.report.clone());
        let mut numbers = Vec::new();
        while !self.report.has_ended() {
            if self.waiting.is_empty() {
                let Ok(image) = prepared.recv() else { return };
                self.waiting.push_back(image);
            }
            while self.waiting.len() < self.tools.batch {
                match prepared.try_recv() {
                    Ok(image) => self.waiting.push_back(image),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            let batch = self.next_batch();
            self.encode(batch, &mut numbers);
        }
    }

    /// Takes images up to a batch of pictures of one size, at least one.
    fn next_batch(&mut self) -> Vec<Prepared> {
        let mut batch: Vec<Prepared> = Vec::new();
        let mut tiles = 0;
        while let Some(next) = self.waiting.front() {
            tiles += next.pictures.tiles;
            let other_size = batch.first().is_some_and(|first| first.size() != next.size());
            if other_size || (!batch.is_empty() && tiles > self.tools.batch) {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        batch
    }

    fn encode(&mut self, batch: Vec<Prepared>, numbers: &mut Vec<f32>) {
        let (batch, expired): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|image| image.task.deadline > Instant::now());
        for image in expired {
            self.report.say(image.task.id, Err(late()));
        }
        if batch.is_empty() {
            return;
        }
        let tiles = batch.iter().map(|image| image.pictures.tiles).sum::<usize>();
        let started = Instant::now();
        match self.rows(&batch, numbers) {
            Ok(rows) => self.hand_out(&batch, &rows, tiles),
            // Perhaps only one of them is at fault.
            Err(error) if batch.len() > 1 => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    images = batch.len(),
                    "batch is encoded one by one"
                );
                batch.into_iter().for_each(|image| self.encode(vec![image], numbers));
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "encode");
                let failure = Failure::new(FailureKind::Internal, "the vision encoder failed");
                batch.iter().for_each(|image| self.report.say(image.task.id, Err(failure.clone())));
            }
        }
        metrics::histogram!("tokenway_image_encode_seconds").record(started.elapsed().as_secs_f64());
        metrics::histogram!("tokenway_image_batch_pictures").record(tiles as f64);
    }

    /// The embeddings of a batch, in as many runs as it takes pictures.
    fn rows(&mut self, batch: &[Prepared], numbers: &mut Vec<f32>) -> anyhow::Result<Vec<f32>> {
        let (width, height) = batch.first().map_or((0, 0), Prepared::size);
        let pixels = batch.iter().map(|image| image.pictures.pixels.as_slice());
        numbers.clear();
        for pixels in pixels {
            self.scale.append(pixels, (width * height) as usize, numbers);
        }
        let tiles = batch.iter().map(|image| image.pictures.tiles).sum::<usize>();
        let per_tile = numbers.len() / tiles;
        let mut rows = Vec::new();
        for run in numbers.chunks(per_tile * self.tools.batch) {
            let embeddings = self.tools.encoder.encode(run, run.len() / per_tile, (width, height))?;
            anyhow::ensure!(embeddings.iter().all(|number| number.is_finite()), "embeddings are not finite");
            match rows.is_empty() {
                true => rows = embeddings,
                false => rows.extend(embeddings),
            }
        }
        Ok(rows)
    }

    fn hand_out(&self, batch: &[Prepared], rows: &[f32], tiles: usize) {
        let per_tile = rows.len() / tiles;
        let mut rest = rows;
        for image in batch {
            let (own, others) = rest.split_at(per_tile * image.pictures.tiles);
            rest = others;
            self.report.say(image.task.id, Ok(as_bytes(own, self.tools.dtype)));
        }
    }
}

fn as_bytes(numbers: &[f32], dtype: DType) -> Bytes {
    match dtype {
        DType::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>().into(),
        DType::Bf16 => numbers
            .iter()
            .flat_map(|number| bf16::from_f32(*number).to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    }
}

fn late() -> Failure {
    Failure::new(FailureKind::DeadlineExceeded, "the deadline passed while the image waited for the encoder")
}
