//! Presence: every process announces itself from a thread of its own and listens to everybody.
//!
//! The thread has its own connection, so that an instance which computes for long is not taken for dead, and a broker
//! that cannot be reached is noticed by both sides.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt;
use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role, Subject, wire};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::peers::Peers;
use crate::stage::Status;

/// Time between two announcements.
pub const BEAT_EVERY: Duration = Duration::from_millis(250);

/// Silence after which an instance counts as dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Time inside one batch after which an instance counts as dead although it still announces itself.
pub const BUSY_MS_MAX: u64 = 60_000;

/// How long a goodbye may take: the others notice its absence anyway.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);

/// What an instance says of itself that does not change.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub instance: InstanceId,
    /// What it does.
    pub role: Role,
    /// For which pipeline.
    pub fp: Option<Fingerprint>,
    /// Host and processors or device it computes on.
    pub compute: String,
    /// Address of health and metrics.
    pub admin: Option<String>,
}

/// What the working thread shows to the announcing one.
#[derive(Clone)]
pub struct Pulse(Arc<PulseState>);

struct PulseState {
    started: Instant,
    /// Milliseconds after `started` when the current batch began, plus one; 0 between batches.
    batch_since_ms: AtomicU64,
    shown: Mutex<Shown>,
    changed: Notify,
}

#[derive(Clone)]
struct Shown {
    state: State,
    /// None until the stage is ready to receive: only then does it announce itself.
    status: Option<Status>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(PulseState {
            started: Instant::now(),
            batch_since_ms: AtomicU64::new(0),
            shown: Mutex::new(Shown { state: State::Ready, status: None }),
            changed: Notify::new(),
        }))
    }
}

impl Pulse {
    /// A batch begins.
    pub fn enter(&self) {
        let elapsed = self.0.started.elapsed().as_millis() as u64;
        self.0.batch_since_ms.store(elapsed + 1, Ordering::Relaxed);
    }

    /// The batch has ended and left the stage as `status` says. New grants are announced at once.
    pub fn leave(&self, status: Status) {
        self.0.batch_since_ms.store(0, Ordering::Relaxed);
        let mut shown = self.lock();
        let urgent = match &shown.status {
            None => true,
            Some(before) => before.grants != status.grants || before.held.len() != status.held.len(),
        };
        shown.status = Some(status);
        drop(shown);
        if urgent {
            self.0.changed.notify_one();
        }
    }

    /// Changes the announced state, at once.
    pub fn set_state(&self, state: State) {
        self.lock().state = state;
        self.0.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        // Plain values: a panic elsewhere cannot have left them half written.
        self.0.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy_ms(&self) -> u64 {
        match self.0.batch_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since => (self.0.started.elapsed().as_millis() as u64 + 1).saturating_sub(since),
        }
    }

    fn announcement(&self, identity: &Identity, beat: u64) -> Option<Presence> {
        let Shown { state, status } = self.lock().clone();
        let status = status?;
        Some(Presence {
            instance: identity.instance,
            role: identity.role,
            fp: identity.fp,
            state,
            beat,
            busy_ms: self.busy_ms(),
            done: status.done,
            used: status.used,
            capacity: status.capacity,
            grants: status.grants,
            held: status.held,
            compute: identity.compute.clone(),
            pid: std::process::id(),
            admin: identity.admin.clone(),
            version: crate::service::VERSION.to_owned(),
        })
    }
}

/// Announces `identity` until `stop`, then says goodbye.
pub async fn announce(
    bus: &Bus,
    identity: Identity,
    pulse: Pulse,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let subject = Subject::presence(identity.instance).to_string();
    let mut beat = 0;
    while !stop.is_cancelled() {
        if let Some(presence) = pulse.announcement(&identity, beat) {
            bus.client().publish(subject.clone(), wire::encode(&presence)).await?;
            beat += 1;
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT_EVERY) => {}
            () = pulse.0.changed.notified() => {}
            () = stop.cancelled() => {}
        }
    }
    announce_gone(bus, identity.instance, identity.role, identity.fp).await
}

/// Says that `instance` is gone: its own goodbye, or its supervisor's notice.
pub async fn announce_gone(
    bus: &Bus,
    instance: InstanceId,
    role: Role,
    fp: Option<Fingerprint>,
) -> anyhow::Result<()> {
    let goodbye = Presence::bare(instance, role, fp, State::Gone);
    bus.client().publish(Subject::presence(instance).to_string(), wire::encode(&goodbye)).await?;
    tokio::time::timeout(GOODBYE_DEADLINE, bus.client().flush())
        .await
        .context("no goodbye: the bus is away")??;
    Ok(())
}

/// Listens to all announcements.
pub struct Watch {
    peers: watch::Receiver<Peers>,
    suspects: tokio::sync::mpsc::Sender<InstanceId>,
    _owner: tokio_util::sync::DropGuard,
}

impl Watch {
    /// Starts listening on the current runtime; ends when dropped.
    pub async fn start(bus: &Bus) -> anyhow::Result<Self> {
        let announcements = bus.client().subscribe(Subject::presence_all().to_string()).await?;
        bus.barrier().await?;
        let (publish, peers) = watch::channel(Peers::default());
        let (suspects, suspected) = tokio::sync::mpsc::channel(64);
        let stop = CancellationToken::new();
        tokio::spawn(listen(announcements, suspected, publish, stop.clone()));
        Ok(Self { peers, suspects, _owner: stop.drop_guard() })
    }

    /// The current snapshot.
    pub fn peers(&self) -> Peers {
        self.peers.borrow().clone()
    }

    /// Waits for another snapshot.
    pub async fn changed(&mut self) {
        if self.peers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A receiver of every snapshot, for another thread.
    pub fn subscribe(&self) -> watch::Receiver<Peers> {
        self.peers.clone()
    }

    /// Where to report an instance to which a message could not be delivered.
    pub fn suspects(&self) -> tokio::sync::mpsc::Sender<InstanceId> {
        self.suspects.clone()
    }
}

async fn listen(
    mut announcements: async_nats::Subscriber,
    mut suspected: tokio::sync::mpsc::Receiver<InstanceId>,
    publish: watch::Sender<Peers>,
    stop: CancellationToken,
) {
    let mut roll = Roll::default();
    let mut tick = tokio::time::interval(BEAT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let urgent = tokio::select! {
            Some(message) = announcements.next() => match wire::decode::<Presence>(&message.payload) {
                Ok(presence) => roll.hear(presence, Instant::now()),
                Err(error) => {
                    metrics::counter!("tokenway_refused_messages_total", "edge" => "presence").increment(1);
                    tracing::debug!(%error, "refused announcement");
                    false
                }
            },
            Some(instance) = suspected.recv() => roll.lose(instance),
            _ = tick.tick() => roll.expire(Instant::now()) || roll.stale,
            () = stop.cancelled() => return,
        };
        if urgent {
            publish.send_replace(roll.snapshot());
        }
    }
}

/// Everyone heard of lately.
#[derive(Default)]
struct Roll {
    alive: BTreeMap<InstanceId, (Presence, Instant)>,
    /// Instances that have gone, so that an announcement still on its way does not revive them.
    gone: BTreeMap<InstanceId, Instant>,
    /// Whether load figures have changed since the last snapshot.
    stale: bool,
    /// When anybody was last heard: one's own announcements come back too, so silence of all means that the bus is away.
    latest: Option<Instant>,
}

impl Roll {
    /// Takes in an announcement; true when others must know at once.
    fn hear(&mut self, presence: Presence, now: Instant) -> bool {
        let instance = presence.instance;
        self.forgive_outage(now);
        if presence.state == State::Gone {
            self.gone.insert(instance, now);
            return self.alive.remove(&instance).is_some();
        }
        if self.gone.contains_key(&instance) {
            return false;
        }
        self.stale = true;
        match self.alive.insert(instance, (presence, now)) {
            None => true,
            Some((before, _)) => {
                let (after, _) = &self.alive[&instance];
                before.state != after.state
                    || before.grants != after.grants
                    || before.held.len() != after.held.len()
            }
        }
    }

    /// After a time in which nobody was heard, everybody gets the full time to be heard again.
    fn forgive_outage(&mut self, now: Instant) {
        let outage = self.latest.is_some_and(|latest| now.duration_since(latest) > SILENCE_MAX / 2);
        if outage {
            self.alive.values_mut().for_each(|(_, heard)| *heard = now);
        }
        self.latest = Some(now);
    }

    /// Drops an instance that cannot be reached, until it announces itself again.
    fn lose(&mut self, instance: InstanceId) -> bool {
        self.alive.remove(&instance).is_some()
    }

    /// Drops those that were silent or stuck for too long.
    fn expire(&mut self, now: Instant) -> bool {
        let before = self.alive.len();
        let heard_all = self.latest.unwrap_or(now);
        self.alive.retain(|_, (presence, heard)| {
            heard_all.duration_since(*heard) <= SILENCE_MAX && presence.busy_ms <= BUSY_MS_MAX
        });
        self.gone.retain(|_, since| now.duration_since(*since) <= 10 * SILENCE_MAX);
        before != self.alive.len()
    }

    fn snapshot(&mut self) -> Peers {
        self.stale = false;
        Peers::new(self.alive.iter().map(|(id, (presence, _))| (*id, presence.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(state: State) -> Presence {
        let identity = Identity {
            instance: InstanceId(1),
            role: Role::Sample,
            fp: None,
            compute: String::new(),
            admin: None,
        };
        let pulse = Pulse::default();
        pulse.set_state(state);
        pulse.leave(Status::default());
        pulse.announcement(&identity, 1).unwrap()
    }

    fn other(mut presence: Presence) -> Presence {
        presence.instance = InstanceId(2);
        presence
    }

    #[test]
    fn silence_of_one_among_others_ends_it() {
        let mut roll = Roll::default();
        let start = Instant::now();
        assert!(roll.hear(presence(State::Ready), start));
        let mut now = start;
        while now < start + SILENCE_MAX {
            now += BEAT_EVERY;
            roll.hear(other(presence(State::Ready)), now);
            assert!(!roll.expire(now));
        }
        now += BEAT_EVERY;
        roll.hear(other(presence(State::Ready)), now);
        assert!(roll.expire(now));
        assert!(!roll.snapshot().is_alive(InstanceId(1)));
    }

    #[test]
    fn an_outage_of_the_bus_ends_nobody() {
        let mut roll = Roll::default();
        let start = Instant::now();
        roll.hear(presence(State::Ready), start);
        roll.hear(other(presence(State::Ready)), start);
        let later = start + 5 * SILENCE_MAX;
        assert!(!roll.expire(later));
        roll.hear(other(presence(State::Ready)), later);
        assert!(!roll.expire(later));
    }

    #[test]
    fn a_late_announcement_does_not_revive_the_gone() {
        let mut roll = Roll::default();
        let now = Instant::now();
        roll.hear(presence(State::Ready), now);
        assert!(roll.hear(presence(State::Gone), now));
        assert!(!roll.hear(presence(State::Ready), now));
        assert!(!roll.snapshot().is_alive(InstanceId(1)));
    }
}
