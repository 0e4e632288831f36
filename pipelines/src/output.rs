//! What leaves a stage: carries out its effects, and keeps the deliveries that wait for their acknowledgement.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, message::Acker};
use bytes::Bytes;
use schemas::admission::{Event, Notice};
use schemas::request::{BlobRef, Context};
use schemas::{Failure, InstanceId, Role, SessionId, Subject, wire};
use tokio::task::JoinSet;

use crate::bus::{Bus, EXTEND_EVERY};
use crate::claims::{self, Claim, EntryName};
use crate::entries::{Entry, Origin};
use crate::peers::Peers;
use crate::runner::sleep_until;
use crate::stage::{Effect, Job, Stage, Ticket};

/// Blobs that are being deleted at once.
const DELETIONS_MAX: usize = 64;

/// A delivery that waits for its acknowledgement.
struct Held {
    acker: Acker,
    /// Set when this instance has said that it works on the entry alone.
    claimed: Option<EntryName>,
}

/// The stage's way out.
pub(crate) struct Output {
    bus: Bus,
    instance: InstanceId,
    role: Role,
    tickets: HashMap<Ticket, Held>,
    last_ticket: u64,
    extend_at: Instant,
    wake_at: Option<Instant>,
    deletions: JoinSet<()>,
}

impl Output {
    /// The way out of `instance`.
    pub(crate) fn new(bus: Bus, instance: InstanceId, role: Role) -> Self {
        Self {
            bus,
            instance,
            role,
            tickets: HashMap::new(),
            last_ticket: 0,
            extend_at: Instant::now() + EXTEND_EVERY,
            wake_at: None,
            deletions: JoinSet::new(),
        }
    }

    /// Whether every delivery was acknowledged.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.tickets.is_empty()
    }

    /// When the held deliveries must be extended.
    pub(crate) fn extend_at(&self) -> Option<Instant> {
        (!self.holds_nothing()).then_some(self.extend_at)
    }

    /// When the stage asked to be called.
    pub(crate) fn take_wake(&mut self) -> Option<Instant> {
        self.wake_at.take()
    }

    /// Largest message that the broker takes, in bytes.
    pub(crate) fn payload_max(&self) -> usize {
        self.bus.client().max_payload()
    }

    /// How many deliveries wait for their acknowledgement.
    pub(crate) fn held(&self) -> usize {
        self.tickets.len()
    }

    /// Whether the delivery of `ticket` waits for its acknowledgement.
    pub(crate) fn holds(&self, ticket: Ticket) -> bool {
        self.tickets.contains_key(&ticket)
    }

    /// Keeps extending a delivery, from here until it is acknowledged.
    pub(crate) fn hold(&mut self, delivery: async_nats::jetstream::Message) -> Entry {
        let origin = delivery.info().ok().map(|info| {
            let published = info.published.into();
            let name = EntryName::new(info.stream, info.stream_sequence, published);
            Origin { name, delivered: info.delivered, published }
        });
        let (message, acker) = delivery.split();
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.tickets.insert(ticket, Held { acker, claimed: None });
        Entry { ticket, payload: message.payload, origin }
    }

    /// Says that this instance works on `entry` alone, unless another does or did.
    pub(crate) async fn claim(&mut self, entry: &Entry, peers: &Peers) -> Claim {
        let Some(Origin { name, .. }) = &entry.origin else { return Claim::Mine };
        let (bus, claimed, me) = (self.bus.clone(), name.clone(), self.instance);
        let claim = self.extending(async { claims::take(&bus, &claimed, me, peers).await }).await;
        let claim = claim.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "claim an entry");
            Claim::Mine
        });
        if let (Claim::Mine, Some(held)) = (claim, self.tickets.get_mut(&entry.ticket)) {
            held.claimed = Some(name.clone());
        }
        claim
    }

    /// The entry with the blobs that it refers to.
    pub(crate) async fn job(&mut self, entry: Entry, stage: &dyn Stage, is_poison: bool) -> Job {
        let mut blobs = Vec::new();
        for blob in stage.attachments(&entry.payload) {
            let bus = self.bus.clone();
            let fetched = self.extending(async move { bus.fetch(blob).await }).await;
            blobs.push(fetched.unwrap_or_else(|error| {
                tracing::warn!(%error, "blob");
                None
            }));
        }
        if is_poison {
            tracing::error!(role = %self.role, "an entry ended the instance that worked on it alone");
        }
        let age = entry.age();
        Job { payload: entry.payload, blobs, ticket: entry.ticket, age, is_poison }
    }

    /// Waits for `work`, and meanwhile tells the broker that the held entries are still being worked on.
    async fn extending<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(Some(self.extend_at)) => self.extend().await,
            }
        }
    }

    /// Carries out what a stage wants, in order.
    pub(crate) async fn perform(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        if effects.is_empty() {
            return Ok(());
        }
        // Those whose blob was not stored: what refers to it must not leave either.
        let mut refused: Vec<(SessionId, u32)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { subject, receiver, payload } => self.send(&subject, receiver, payload).await?,
                Effect::Enqueue { context, .. } if refused.contains(&(context.session, context.attempt)) => {}
                Effect::Enqueue { subject, context, payload } => {
                    self.enqueue(&subject, &context, payload).await?
                }
                Effect::Store { context, blob, content } => {
                    let bus = self.bus.clone();
                    let stored = self.extending(async move { bus.store(blob, &content).await }).await;
                    if let Err(failure) = stored {
                        self.refuse(&context, failure).await?;
                        refused.push((context.session, context.attempt));
                    }
                }
                Effect::Discard(blob) => self.discard(blob),
                Effect::Ack(ticket) => {
                    if let Some(Held { acker, .. }) = self.tickets.remove(&ticket) {
                        acker.ack().await.map_err(|error| anyhow::anyhow!("acknowledge: {error}"))?;
                    }
                }
                Effect::GiveBack(ticket) => self.give_back(ticket).await?,
                Effect::WakeAt(time) => {
                    self.wake_at = Some(self.wake_at.map_or(time, |other| other.min(time)))
                }
            }
        }
        self.bus.client().flush().await?;
        Ok(())
    }

    /// Deletes a blob beside the stage's work. Where too much is being deleted already, its age will.
    fn discard(&mut self, blob: BlobRef) {
        while self.deletions.try_join_next().is_some() {}
        if self.deletions.len() >= DELETIONS_MAX {
            return;
        }
        let bus = self.bus.clone();
        self.deletions.spawn(async move {
            if let Err(error) = bus.delete(blob).await {
                tracing::debug!(%error, "delete a blob");
            }
        });
    }

    async fn send(
        &self,
        subject: &Subject,
        receiver: Option<InstanceId>,
        payload: Bytes,
    ) -> anyhow::Result<()> {
        let client = self.bus.client();
        metrics::counter!("tokenway_sent_bytes_total", "stage" => self.role.binary())
            .increment(payload.len() as u64);
        match receiver {
            Some(receiver) => {
                let reply = Subject::undelivered(self.instance, receiver).to_string();
                client.publish_with_reply(subject.to_string(), reply, payload).await?;
            }
            None => client.publish(subject.to_string(), payload).await?,
        }
        Ok(())
    }

    /// Stores an entry; the request hears of a refusal.
    async fn enqueue(&self, subject: &Subject, context: &Context, payload: Bytes) -> anyhow::Result<()> {
        match self.bus.enqueue(subject, payload).await {
            Ok(()) => Ok(()),
            Err(failure) => self.refuse(context, failure).await,
        }
    }

    async fn refuse(&self, context: &Context, failure: Failure) -> anyhow::Result<()> {
        metrics::counter!("tokenway_refused_entries_total", "stage" => self.role.binary()).increment(1);
        let notice = Notice {
            session: context.session,
            attempt: context.attempt,
            event: Event::Failed { route: None, failure },
        };
        self.send(&Subject::control(context.door), None, wire::encode(&notice)).await
    }

    /// Tells the broker that the held entries are still being worked on.
    pub(crate) async fn extend(&mut self) {
        for Held { acker, .. } in self.tickets.values() {
            if let Err(error) = acker.ack_with(AckKind::Progress).await {
                tracing::debug!(%error, "extend a delivery");
            }
        }
        self.extend_at = Instant::now() + EXTEND_EVERY;
    }

    /// Puts the delivery of `ticket` back into the queue: its next holder must not think that it ended this one.
    pub(crate) async fn give_back(&mut self, ticket: Ticket) -> anyhow::Result<()> {
        let Some(Held { acker, claimed }) = self.tickets.remove(&ticket) else { return Ok(()) };
        if let Some(entry) = claimed
            && let Err(error) = claims::release(&self.bus, &entry).await
        {
            tracing::warn!(error = format!("{error:#}"), "release a claim");
        }
        nak(&acker, None).await
    }

    /// Puts the delivery of `ticket`, which was not begun, back into the queue for a while.
    pub(crate) async fn give_back_for(&mut self, ticket: Ticket, pause: Duration) -> anyhow::Result<()> {
        match self.tickets.remove(&ticket) {
            Some(Held { acker, .. }) => nak(&acker, Some(pause)).await,
            None => Ok(()),
        }
    }

    /// Gives back what is still held and empties the socket buffer.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        for ticket in self.tickets.keys().copied().collect::<Vec<_>>() {
            self.give_back(ticket).await?;
        }
        self.deletions.join_all().await;
        self.bus.barrier().await
    }
}

async fn nak(acker: &Acker, pause: Option<Duration>) -> anyhow::Result<()> {
    acker.ack_with(AckKind::Nak(pause)).await.map_err(|error| anyhow::anyhow!("give back: {error}"))
}
