//! The stage: prompts with images from its queue, the same with embeddings into the queue of shard-forward.0.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use models::VisionConfig;
use pipelines::owned::{self, Owned};
use pipelines::stage::{Ticket, refused};
use pipelines::{Inbox, Job, Outbox, Stage, Status};
use schemas::presence::Room;
use schemas::prompt::{Prompt, PromptImage};
use schemas::request::{BlobRef, Image, Payload};
use schemas::{DType, Failure, FailureKind, Fingerprint, Role, Subject, wire};
use tokio::sync::Notify;

use crate::cache::{Cache, Hash};
use crate::encoder::Encoder;
use crate::worker::{Task, Tools, Worker};

/// Entries taken from the queue at once: their image files are held in memory.
const ROOM: usize = 8;

/// Longest list of embeddings that travels in the entry, in bytes; beside it the entry holds the prompt.
const INLINE_BYTES: usize = 32 * 1024;
/// Longest list of token ids beside embeddings in the entry, in bytes.
const IDS_BESIDE_BYTES: usize = 16 * 1024;

/// What the stage is made for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pipeline.
    pub fp: Fingerprint,
    /// Of embeddings.
    pub dtype: DType,
    /// Pictures encoded together.
    pub batch: usize,
    /// Bytes of embeddings kept.
    pub cache_bytes: usize,
}

/// Makes embeddings of images.
pub struct VisionEncode {
    fp: Fingerprint,
    config: VisionConfig,
    worker: Worker,
    cache: Cache,
    /// Prompts whose images are not all encoded, by the number of their ticket.
    held: HashMap<Ticket, Held>,
    /// Images for which the worker has had no room.
    waiting: VecDeque<Task>,
    tasks: HashMap<u64, Encoding>,
    /// The last task of an image.
    by_hash: HashMap<Hash, u64>,
    last_task: u64,
    done: u64,
}

/// An image of a held prompt.
#[derive(Debug, Clone, Copy)]
struct Place {
    ticket: Ticket,
    index: usize,
}

/// An image on its way through the worker, and the prompts that wait for it.
struct Encoding {
    hash: Hash,
    /// When the worker gives it up.
    deadline: Instant,
    places: Vec<Place>,
}

struct Held {
    prompt: Prompt,
    deadline: Instant,
    embeddings: Vec<Option<Bytes>>,
}

impl VisionEncode {
    /// The stage of a model whose vision side is `config`.
    pub fn new(
        settings: &Settings,
        config: VisionConfig,
        encoder: Box<dyn Encoder>,
    ) -> std::io::Result<Self> {
        let tools = Tools {
            encoder,
            rules: config.rules().clone(),
            dtype: settings.dtype,
            batch: settings.batch,
            tasks_max: 2 * settings.batch,
        };
        Ok(Self {
            fp: settings.fp,
            config,
            worker: Worker::start(tools)?,
            cache: Cache::new(settings.cache_bytes),
            held: HashMap::new(),
            waiting: VecDeque::new(),
            tasks: HashMap::new(),
            by_hash: HashMap::new(),
            last_task: 0,
            done: 0,
        })
    }

    fn take(&mut self, job: &Job, now: Instant, out: &mut Outbox) {
        let mut prompt: Prompt = match wire::decode(&job.payload) {
            Ok(prompt) => prompt,
            Err(error) => {
                refused("prompt", &error);
                return out.ack(job.ticket);
            }
        };
        let age_ms = u64::try_from(job.age.as_millis()).unwrap_or(u64::MAX);
        prompt.context.remaining_ms = prompt.context.remaining_ms.saturating_sub(age_ms);
        if let Err(failure) = self.check(&prompt, job) {
            out.fail(&prompt.context, None, failure);
            return out.ack(job.ticket);
        }
        let deadline = now + Duration::from_millis(prompt.context.remaining_ms);
        let files: Vec<Option<Bytes>> = job.blobs.iter().map(|blob| owned::content(blob.as_ref()?)).collect();
        if files.len() != prompt.images.len() || files.iter().any(Option::is_none) {
            let failure = Failure::new(FailureKind::Unavailable, "a stored image has expired");
            out.fail(&prompt.context, None, failure);
            return out.ack(job.ticket);
        }
        let images = prompt.images.iter().map(|it| it.image.clone()).zip(files.into_iter().flatten());
        let images: Vec<_> = images.collect();
        let embeddings = vec![None; images.len()];
        self.held.insert(job.ticket, Held { prompt, deadline, embeddings });
        for (index, (image, file)) in images.into_iter().enumerate() {
            self.want(Place { ticket: job.ticket, index }, image, file);
        }
        self.send_if_complete(job.ticket, now, out);
    }

    /// Gets the embeddings for `place`: from the cache, from a task that encodes the same file already and is not given up
    /// sooner, else from a task of its own.
    fn want(&mut self, place: Place, image: Image, file: Bytes) {
        let hash: Hash = *blake3::hash(&file).as_bytes();
        let Some(deadline) = self.held.get(&place.ticket).map(|held| held.deadline) else { return };
        if let Some(embeddings) = self.cache.get(&hash) {
            metrics::counter!("tokenway_images_total", "from" => "cache").increment(1);
            return self.give(place, embeddings);
        }
        let running = self.by_hash.get(&hash).and_then(|id| self.tasks.get_mut(id));
        if let Some(running) = running.filter(|running| running.deadline >= deadline) {
            return running.places.push(place);
        }
        // `check` has made sure that there is one.
        let Ok(plan) = self.config.plan(image.width, image.height) else { return };
        metrics::counter!("tokenway_images_total", "from" => "encoder").increment(1);
        self.last_task += 1;
        let id = self.last_task;
        self.tasks.insert(id, Encoding { hash, deadline, places: vec![place] });
        self.by_hash.insert(hash, id);
        self.waiting.push_back(Task { id, image, file, plan, deadline });
    }

    fn check(&self, prompt: &Prompt, job: &Job) -> Result<(), Failure> {
        if prompt.context.remaining_ms == 0 {
            let message = "the deadline passed while the images waited for an encoder";
            return Err(Failure::new(FailureKind::DeadlineExceeded, message));
        }
        if job.is_poison {
            return Err(Failure::poison());
        }
        let planned =
            |it: &PromptImage| self.config.plan(it.image.width, it.image.height).map(|plan| plan.rows()).ok();
        match prompt.images.iter().all(|it| planned(it) == Some(it.rows)) {
            true => Ok(()),
            false => {
                Err(Failure::new(FailureKind::Internal, "an image has another number of embeddings here"))
            }
        }
    }

    fn give(&mut self, place: Place, embeddings: Bytes) {
        if let Some(held) = self.held.get_mut(&place.ticket) {
            held.embeddings[place.index] = Some(embeddings);
        }
    }

    fn take_done(&mut self, id: u64, result: Result<Bytes, Failure>, now: Instant, out: &mut Outbox) {
        let Some(Encoding { hash, places, .. }) = self.tasks.remove(&id) else { return };
        if self.by_hash.get(&hash) == Some(&id) {
            self.by_hash.remove(&hash);
        }
        if let Ok(embeddings) = &result {
            self.cache.put(hash, embeddings.clone());
        }
        for place in places {
            match &result {
                Ok(embeddings) => {
                    self.give(place, embeddings.clone());
                    self.send_if_complete(place.ticket, now, out);
                }
                Err(failure) => self.fail(place, failure.clone(), out),
            }
        }
    }

    /// Ends the request of an image that cannot be encoded; the fault is named by its own field, for the same file may have come
    /// in several requests.
    fn fail(&mut self, place: Place, mut failure: Failure, out: &mut Outbox) {
        let Some(held) = self.held.remove(&place.ticket) else { return };
        if let (Some(param), Some(image)) = (&mut failure.param, held.prompt.images.get(place.index)) {
            failure.message = failure.message.replace(param.as_str(), &image.image.field);
            param.clone_from(&image.image.field);
        }
        out.fail(&held.prompt.context, None, failure);
        out.ack(place.ticket);
    }

    /// Ends what has run out of time, whatever the worker does; returns when the next one will.
    fn expire(&mut self, now: Instant, out: &mut Outbox) -> Option<Instant> {
        let late: Vec<Ticket> =
            self.held.iter().filter(|(_, held)| held.deadline <= now).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            // The session has its own clock and has told its client.
            self.held.remove(&ticket);
            out.ack(ticket);
        }
        self.held.values().map(|held| held.deadline).min()
    }

    /// Sends a prompt on whose images are all encoded.
    fn send_if_complete(&mut self, ticket: Ticket, now: Instant, out: &mut Outbox) {
        let complete = |held: &Held| held.embeddings.iter().all(Option::is_some);
        if !self.held.get(&ticket).is_some_and(complete) {
            return;
        }
        let Some(Held { mut prompt, deadline, embeddings }) = self.held.remove(&ticket) else { return };
        let context = &mut prompt.context;
        context.remaining_ms = deadline.saturating_duration_since(now).as_millis() as u64;
        let queue = match context.attempt {
            0 => Subject::queue(self.fp, Role::ShardForward(0)),
            _ => Subject::resume(self.fp, Role::ShardForward(0)),
        };
        let embeddings: Vec<Bytes> = embeddings.into_iter().flatten().collect();
        prompt.embeddings = Some(payload(&prompt, &embeddings, out));
        let context = prompt.context.clone();
        out.enqueue(queue, context, wire::encode(&prompt));
        out.ack(ticket);
        self.done += 1;
    }
}

/// The embeddings of a prompt's images: in the entry where they fit, else in the blob store, for this prompt alone.
fn payload(prompt: &Prompt, embeddings: &[Bytes], out: &mut Outbox) -> Payload {
    let bytes = embeddings.iter().map(Bytes::len).sum();
    let ids_are_short = !matches!(&prompt.ids, Payload::Inline(ids) if ids.len() > IDS_BESIDE_BYTES);
    if bytes <= INLINE_BYTES && ids_are_short {
        return Payload::Inline(embeddings.concat());
    }
    let context = &prompt.context;
    let mut owned = Owned::new(context.session.0, context.attempt.into(), bytes);
    embeddings.iter().for_each(|rows| owned.content().extend_from_slice(rows));
    Payload::Blob(out.store_owned(context.clone(), owned))
}

impl Stage for VisionEncode {
    fn room(&self) -> usize {
        if self.waiting.is_empty() { ROOM.saturating_sub(self.held.len()) } else { 0 }
    }

    fn attachments(&self, entry: &Bytes) -> Vec<BlobRef> {
        match wire::decode::<Prompt>(entry) {
            Ok(prompt) => prompt.images.iter().map(|it| it.image.file).collect(),
            // `process` meets the same error and reports it.
            Err(_) => Vec::new(),
        }
    }

    fn bell(&self) -> Option<Arc<Notify>> {
        Some(self.worker.bell())
    }

    fn process(&mut self, mut inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()> {
        let done: Vec<_> = self.worker.done().collect();
        for done in done {
            self.take_done(done.id, done.result, inbox.now, out);
        }
        if inbox.draining {
            inbox.jobs.drain(..).for_each(|job| out.give_back(job.ticket));
        }
        for job in &inbox.jobs {
            self.take(job, inbox.now, out);
        }
        if let Some(next) = self.expire(inbox.now, out) {
            out.wake_at(next);
        }
        self.worker.take(&mut self.waiting)
    }

    fn status(&self) -> Status {
        Status {
            used: Room { sequences: self.held.len() as u32, kv_blocks: 0 },
            capacity: Room { sequences: ROOM as u32, kv_blocks: 0 },
            done: self.done,
            busy: !self.held.is_empty(),
            ..Status::default()
        }
    }
}
