//! What the processes of a cluster say that they hold.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use pipelines::bus::Bus;
use pipelines::presence::Watch;

use super::Cluster;

const PRESENT_WITHIN: Duration = Duration::from_secs(30);
const FREE_WITHIN: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Listens to the processes of one cluster.
pub struct Holdings(Watch);

impl Holdings {
    /// Listens at the broker of `cluster`.
    pub async fn watch(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self(Watch::start(&Bus::connect(&cluster.nats.url(), "test").await?).await?))
    }

    /// Waits until every process announces itself.
    pub async fn all_present(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let missing = || -> Vec<&str> {
            let peers = self.0.peers();
            let is_missing = |pid| !peers.all().any(|peer| peer.pid == pid);
            let missing = cluster.processes.iter().filter(|(_, process)| is_missing(process.pid()));
            missing.map(|(name, _)| name.as_str()).collect()
        };
        wait_until(PRESENT_WITHIN, || missing().is_empty()).await;
        ensure!(
            missing().is_empty(),
            "not there within {PRESENT_WITHIN:?}: {:?}\n{}",
            missing(),
            cluster.logs()
        );
        Ok(())
    }

    /// Waits until every process is there and holds no sequence.
    pub async fn nothing_is_held(&self, cluster: &Cluster) -> anyhow::Result<()> {
        self.all_present(cluster).await?;
        let held = || -> BTreeMap<String, u32> {
            let peers = self.0.peers();
            let holders = peers.all().filter(|peer| peer.used.sequences > 0);
            holders.map(|peer| (format!("{} {}", peer.role, peer.instance), peer.used.sequences)).collect()
        };
        wait_until(FREE_WITHIN, || held().is_empty()).await;
        ensure!(held().is_empty(), "sequences held after {FREE_WITHIN:?}: {:?}\n{}", held(), cluster.logs());
        Ok(())
    }
}

async fn wait_until(time: Duration, is_so: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + time;
    while !is_so() && tokio::time::Instant::now() < until {
        tokio::time::sleep(POLL_EVERY).await;
    }
}
