//! A broker for one test.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::free_address;
use crate::process::{Process, repository};

const START_DEADLINE: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// What a server holds for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BrokerHoldings {
    /// Subscriptions of all connections.
    pub subscriptions: u64,
    /// JetStream consumers.
    pub consumers: u64,
    /// Entries in work queues, taken ones included.
    pub queued: u64,
}

/// A running nats-server.
pub struct Nats {
    process: Mutex<Process>,
    address: SocketAddr,
    monitor: SocketAddr,
    config: PathBuf,
    folder: PathBuf,
}

impl Nats {
    /// Starts a server with the configuration that `tokenway up` uses, on free ports, with its store in `folder`; streams have
    /// `stream_memory` (`1GiB`) instead of what the configuration says.
    pub fn start(folder: &Path, stream_memory: Option<&str>) -> anyhow::Result<Self> {
        let (address, monitor) = (free_address()?, free_address()?);
        let mut config = repository().join("deploy/nats.conf");
        if let Some(memory) = stream_memory {
            let text = std::fs::read_to_string(&config)?;
            let setting = text.lines().find(|line| line.trim_start().starts_with("max_memory_store:"));
            let setting = setting.context("the configuration has no `max_memory_store`")?;
            config = folder.join("nats.conf");
            std::fs::write(&config, text.replace(setting, &format!("max_memory_store: {memory}")))?;
        }
        let process = Mutex::new(start(&config, address, monitor, folder)?);
        Ok(Self { process, address, monitor, config, folder: folder.to_owned() })
    }

    /// Kills the server and starts another one in its place, whose memory is empty.
    pub fn kill_and_start(&self) -> anyhow::Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill()?;
        *process = start(&self.config, self.address, self.monitor, &self.folder)?;
        Ok(())
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).pid()
    }

    /// What it holds for its clients.
    pub async fn holdings(&self) -> anyhow::Result<BrokerHoldings> {
        let report = async |path: &str| -> anyhow::Result<serde_json::Value> {
            Ok(reqwest::get(format!("http://{}{path}", self.monitor)).await?.json().await?)
        };
        let subscriptions =
            report("/varz").await?["subscriptions"].as_u64().context("`/varz`: `subscriptions`")?;
        let jetstream = report("/jsz?streams=1&consumers=1").await?;
        let accounts = jetstream["account_details"].as_array().context("`/jsz`: `account_details`")?;
        let streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array()).flatten();
        let mut holdings = BrokerHoldings { subscriptions, ..BrokerHoldings::default() };
        for stream in streams {
            holdings.consumers += stream["state"]["consumer_count"].as_u64().unwrap_or(0);
            if stream["name"].as_str().is_some_and(is_queue) {
                holdings.queued += stream["state"]["messages"].as_u64().unwrap_or(0);
            }
        }
        Ok(holdings)
    }

    /// The connections that it reports at `/connz`.
    pub async fn connections(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let report: serde_json::Value =
            reqwest::get(format!("http://{}/connz", self.monitor)).await?.json().await?;
        report["connections"].as_array().cloned().context("`/connz` has no connections")
    }
}

/// Whether a stream is a work queue: those of a pipeline are named by its fingerprint.
fn is_queue(stream: &str) -> bool {
    let fingerprint = stream.strip_prefix("tw_").and_then(|rest| rest.split('_').next());
    fingerprint.is_some_and(|fp| fp.len() == 32 && fp.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn start(config: &Path, address: SocketAddr, monitor: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let program = repository().join(".deps/bin/nats-server");
    ensure!(program.is_file(), "`{}` is missing: make setup", program.display());
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .args(["-p", &address.port().to_string(), "-m", &monitor.port().to_string()])
        .arg("-sd")
        .arg(folder.join("jetstream"));
    let process = Process::start("nats-server", command, folder)?;
    let until = Instant::now() + START_DEADLINE;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < until, "nats-server did not start:\n{}", process.log_tail());
        std::thread::sleep(POLL_EVERY);
    }
    Ok(process)
}
