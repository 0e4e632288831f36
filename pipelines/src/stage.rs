//! A stage: a synchronous function from what arrived to what leaves.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use schemas::admission::{Event, Notice};
use schemas::presence::Room;
use schemas::request::{BlobRef, Context};
use schemas::{Edge, Failure, InstanceId, RouteId, Subject, WireError, wire};
use tokio::sync::Notify;

use crate::owned::Owned;
use crate::peers::Peers;

/// One node of the pipeline. The runner calls it from one thread, with everything that has arrived.
pub trait Stage: Send {
    /// How many entries of its work queue the stage takes now; those it took and has not acknowledged are not counted by it.
    /// Always 0 for a stage without a queue.
    fn room(&self) -> usize {
        0
    }

    /// Blobs that the runner fetches before it hands over an entry of the work queue.
    fn attachments(&self, _entry: &Bytes) -> Vec<BlobRef> {
        Vec::new()
    }

    /// Messages handed over in one call. A stage that computes for long takes one, so that each result leaves before the
    /// next is begun.
    fn messages_max(&self) -> usize {
        1024
    }

    /// Whether an entry that was delivered before is handed over only while the stage holds no other, and nothing else until it
    /// is acknowledged: when the instance dies meanwhile, it was the entry. Not for a stage whose entries wait for others.
    fn isolates_entries(&self) -> bool {
        true
    }

    /// What a stage with threads of its own rings when they have something for it: it is then called although nothing
    /// arrived.
    fn bell(&self) -> Option<Arc<Notify>> {
        None
    }

    /// Works on what arrived. An error ends the process; what is wrong with one request is answered through `out`.
    fn process(&mut self, inbox: Inbox, out: &mut Outbox) -> anyhow::Result<()>;

    /// What presence announces.
    fn status(&self) -> Status;
}

/// What arrived since the last call.
pub struct Inbox {
    /// The time of this call.
    pub now: Instant,
    /// The instance's own id.
    pub instance: InstanceId,
    /// Entries of the work queue, oldest first.
    pub jobs: Vec<Job>,
    /// Messages on the step subject, in order of arrival.
    pub messages: Vec<Bytes>,
    /// Who is alive.
    pub peers: Peers,
    /// Largest message that the broker takes, in bytes.
    pub payload_max: usize,
    /// Whether the bus was away: messages to and from this instance may have been lost.
    pub reconnected: bool,
    /// Whether the process is shutting down: finish what is held, take nothing new.
    pub draining: bool,
}

/// One entry of the work queue.
pub struct Job {
    /// The message.
    pub payload: Bytes,
    /// The blobs it refers to, in the order of [`Stage::attachments`]; none where one has expired.
    pub blobs: Vec<Option<Bytes>>,
    /// Acknowledges it, through [`Outbox::ack`].
    pub ticket: Ticket,
    /// How long it has waited in the queue.
    pub age: std::time::Duration,
    /// Whether it has ended an instance that worked on nothing else: it must be answered, not worked on.
    pub is_poison: bool,
}

/// A delivery that waits for its acknowledgement. The runner keeps extending it until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What a stage holds and can hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// In use.
    pub used: Room,
    /// In all.
    pub capacity: Room,
    /// Per upstream, see [`schemas::presence::Presence::grants`].
    pub grants: Vec<(InstanceId, Room)>,
    /// Per downstream, see [`schemas::presence::Presence::held`].
    pub held: Vec<(InstanceId, Room)>,
    /// Jobs and batches done.
    pub done: u64,
    /// Whether something is still held, so that a drain must wait.
    pub busy: bool,
}

/// One thing that leaves a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A message on a core subject; with `receiver`, the runner learns when nobody listens there.
    Send {
        /// Where to.
        subject: Subject,
        /// Whose subject it is, when it is one instance's.
        receiver: Option<InstanceId>,
        /// The message.
        payload: Bytes,
    },
    /// An entry for a work queue; a refusal becomes a failure of `context`.
    Enqueue {
        /// The queue.
        subject: Subject,
        /// Who hears of a refusal.
        context: Context,
        /// The message.
        payload: Bytes,
    },
    /// A blob to store before anything behind it leaves; a refusal becomes a failure of `context`.
    Store {
        /// Who hears of a refusal.
        context: Context,
        /// Its name.
        blob: BlobRef,
        /// Its content.
        content: Bytes,
    },
    /// A blob that nobody else refers to is no longer needed.
    Discard(BlobRef),
    /// The delivery is done.
    Ack(Ticket),
    /// The delivery goes back into the queue, for another instance.
    GiveBack(Ticket),
    /// Call [`Stage::process`] at this time even if nothing arrives.
    WakeAt(Instant),
}

/// What leaves a stage, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    effects: Vec<Effect>,
}

impl Outbox {
    /// Sends `message` to the step subject of one instance.
    pub fn send(&mut self, subject: Subject, receiver: InstanceId, payload: Bytes) {
        self.effects.push(Effect::Send { subject, receiver: Some(receiver), payload });
    }

    /// Puts an entry into the work queue at `subject`.
    pub fn enqueue(&mut self, subject: Subject, context: Context, payload: Bytes) {
        self.effects.push(Effect::Enqueue { subject, context, payload });
    }

    /// Stores `content` for the request of `context` and returns its name.
    pub fn store(&mut self, context: Context, content: Bytes) -> BlobRef {
        let blob = BlobRef { hash: *blake3::hash(&content).as_bytes(), bytes: content.len() as u64 };
        self.effects.push(Effect::Store { context, blob, content });
        blob
    }

    /// Stores `content`, which was made by [`crate::owned::Owned`], for the request of `context` and returns its name.
    pub fn store_owned(&mut self, context: Context, content: Owned) -> BlobRef {
        let (blob, content) = content.into_blob();
        self.effects.push(Effect::Store { context, blob, content });
        blob
    }

    /// Deletes an owned blob, some time soon.
    pub fn discard(&mut self, blob: BlobRef) {
        self.effects.push(Effect::Discard(blob));
    }

    /// Acknowledges a delivery, after everything pushed before has left.
    pub fn ack(&mut self, ticket: Ticket) {
        self.effects.push(Effect::Ack(ticket));
    }

    /// Gives a delivery back to the queue.
    pub fn give_back(&mut self, ticket: Ticket) {
        self.effects.push(Effect::GiveBack(ticket));
    }

    /// Asks to be called at `time` at the latest.
    pub fn wake_at(&mut self, time: Instant) {
        self.effects.push(Effect::WakeAt(time));
    }

    /// Tells the door of `context` what happened.
    pub fn notify(&mut self, context: &Context, event: Event) {
        let notice = Notice { session: context.session, attempt: context.attempt, event };
        self.publish(Subject::control(context.door), &notice);
    }

    /// Ends the attempt of `context`; `route` is the admission it had, if any.
    pub fn fail(&mut self, context: &Context, route: Option<RouteId>, failure: Failure) {
        self.notify(context, Event::Failed { route, failure });
    }

    /// Publishes `message` where any number may listen.
    pub fn publish<T: Edge>(&mut self, subject: Subject, message: &T) {
        self.effects.push(Effect::Send { subject, receiver: None, payload: wire::encode(message) });
    }

    /// Takes the effects out.
    pub fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// Counts and logs a message of `edge` that could not be read.
pub fn refused(edge: &'static str, error: &WireError) {
    metrics::counter!("tokenway_refused_messages_total", "edge" => edge).increment(1);
    tracing::warn!(edge, %error, "message refused");
}
