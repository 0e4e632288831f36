//! What the command needs of the bus: who is there, which pipelines exist, how long the queues are.

use std::time::Duration;

use pipelines::bus::{Bus, QueueDepth};
use pipelines::presence::{Watch, announce_gone};
use pipelines::record::{self, Record};
pub use pipelines::service::VERSION;
use schemas::presence::{Presence, State};
use schemas::{Fingerprint, InstanceId, Role};

use crate::last::Last;

/// Where the bus is when nothing says otherwise.
const DEFAULT_URL: &str = pipelines::settings::NATS_URL;

/// Longest time that a notice may wait for a bus which is away.
const NOTICE_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that listens to presence.
pub struct View {
    bus: Bus,
    watch: Watch,
}

/// What the broker says of itself.
pub struct Broker {
    /// Its release.
    pub version: String,
    /// Largest message, in bytes.
    pub max_payload: usize,
    /// Whether it has JetStream.
    pub jetstream: bool,
}

/// The broker to look at, unless `--nats` or `TOKENWAY_NATS` names one: that of the running `tokenway up`.
pub fn url(given: Option<&str>) -> String {
    let running = || Last::read().map(|last| last.nats);
    given.map(str::to_owned).or_else(running).unwrap_or_else(|| DEFAULT_URL.to_owned())
}

impl View {
    /// Connects to the broker at `url` and starts to listen.
    pub async fn connect(url: &str, name: &str) -> anyhow::Result<Self> {
        let bus = Bus::connect(url, name).await?;
        let watch = Watch::start(&bus).await?;
        Ok(Self { bus, watch })
    }

    /// What the broker says of itself.
    pub fn broker(&self) -> Broker {
        let info = self.bus.client().server_info();
        Broker { version: info.version, max_payload: info.max_payload, jetstream: info.jetstream }
    }

    /// The latest announcement of everyone alive, in the order of the dataflow.
    pub fn instances(&self) -> Vec<Presence> {
        let mut instances: Vec<_> = self.watch.peers().all().cloned().collect();
        instances.sort_by_key(|presence| (presence.fp, presence.role, presence.instance));
        instances
    }

    /// Whether `instance` takes work.
    pub fn is_ready(&self, instance: InstanceId) -> bool {
        self.watch.peers().get(instance).is_some_and(|presence| presence.state == State::Ready)
    }

    /// Says that `instance` is gone, if it was ever heard, so that nobody waits for its silence to be long enough.
    pub async fn announce_gone(&self, instance: InstanceId, role: Role) {
        let Some(fp) = self.watch.peers().get(instance).map(|presence| presence.fp) else { return };
        // Without the notice the others find out by themselves, only later.
        let _ = tokio::time::timeout(NOTICE_DEADLINE, announce_gone(&self.bus, instance, role, fp)).await;
    }

    /// The pipelines that exist, running or not, by model id.
    pub async fn pipelines(&self) -> anyhow::Result<Vec<Record>> {
        let mut records = record::list(&self.bus).await?;
        records.sort_by(|a, b| (&a.model, &a.fp).cmp(&(&b.model, &b.fp)));
        Ok(records)
    }

    /// How full the work queue at the entry of `role` is; none when there is no such queue.
    pub async fn queue(&self, fp: Fingerprint, role: Role) -> Option<QueueDepth> {
        self.bus.queue_depth(fp, role).await.ok()
    }
}
