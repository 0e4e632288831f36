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
use crate::runner::sleep_until;
use crate::stage::{Effect, Job, Stage, Ticket};

/// Blobs that are being deleted at once.
const DELETIONS_MAX: usize = 64;

/// The stage's way out.
pub(crate) struct Output {
    bus: Bus,
    instance: InstanceId,
    role: Role,
    tickets: HashMap<Ticket, Acker>,
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

    /// Registers deliveries and fetches the blobs they refer to.
    pub(crate) async fn accept(
        &mut self,
        deliveries: Vec<async_nats::jetstream::Message>,
        stage: &dyn Stage,
    ) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let (delivered, age) = match delivery.info() {
                Ok(info) => (info.delivered as u32, age_of(info.published)),
                Err(_) => (1, Duration::ZERO),
            };
            let (message, acker) = delivery.split();
            self.last_ticket += 1;
            let ticket = Ticket(self.last_ticket);
            self.tickets.insert(ticket, acker);
            jobs.push(Job { payload: message.payload, blobs: Vec::new(), ticket, delivered, age });
        }
        // All are held by now, so that those behind a large blob are extended, too.
        for job in &mut jobs {
            for blob in stage.attachments(&job.payload) {
                let bus = self.bus.clone();
                let fetched = self.extending(async move { bus.fetch(blob).await }).await;
                job.blobs.push(fetched.unwrap_or_else(|error| {
                    tracing::warn!(%error, "blob");
                    None
                }));
            }
        }
        jobs
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
                    if let Some(acker) = self.tickets.remove(&ticket) {
                        acker.ack().await.map_err(|error| anyhow::anyhow!("acknowledge: {error}"))?;
                    }
                }
                Effect::GiveBack(ticket) => {
                    if let Some(acker) = self.tickets.remove(&ticket) {
                        give_back(&acker).await?;
                    }
                }
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
        for acker in self.tickets.values() {
            if let Err(error) = acker.ack_with(AckKind::Progress).await {
                tracing::debug!(%error, "extend a delivery");
            }
        }
        self.extend_at = Instant::now() + EXTEND_EVERY;
    }

    /// Gives back what is still held and empties the socket buffer.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        for (_, acker) in self.tickets.drain() {
            give_back(&acker).await?;
        }
        self.deletions.join_all().await;
        self.bus.barrier().await
    }
}

async fn give_back(acker: &Acker) -> anyhow::Result<()> {
    acker.ack_with(AckKind::Nak(None)).await.map_err(|error| anyhow::anyhow!("give back: {error}"))
}

/// How long an entry has waited, by the broker's clock and ours; zero when they disagree.
fn age_of(published: async_nats::datetime::DateTime) -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(published.into()).unwrap_or_default()
}
