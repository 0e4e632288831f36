//! Listening to everybody.

use std::time::{Duration, Instant};

use async_nats::StatusCode;
use futures_util::StreamExt;
use schemas::presence::{Presence, State};
use schemas::{InstanceId, Subject, wire};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::roll::Roll;
use crate::bus::Bus;
use crate::peers::Peers;

/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Listens to all announcements.
pub struct Watch {
    peers: watch::Receiver<Peers>,
    suspects: mpsc::Sender<InstanceId>,
    _owner: tokio_util::sync::DropGuard,
}

impl Watch {
    /// Starts listening on the current runtime; ends when dropped.
    pub async fn start(bus: &Bus) -> anyhow::Result<Self> {
        let announcements = bus.client().subscribe(Subject::presence_all().to_string()).await?;
        let (publish, peers) = watch::channel(Peers::default());
        let (suspects, suspected) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let prober = Prober::start(bus).await?;
        bus.barrier().await?;
        tokio::spawn(listen(prober, Heard { announcements, suspected }, publish, stop.clone()));
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
    pub fn suspects(&self) -> mpsc::Sender<InstanceId> {
        self.suspects.clone()
    }
}

/// What a watch listens to.
struct Heard {
    announcements: async_nats::Subscriber,
    suspected: mpsc::Receiver<InstanceId>,
}

async fn listen(
    mut prober: Prober,
    Heard { mut announcements, mut suspected }: Heard,
    publish: watch::Sender<Peers>,
    stop: CancellationToken,
) {
    let mut roll = Roll::default();
    let mut tick = tokio::time::interval(LOOK_EVERY);
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
            Some(instance) = suspected.recv() => lose(instance, &mut roll, &prober).await,
            Some(instance) = prober.unheard() => lose(instance, &mut roll, &prober).await,
            _ = tick.tick() => {
                let now = Instant::now();
                prober.ask(roll.suspects(now)).await;
                roll.expire(now) || roll.is_stale(now)
            }
            () = stop.cancelled() => return,
        };
        if urgent {
            publish.send_replace(roll.snapshot(Instant::now()));
        }
    }
}

/// Drops an instance that cannot be reached and tells the others; false when that was known.
async fn lose(instance: InstanceId, roll: &mut Roll, prober: &Prober) -> bool {
    let Some(lost) = roll.lose(instance) else { return false };
    prober.tell_unreachable(&lost).await;
    true
}

/// Asks silent instances for a word. The broker answers for those whose connection has gone.
struct Prober {
    bus: Bus,
    inbox: String,
    answers: async_nats::Subscriber,
}

impl Prober {
    async fn start(bus: &Bus) -> anyhow::Result<Self> {
        let inbox = bus.client().new_inbox();
        let answers = bus.client().subscribe(format!("{inbox}.*")).await?;
        Ok(Self { bus: bus.clone(), inbox, answers })
    }

    async fn ask(&self, instances: Vec<InstanceId>) {
        for instance in instances {
            let reply = format!("{}.{instance}", self.inbox);
            let subject = Subject::probe(instance).to_string();
            if let Err(error) = self.bus.client().publish_with_reply(subject, reply, "".into()).await {
                tracing::debug!(%error, %instance, "probe");
            }
        }
    }

    /// The next instance of which the broker says that nobody is there.
    async fn unheard(&mut self) -> Option<InstanceId> {
        loop {
            let answer = self.answers.next().await?;
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return answer.subject.rsplit('.').next()?.parse().ok();
            }
        }
    }

    /// Tells everybody of an instance that cannot be reached: who sends to it finds out at once, the others would wait for
    /// its silence.
    async fn tell_unreachable(&self, lost: &Presence) {
        let word = Presence::bare(lost.instance, lost.role, lost.fp, State::Unreachable);
        let subject = Subject::presence(lost.instance).to_string();
        if let Err(error) = self.bus.client().publish(subject, wire::encode(&word)).await {
            tracing::debug!(%error, "an unreachable instance");
        }
    }
}
