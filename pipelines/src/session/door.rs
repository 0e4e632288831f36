//! A door: one process through which requests come in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use schemas::admission::Notice;
use schemas::chunk::Chunks;
use schemas::journal::Opening;
use schemas::request::{Context, Image, Input, Payload, Request};
use schemas::{Failure, FailureKind, Fingerprint, InstanceId, Role, SessionId, Subject, wire};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answer::Answer;
use super::ask::{Ask, AskInput};
use super::catalog::Catalog;
use super::deaths::Deaths;
use super::feedback::Feedbacks;
use super::images::{AskImage, Discards, Images};
use super::prompt::TakenIn;
use super::quarantine::{self, Quarantine};
use super::roster::Roster;
use super::waits::{Line, Waits};
use crate::bus::Bus;
use crate::owned;
use crate::peers::Peers;
use crate::record::Record;
use crate::stage::refused;

/// How often a door looks whether the scheduling shards of its sessions are alive.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One process through which requests come in. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Door(Arc<DoorState>);

pub(super) struct DoorState {
    instance: InstanceId,
    pub(super) bus: Bus,
    peers: watch::Receiver<Peers>,
    catalog: Catalog,
    pub(super) roster: Roster,
    pub(super) feedbacks: Feedbacks,
    pub(super) deaths: Deaths,
    pub(super) quarantine: Quarantine,
    pub(super) waits: Waits,
    discards: Discards,
}

impl Door {
    /// Subscribes the reply subjects of `instance` and follows pipelines and peers; its tasks end when the guard is dropped.
    pub async fn open_on(
        bus: Bus,
        instance: InstanceId,
        peers: watch::Receiver<Peers>,
    ) -> anyhow::Result<(Self, DropGuard)> {
        let notices = bus.client().subscribe(Subject::control(instance).to_string()).await?;
        let chunks = bus.client().subscribe(Subject::chunk(instance).to_string()).await?;
        let quarantined = bus.client().subscribe(Subject::quarantine().to_string()).await?;
        bus.barrier().await?;
        let catalog = Catalog::default();
        catalog.load(&bus).await?;
        let state = Arc::new(DoorState {
            instance,
            bus: bus.clone(),
            peers: peers.clone(),
            catalog: catalog.clone(),
            roster: Roster::default(),
            feedbacks: Feedbacks::default(),
            deaths: Deaths::default(),
            quarantine: Quarantine::default(),
            waits: Waits::default(),
            discards: Discards::new(&bus),
        });
        let stop = CancellationToken::new();
        tokio::spawn(catalog.follow(bus.clone(), stop.clone()));
        tokio::spawn(listen(state.clone(), Heard { notices, chunks, quarantined }, stop.clone()));
        let speaking = state.clone();
        let silence = stop.clone();
        tokio::spawn(async move {
            speaking.feedbacks.send_all(bus, silence).await;
        });
        Ok((Self(state), stop.drop_guard()))
    }

    /// Every pipeline known on the bus, running or not, oldest first.
    pub fn pipelines(&self) -> Vec<Record> {
        self.0.catalog.all()
    }

    /// The pipeline that serves `model`: the newest ready one, else the newest.
    pub fn pipeline(&self, model: &str) -> Option<Record> {
        let mut named: Vec<Record> =
            self.pipelines().into_iter().filter(|record| record.model == model).collect();
        let ready = named.iter().rposition(|record| self.missing(record).is_empty());
        match ready {
            Some(index) => Some(named.swap_remove(index)),
            None => named.pop(),
        }
    }

    /// What keeps the pipeline of `record` from serving.
    pub fn missing(&self, record: &Record) -> Vec<Role> {
        record.missing(&self.0.peers.borrow())
    }

    /// Whether the bus is connected.
    pub fn is_connected(&self) -> bool {
        self.0.bus.is_connected()
    }

    /// This door's id.
    pub fn instance(&self) -> InstanceId {
        self.0.instance
    }

    /// Sessions open now.
    pub fn open_sessions(&self) -> usize {
        self.0.roster.len()
    }

    /// Stores the images of one request, for all answers to it.
    pub async fn store(&self, images: &[AskImage]) -> Result<Arc<Images>, Failure> {
        let images = Arc::new(Images::new(images, self.0.discards.clone()));
        let (storing, bus) = (images.clone(), self.0.bus.clone());
        // In a task, which outlives a client that leaves: half a blob has no name by which it could be deleted.
        let stored = tokio::spawn(async move { storing.store(&bus).await }).await;
        stored.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))??;
        Ok(images)
    }

    /// A prompt as it travels: inside the message, or by hash when it is long.
    pub async fn take_in(&self, input: AskInput) -> Result<TakenIn, Failure> {
        TakenIn::new(input, &self.0.bus).await
    }

    /// A prompt of a stream that another door has taken in. `NotFound` when the store does not have it any more.
    pub async fn adopt_prompt(&self, input: Input) -> Result<TakenIn, Failure> {
        TakenIn::adopt(input, &self.0.bus).await
    }

    /// Stores anew the images of a stream that another door has stored, and takes away soon. `NotFound` when it has.
    pub async fn adopt(&self, images: &[Image]) -> Result<Arc<Images>, Failure> {
        let mut taken = Vec::with_capacity(images.len());
        for Image { file, width, height, field } in images {
            let file = self.0.bus.fetch(*file).await.map_err(|error| {
                tracing::warn!(error = format!("{error:#}"), "image of a stream");
                Failure::new(
                    FailureKind::Unavailable,
                    "the store for long prompts and images cannot be reached",
                )
            })?;
            let Some(file) = file.as_ref().and_then(owned::content) else {
                let reason = "the images of the stream are not there any more";
                return Err(Failure::new(FailureKind::NotFound, reason).with_code("stream_not_found"));
            };
            taken.push(AskImage { file, width: *width, height: *height, field: field.clone() });
        }
        self.store(&taken).await
    }

    /// Goes on with the answer `index` of a stream, of which the token ids `sent` were sent: it is admitted anew.
    pub async fn reopen(
        &self,
        record: &Record,
        opening: &Opening,
        index: u32,
        (prompt, images): (TakenIn, Arc<Images>),
        sent: Vec<u32>,
    ) -> Result<Answer, Failure> {
        let deadline = Duration::from_secs(record.deadline_seconds);
        let session = SessionId(rand::random());
        if self.0.quarantine.holds(|| quarantine::key(opening.fp, prompt.input(), &images)) {
            return Err(Failure::poison());
        }
        let deliveries = self.0.roster.open(session);
        let request = Request {
            context: Context {
                session,
                choice: index,
                attempt: 0,
                door: self.0.instance,
                remaining_ms: deadline.as_millis() as u64,
                alone: false,
                traceparent: None,
            },
            now_unix: opening.now_unix,
            input: prompt.input().clone(),
            images: images.refs(),
            generation: opening.generation.clone(),
            forced: Payload::Inline(Vec::new()),
        };
        let deadline = tokio::time::Instant::now() + deadline;
        let mut answer =
            Answer::new(self.clone(), opening.fp, request, (prompt, images), deliveries, deadline);
        answer.go_on_from(sent).await?;
        Ok(answer)
    }

    /// Submits `ask` to the pipeline of `record` and waits until it is admitted or has failed.
    ///
    /// Fails with what a stage refused, with `Internal` for a prompt in quarantine, with `Overloaded` when the queue is full or more
    /// comes than is served, and at the deadline with `Unavailable` when a role has no living instance, else with `DeadlineExceeded`.
    pub async fn open(&self, record: &Record, ask: Ask) -> Result<Answer, Failure> {
        let Some(fp) = record.fingerprint() else {
            return Err(Failure::new(
                FailureKind::Internal,
                format!("pipeline record `{}` is damaged", record.fp),
            ));
        };
        if self.0.quarantine.holds(|| quarantine::key(fp, ask.input.input(), &ask.images)) {
            return Err(Failure::poison());
        }
        let line = Line { fp, images: !ask.images.is_empty() };
        let waiting = self.0.waits.begin(line, Instant::now()).map_err(|seconds| {
            Failure::new(FailureKind::Overloaded, "more requests come than can be served, try again later")
                .with_code("overloaded")
                .with_retry_after(seconds)
        })?;
        let session = SessionId(rand::random());
        let deadline = tokio::time::Instant::now() + ask.deadline;
        let deliveries = self.0.roster.open(session);
        let request = Request {
            context: Context {
                session,
                choice: ask.choice,
                attempt: 0,
                door: self.0.instance,
                remaining_ms: ask.deadline.as_millis() as u64,
                alone: false,
                traceparent: ask.traceparent,
            },
            now_unix: ask.now_unix,
            input: ask.input.input().clone(),
            images: ask.images.refs(),
            generation: ask.generation,
            forced: Payload::Inline(Vec::new()),
        };
        let mut answer =
            Answer::new(self.clone(), fp, request, (ask.input, ask.images), deliveries, deadline);
        let admitted = async {
            answer.submit_first().await?;
            answer.admitted().await
        };
        match admitted.await {
            Ok(()) => waiting.admitted(Instant::now()),
            Err(failure) if failure.kind == FailureKind::Overloaded => {
                return Err(failure.with_retry_after(waiting.refused(Instant::now())));
            }
            Err(failure) => return Err(failure),
        }
        Ok(answer)
    }

    /// Why a request of pipeline `fp` whose time has run out was not answered.
    pub(super) fn timed_out(&self, fp: Fingerprint, images: bool) -> Failure {
        let record = self.pipelines().into_iter().find(|record| record.fingerprint() == Some(fp));
        let missing = record.map(|record| record.missing_for(&self.0.peers.borrow(), images));
        match missing.and_then(|missing| missing.first().copied()) {
            Some(role) => {
                Failure::new(FailureKind::Unavailable, format!("no `{role}` is running for this model"))
            }
            None => Failure::new(FailureKind::DeadlineExceeded, "the request's time ran out"),
        }
    }

    pub(super) fn state(&self) -> &DoorState {
        &self.0
    }
}

/// What a door listens to.
struct Heard {
    notices: async_nats::Subscriber,
    chunks: async_nats::Subscriber,
    quarantined: async_nats::Subscriber,
}

/// Passes on what arrives for the door's sessions.
async fn listen(
    state: Arc<DoorState>,
    Heard { mut notices, mut chunks, mut quarantined }: Heard,
    stop: CancellationToken,
) {
    let mut peers = state.peers.clone();
    let mut connections = state.bus.connections();
    connections.mark_unchanged();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Notices first: an admission was sent before the chunks of its sequence.
        tokio::select! {
            biased;
            Some(message) = notices.next() => match wire::decode::<Notice>(&message.payload) {
                Ok(notice) => state.roster.notice(notice, &state.feedbacks),
                Err(error) => refused("notice", &error),
            },
            Some(message) = chunks.next() => match wire::decode::<Chunks>(&message.payload) {
                Ok(chunks) => state.roster.chunks(chunks, &state.feedbacks),
                Err(error) => refused("chunk", &error),
            },
            Some(message) = quarantined.next() => state.quarantine.hear(&message.payload),
            _ = look.tick() => {
                let (there, now) = (peers.borrow_and_update().clone(), Instant::now());
                state.deaths.peers(&there, now);
                state.roster.peers(&there, now, &state.feedbacks);
            }
            Ok(()) = connections.changed() => state.roster.reconnected(&state.feedbacks),
            () = stop.cancelled() => return,
        }
    }
}
