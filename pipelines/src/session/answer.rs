//! One answer on its way: pulled by the door, journalled as it is delivered, resumed when its route dies, cancelled when
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use schemas::admission::Route;
use schemas::chunk::{Chunk, TokenLogprob};
use schemas::control::Say;
use schemas::request::Request;
use schemas::token::Finish;
use schemas::{Failure, FailureKind, Fingerprint, Role, wire};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::door::Door;
use super::images::Images;
use super::prompt::{self, TakenIn};
use super::quarantine;
use super::roster::Delivery;
use crate::bus::Queue;

/// Tokens after which shard-forward.0 hears how far the client is; well below the smallest useful window.
const ACKNOWLEDGE_EVERY: u32 = 16;

/// Routes in a row that may be lost otherwise than by a death before the answer goes on.
const ROUTES_LOST_MAX: u32 = 3;

/// Deaths in a row after which nothing else is served beside the request: the next one is its own doing.
const DEATHS_IN_COMPANY: u32 = 2;

/// How long a resume waits after the bus has refused it, at first; then twice as long each time.
const RESUME_AGAIN_AFTER: Duration = Duration::from_millis(50);
const RESUME_AGAIN_AFTER_MAX: Duration = Duration::from_millis(400);

/// How long one that has begun waits when a store is full.
const FULL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a client gets at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Text that became releasable.
    pub text: String,
    /// Token ids.
    pub ids: Vec<u32>,
    /// One entry a token id, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Set on the last piece.
    pub finish: Option<Finish>,
}

/// One answer. Dropping it before its end frees everything that it holds in the pipeline.
pub struct Answer {
    door: Door,
    fp: Fingerprint,
    /// As it was published last.
    request: Request,
    prompt: TakenIn,
    images: Arc<Images>,
    deliveries: mpsc::Receiver<Delivery>,
    deadline: Instant,
    route: Option<Route>,
    prompt_tokens: u32,
    /// The delivered token ids: what the next attempt is forced to repeat.
    journal: Vec<u32>,
    acknowledged: u32,
    /// Routes that were lost since the last piece while all their instances lived.
    routes_lost: u32,
    /// Those of which an instance had gone.
    deaths: u32,
    ended: bool,
}

impl Answer {
    pub(super) fn new(
        door: Door,
        fp: Fingerprint,
        request: Request,
        (prompt, images): (TakenIn, Arc<Images>),
        deliveries: mpsc::Receiver<Delivery>,
        deadline: Instant,
    ) -> Self {
        Self {
            door,
            fp,
            request,
            prompt,
            images,
            deliveries,
            deadline,
            route: None,
            prompt_tokens: 0,
            journal: Vec::new(),
            acknowledged: 0,
            routes_lost: 0,
            deaths: 0,
            ended: false,
        }
    }

    /// Length of the prompt in tokens.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// The token ids delivered so far.
    pub fn journal(&self) -> &[u32] {
        &self.journal
    }

    /// Waits for the admission.
    pub(super) async fn admitted(&mut self) -> Result<(), Failure> {
        loop {
            match self.delivery().await? {
                Delivery::Admitted { route, prompt_tokens } => {
                    self.route = Some(route);
                    self.prompt_tokens = prompt_tokens;
                    return Ok(());
                }
                Delivery::Failed(failure) => self.go_on(failure).await?,
                Delivery::Chunk(_) => {
                    return Err(Failure::new(FailureKind::Internal, "a chunk came before its admission"));
                }
            }
        }
    }

    /// Publishes the request, on the queue that its attempt belongs to.
    pub(super) async fn submit(&self) -> Result<(), Failure> {
        let queue = if self.request.context.attempt == 0 { Queue::New } else { Queue::Resumed };
        let subject = queue.subject(self.fp, Role::Tokenize);
        self.door.state().bus.enqueue(&subject, wire::encode(&self.request)).await
    }

    /// Publishes a new request; waits while the bus is away or its queues have no leader.
    pub(super) async fn submit_first(&self) -> Result<(), Failure> {
        let mut pause = RESUME_AGAIN_AFTER;
        loop {
            match self.submit().await {
                Err(failure) if failure.is_bus_away() && Instant::now() + pause < self.deadline => {}
                submitted => return submitted,
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RESUME_AGAIN_AFTER_MAX);
        }
    }

    /// The next piece; none after the piece with a finish reason or after a failure.
    ///
    /// An answer whose route dies goes on elsewhere: nothing is delivered twice, and nothing is left out.
    pub async fn next(&mut self) -> Option<Result<Piece, Failure>> {
        if self.ended {
            return None;
        }
        let piece = self.piece().await;
        self.ended = !matches!(&piece, Ok(Piece { finish: None, .. }));
        Some(piece)
    }

    async fn piece(&mut self) -> Result<Piece, Failure> {
        loop {
            match self.delivery().await? {
                Delivery::Chunk(chunk) => return Ok(self.deliver(chunk)),
                Delivery::Admitted { route, .. } => self.route = Some(route),
                Delivery::Failed(failure) => self.go_on(failure).await?,
            }
        }
    }

    /// Opens the next attempt, with what was delivered forced, when it was the route that failed and not the request; fails
    /// with `lost` otherwise, and when too many routes were lost in a row.
    ///
    /// After two deaths the request is served alone. A death then is its own doing unless all around it instances die: it is
    /// quarantined, as is one of which a stage says that it ended the stage's instances.
    async fn go_on(&mut self, lost: Failure) -> Result<(), Failure> {
        if lost.is_poison() {
            return Err(self.quarantine().await);
        }
        if lost.is_instance_lost() {
            self.deaths += 1;
            let blamed = || self.door.state().deaths.blame(self.fp, self.deaths, std::time::Instant::now());
            if self.request.context.alone && blamed() {
                return Err(self.quarantine().await);
            }
            self.request.context.alone = self.deaths >= DEATHS_IN_COMPANY;
            return self.resume(lost).await;
        }
        match lost.kind {
            // As often as the bus is away, until the deadline.
            FailureKind::Unavailable if lost.is_bus_away() => {}
            FailureKind::Unavailable => self.routes_lost += 1,
            // A full store: an answer that has begun waits until its deadline where a new request is refused.
            FailureKind::Overloaded if self.request.context.attempt > 0 => {
                tokio::time::sleep(FULL_AGAIN_AFTER).await;
            }
            _ => return Err(lost),
        }
        if self.routes_lost > ROUTES_LOST_MAX {
            return Err(lost);
        }
        self.resume(lost).await
    }

    async fn quarantine(&self) -> Failure {
        let session = self.request.context.session;
        tracing::error!(%session, delivered = self.journal.len(), "request ended whoever served it, at last alone");
        let key = quarantine::key(self.fp, &self.request.input, &self.images);
        self.door.state().quarantine.keep(key);
        quarantine::announce(&key, &self.door.state().bus).await;
        Failure::poison()
    }

    /// Goes on after `sent` tokens that another session has delivered.
    pub(super) async fn go_on_from(&mut self, sent: Vec<u32>) -> Result<(), Failure> {
        self.acknowledged = sent.len() as u32;
        self.journal = sent;
        self.resume(Failure::new(FailureKind::Unavailable, "its client reads on")).await
    }

    async fn resume(&mut self, reason: Failure) -> Result<(), Failure> {
        self.route = None;
        let session = self.request.context.session;
        let Some(attempt) = self.door.state().roster.resume(session, self.journal.len() as u32) else {
            return Err(reason);
        };
        metrics::counter!("tokenway_resumes_total").increment(1);
        tracing::info!(%session, attempt, delivered = self.journal.len(), %reason, "answer resumes");
        self.request.context.attempt = attempt;
        self.resubmit().await
    }

    /// Publishes the request until the bus takes it or its time is up.
    async fn resubmit(&mut self) -> Result<(), Failure> {
        let mut pause = RESUME_AGAIN_AFTER;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.door.timed_out(self.fp, !self.images.is_empty()));
            }
            self.request.context.remaining_ms = left.as_millis() as u64;
            match self.resubmit_once().await {
                Ok(()) => return Ok(()),
                Err(refusal) => tracing::warn!(%refusal, "answer cannot be resumed yet"),
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (2 * pause).min(RESUME_AGAIN_AFTER_MAX);
        }
    }

    async fn resubmit_once(&mut self) -> Result<(), Failure> {
        let bus = &self.door.state().bus;
        self.prompt.store(bus).await?;
        self.images.store(bus).await?;
        self.request.forced = prompt::forced(&self.journal, bus).await?;
        self.submit().await
    }

    async fn delivery(&mut self) -> Result<Delivery, Failure> {
        match tokio::time::timeout_at(self.deadline, self.deliveries.recv()).await {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err(Failure::new(FailureKind::Internal, "the session was closed")),
            Err(_) => Err(self.door.timed_out(self.fp, !self.images.is_empty())),
        }
    }

    /// Journals a chunk and tells shard-forward.0 now and then how far the client is.
    fn deliver(&mut self, chunk: Chunk) -> Piece {
        (self.routes_lost, self.deaths) = (0, 0);
        // The others wait for this word.
        let was_alone = std::mem::take(&mut self.request.context.alone);
        self.journal.extend_from_slice(&chunk.ids);
        let delivered = self.journal.len() as u32;
        if chunk.finish.is_none() && (was_alone || delivered >= self.acknowledged + ACKNOWLEDGE_EVERY) {
            self.acknowledged = delivered;
            if let Some(route) = &self.route {
                self.door.state().feedbacks.say(route, Say::Delivered(delivered));
            }
        }
        Piece { text: chunk.text, ids: chunk.ids, logprobs: chunk.logprobs, finish: chunk.finish }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The roster knows the route even when its admission has not been read here, and forgets it at the answer's end.
        if let Some(route) = self.door.state().roster.close(self.request.context.session) {
            self.door.state().feedbacks.say(&route, Say::Cancel);
        }
    }
}
