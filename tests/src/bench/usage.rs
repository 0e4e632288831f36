//! What a process uses, as `/proc` tells it.

use anyhow::Context as _;

use crate::cluster::Cluster;

/// `USER_HZ`: the unit of `/proc/PID/stat` is part of Linux's interface and 100 on every platform that we run on.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What it is, for tables.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl Usage {
    /// Every process of `cluster`, the broker last.
    pub fn of_cluster(cluster: &Cluster) -> Vec<Self> {
        let stages =
            cluster.processes.iter().map(|(name, process)| Self { name: name.clone(), pid: process.pid() });
        stages.chain([Self { name: "nats-server".into(), pid: cluster.nats.pid() }]).collect()
    }

    /// The process that asks.
    pub fn own() -> Self {
        Self { name: "bench".into(), pid: std::process::id() }
    }

    /// Most memory that was resident at any time, in KiB.
    pub fn peak_rss_kib(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Memory that is resident now, in KiB.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// Open file descriptors.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid);
        let entries = std::fs::read_dir(&folder).with_context(|| self.gone(&folder))?;
        Ok(entries.count())
    }

    /// CPU time of all its threads since it started, in seconds, in user and kernel mode.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let file = format!("/proc/{}/stat", self.pid);
        let text = std::fs::read_to_string(&file).with_context(|| self.gone(&file))?;
        let ticks = cpu_ticks(&text).with_context(|| format!("`{file}` has no times"))?;
        Ok(ticks as f64 / CLOCK_TICKS_PER_SECOND)
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let file = format!("/proc/{}/status", self.pid);
        let text = std::fs::read_to_string(&file).with_context(|| self.gone(&file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.with_context(|| format!("`{file}` has no `{field}`"))
    }

    fn gone(&self, file: &str) -> String {
        format!("`{}` has ended: `{file}`", self.name)
    }
}

/// User and kernel time of a `stat` line, in ticks. The second field, in brackets, may hold spaces and brackets itself.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_program_name() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 99 0 0 0 250 31 0 0 20 0 4 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(281));
    }

    #[test]
    fn a_process_sees_itself() {
        let own = Usage::own();
        assert!(own.rss_kib().unwrap() > 0);
        assert!(own.peak_rss_kib().unwrap() >= own.rss_kib().unwrap() / 2);
        assert!(own.open_files().unwrap() > 2);
        assert!(own.cpu_seconds().unwrap() >= 0.0);
    }
}
