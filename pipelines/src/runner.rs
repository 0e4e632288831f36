//! The only loop: waits for what arrives, calls the stage, carries out what leaves.
//!
//! It runs on a single-threaded runtime, and the stage runs on that thread: a message costs one wake-up, and while the
//! stage computes, what arrives waits in the socket. Presence has its own thread and connection.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future};
use schemas::presence::State;
use schemas::{Fingerprint, InstanceId, Role, Subject};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::announcement::Announcement;
use crate::bus::{Bus, Queue};
use crate::entries::Entries;
use crate::output::Output;
use crate::peers::Peers;
use crate::presence::Pulse;
use crate::service::once_agreed;
use crate::stage::{Inbox, Outbox, Stage};

/// How long one pull waits at the broker before it is renewed: shorter than the time after which a stopped instance counts as dead, so
/// that an answer that goes on elsewhere is not handed to the stopped one again.
const PULL_EXPIRES: Duration = Duration::from_secs(1);

/// How long after the queues could not be opened the next try is made.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// Entries asked for in one pull: few, so that they are spread over the instances that have room.
const PULL_MAX: usize = 16;

/// Longest time a drain waits for what the stage holds.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// The stage's place on the bus.
pub struct Place {
    /// Who it is.
    pub instance: InstanceId,
    /// What it does.
    pub role: Role,
    /// For which pipeline.
    pub fp: Fingerprint,
    /// What must be on the bus.
    pub announcement: Announcement,
}

/// What ties the runner to the presence thread.
pub struct Links {
    /// Shows the stage's state.
    pub pulse: Pulse,
    /// Who is alive.
    pub peers: watch::Receiver<Peers>,
    /// Where to report those who cannot be reached.
    pub suspects: mpsc::Sender<InstanceId>,
}

/// Runs `stage` at `place` until `shutdown` and until it holds nothing more; fails when the stage or the bus does.
pub async fn run(
    bus: Bus,
    mut stage: Box<dyn Stage>,
    place: Place,
    links: Links,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let bell = stage.bell();
    let open = || Intake::open(&bus, &place, links.peers.clone(), bell.clone());
    let Some(mut intake) = once_agreed(open, &shutdown).await? else { return Ok(()) };
    let mut output = Output::new(bus, place.instance, place.role);
    let mut entries = Entries::default();
    let mut outbox = Outbox::default();
    let mut drain_until: Option<Instant> = None;
    links.pulse.leave(stage.status());
    loop {
        if drain_until.is_none() && shutdown.is_cancelled() {
            drain_until = Some(Instant::now() + DRAIN_DEADLINE);
            links.pulse.set_state(State::Draining);
            entries.give_back(&mut output).await?;
        }
        let room = if drain_until.is_some() { 0 } else { entries.room(stage.room(), &output) };
        let is_ready = entries.is_ready(&output).then(Instant::now);
        let wake = is_ready.or_else(|| output_wake(drain_until));
        let mut arrived = tokio::select! {
            arrived = intake.next((room, stage.messages_max()), &mut output, wake) => arrived?,
            () = shutdown.cancelled(), if drain_until.is_none() => Arrived::default(),
        };
        if arrived.reconnected {
            links.pulse.reconnected();
        }
        for instance in arrived.unreachable.drain(..) {
            // A full channel already holds reports; the next lost message repeats this one.
            let _ = links.suspects.try_send(instance);
        }
        entries.take(arrived.jobs, &mut output, stage.as_ref());
        let peers = intake.peers.borrow().clone();
        let jobs = entries.next(&mut output, stage.as_ref(), &peers).await?;
        links.pulse.enter();
        let inbox = Inbox {
            now: Instant::now(),
            instance: place.instance,
            jobs,
            messages: arrived.messages,
            peers,
            payload_max: output.payload_max(),
            reconnected: arrived.reconnected,
            draining: drain_until.is_some(),
        };
        let started = Instant::now();
        stage.process(inbox, &mut outbox)?;
        metrics::histogram!("tokenway_batch_seconds").record(started.elapsed().as_secs_f64());
        let status = stage.status();
        let busy = status.busy;
        links.pulse.leave(status);
        output.perform(outbox.take()).await?;
        match drain_until {
            Some(_) if !busy && output.holds_nothing() => {
                output.finish().await?;
                links.pulse.set_state(State::Drained);
                return Ok(());
            }
            Some(until) if Instant::now() >= until => {
                tracing::warn!("drain deadline passed with work still held");
                return output.finish().await;
            }
            _ => {}
        }
    }
}

/// While draining, the stage is called at least this often.
fn output_wake(drain_until: Option<Instant>) -> Option<Instant> {
    drain_until.map(|until| until.min(Instant::now() + Duration::from_millis(100)))
}

/// What one wait brought.
#[derive(Default)]
struct Arrived {
    messages: Vec<Bytes>,
    jobs: Vec<async_nats::jetstream::Message>,
    unreachable: Vec<InstanceId>,
    reconnected: bool,
}

/// Everything the runner waits for.
struct Intake {
    steps: async_nats::Subscriber,
    undelivered: async_nats::Subscriber,
    bus: Bus,
    announcement: Announcement,
    connections: watch::Receiver<u64>,
    /// In the order in which they are served.
    queues: Vec<WorkQueue>,
    /// When to open the queues again, after they could not be.
    reopen_at: Option<Instant>,
    peers: watch::Receiver<Peers>,
    bell: Option<Arc<Notify>>,
    fp: Fingerprint,
    role: Role,
}

impl Intake {
    async fn open(
        bus: &Bus,
        place: &Place,
        peers: watch::Receiver<Peers>,
        bell: Option<Arc<Notify>>,
    ) -> anyhow::Result<Self> {
        let client = bus.client();
        let steps = client.subscribe(Subject::step(place.fp, place.role, place.instance).to_string()).await?;
        let undelivered = client.subscribe(Subject::undelivered_all(place.instance).to_string()).await?;
        bus.barrier().await?;
        let mut connections = bus.connections();
        connections.mark_unchanged();
        let mut intake = Self {
            steps,
            undelivered,
            bus: bus.clone(),
            announcement: place.announcement.clone(),
            connections,
            queues: Vec::new(),
            reopen_at: None,
            peers,
            bell,
            fp: place.fp,
            role: place.role,
        };
        intake.open_queues().await.context("work queue")?;
        Ok(intake)
    }

    async fn open_queues(&mut self) -> anyhow::Result<()> {
        self.queues.clear();
        for queue in Queue::ALL.into_iter().filter(|_| self.announcement.has_queue(self.role)) {
            let workers = self.bus.workers(queue, self.fp, self.role).await?;
            self.queues.push(WorkQueue { workers, pull: None });
        }
        Ok(())
    }

    /// Makes the queues anew where they have gone with the broker, and asks for entries again.
    async fn reopen(&mut self) {
        let opened = async {
            self.announcement.put(&self.bus).await?;
            self.open_queues().await
        };
        self.reopen_at = match opened.await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "work queues");
                Some(Instant::now() + REOPEN_AFTER)
            }
        };
    }

    /// Waits until something arrives, `output` is due or `wake` is reached; takes all that is there.
    async fn next(
        &mut self,
        (room, messages_max): (usize, usize),
        output: &mut Output,
        wake: Option<Instant>,
    ) -> anyhow::Result<Arrived> {
        self.renew_pulls(room).await;
        let mut arrived = Arrived::default();
        let wake = [wake, output.take_wake()].into_iter().flatten().min();
        loop {
            let extend_at = output.extend_at();
            tokio::select! {
                biased;
                // First, for a stage whose messages never pause must notice it too.
                changed = self.connections.changed() => {
                    changed.context("the bus connection ended")?;
                    self.reopen().await;
                    arrived.reconnected = true;
                }
                message = self.steps.next() => arrived.take_message(message.context("step subscription ended")?),
                message = self.undelivered.next() => arrived.take_undelivered(&message.context("subscription ended")?),
                () = sleep_until(self.reopen_at) => {
                    self.reopen().await;
                    self.renew_pulls(room).await;
                    continue
                }
                job = next_job(&mut self.queues) => match job {
                    Ok(job) => arrived.jobs.push(job),
                    Err(Dry::Ended) => { self.renew_pulls(room).await; continue }
                    Err(Dry::Refused) => { self.reopen_at = Some(Instant::now() + REOPEN_AFTER); continue }
                },
                () = rung(self.bell.as_deref()) => {}
                changed = self.peers.changed() => changed.context("presence thread ended")?,
                () = sleep_until(extend_at) => { output.extend().await; continue }
                () = sleep_until(wake) => {}
            }
            break;
        }
        self.take_ready(&mut arrived, messages_max);
        metrics::counter!("tokenway_messages_total", "stage" => self.role.binary())
            .increment(arrived.messages.len() as u64);
        metrics::counter!("tokenway_jobs_total", "stage" => self.role.binary())
            .increment(arrived.jobs.len() as u64);
        Ok(arrived)
    }

    /// Takes what is there without waiting, up to a limit.
    fn take_ready(&mut self, arrived: &mut Arrived, messages_max: usize) {
        while arrived.messages.len() < messages_max {
            let Some(Some(message)) = self.steps.next().now_or_never() else { break };
            arrived.take_message(message);
        }
        while let Some(Some(message)) = self.undelivered.next().now_or_never() {
            arrived.take_undelivered(&message);
        }
        while let Some(Ok(job)) = next_job(&mut self.queues).now_or_never() {
            arrived.jobs.push(job);
        }
    }

    async fn renew_pulls(&mut self, room: usize) {
        let is_wanted = room > 0 && self.reopen_at.is_none();
        for queue in self.queues.iter_mut().filter(|queue| queue.pull.is_none() && is_wanted) {
            let batch = queue.workers.batch().max_messages(room.min(PULL_MAX)).expires(PULL_EXPIRES);
            match batch.messages().await {
                Ok(pull) => queue.pull = Some(pull),
                Err(error) => {
                    tracing::warn!(%error, "pull from the work queue");
                    self.reopen_at = Some(Instant::now() + REOPEN_AFTER);
                }
            }
        }
    }
}

/// One of the queues that a stage takes entries from.
struct WorkQueue {
    workers: PullConsumer,
    /// What was asked for and may still come.
    pull: Option<pull::Batch>,
}

/// Why an outstanding pull brings no entry.
enum Dry {
    /// Nothing more will come of one of them.
    Ended,
    /// The broker has no such queue, or refuses to serve it.
    Refused,
}

impl WorkQueue {
    fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Result<async_nats::jetstream::Message, Dry>> {
        let Some(pull) = &mut self.pull else { return Poll::Pending };
        let dry = match std::task::ready!(pull.poll_next_unpin(context)) {
            Some(Ok(job)) => return Poll::Ready(Ok(job)),
            Some(Err(error)) => {
                tracing::warn!(%error, "pull refused");
                Dry::Refused
            }
            None => Dry::Ended,
        };
        self.pull = None;
        Poll::Ready(Err(dry))
    }
}

/// Waits until `bell` is rung, or for ever.
async fn rung(bell: Option<&Notify>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => future::pending().await,
    }
}

/// Sleeps until `time`, or for ever.
pub(crate) async fn sleep_until(time: Option<Instant>) {
    match time {
        // The timer rounds up to milliseconds: what is due must not wait for one.
        Some(time) if time <= Instant::now() => {}
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

/// What comes next of the outstanding pulls, of the first queue that has something.
async fn next_job(queues: &mut [WorkQueue]) -> Result<async_nats::jetstream::Message, Dry> {
    future::poll_fn(|context| {
        let ready = queues.iter_mut().map(|queue| queue.poll_next(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

impl Arrived {
    fn take_message(&mut self, message: async_nats::Message) {
        self.messages.push(message.payload);
    }

    /// The broker answers a message without subscribers on its reply subject, whose last token is the receiver.
    fn take_undelivered(&mut self, message: &async_nats::Message) {
        if let Some(receiver) = message.subject.rsplit('.').next().and_then(|id| id.parse().ok()) {
            self.unreachable.push(receiver);
        }
    }
}
