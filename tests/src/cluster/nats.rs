//! A broker for one test.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::free_address;
use crate::process::{Process, repository};

const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long the servers of a cluster may take to find each other and a leader.
const AGREE_DEADLINE: Duration = Duration::from_secs(40);
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

/// A running broker: one nats-server, or a cluster of them.
pub struct Nats {
    /// At least one.
    servers: Vec<Server>,
}

struct Server {
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
        let mut config = repository().join("deploy/nats.conf");
        if let Some(memory) = stream_memory {
            let text = std::fs::read_to_string(&config)?;
            config = folder.join("nats.conf");
            let setting = setting(&text, "max_memory_store:")?;
            std::fs::write(&config, text.replace(setting, &format!("max_memory_store: {memory}")))?;
        }
        Ok(Self { servers: vec![Server::start(config, folder)?] })
    }

    /// Starts a cluster of `count` servers and waits until they agree.
    pub async fn start_cluster(folder: &Path, count: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(repository().join("deploy/nats.conf"))?;
        let routes: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect::<anyhow::Result<_>>()?;
        let all: Vec<String> = routes.iter().map(|route| format!("nats-route://{route}")).collect();
        let mut servers = Vec::new();
        for (i, route) in routes.iter().enumerate() {
            let folder = folder.join(format!("nats-{i}"));
            std::fs::create_dir_all(&folder)?;
            let named = text.replace(setting(&text, "server_name:")?, &format!("server_name: tokenway-{i}"));
            let cluster =
                format!("cluster {{ name: tokenway, listen: \"{route}\", routes: [{}] }}", all.join(", "));
            let config = folder.join("nats.conf");
            std::fs::write(&config, format!("{named}\n{cluster}\n"))?;
            servers.push(Server::start(config, &folder)?);
        }
        let nats = Self { servers };
        nats.healthy().await?;
        Ok(nats)
    }

    /// Waits until every server says that it is well.
    pub async fn healthy(&self) -> anyhow::Result<()> {
        let until = Instant::now() + AGREE_DEADLINE;
        for server in &self.servers {
            let url = format!("http://{}/healthz", server.monitor);
            while !reqwest::get(&url).await.is_ok_and(|reply| reply.status().is_success()) {
                ensure!(Instant::now() < until, "the cluster does not agree:\n{}", server.lock().log_tail());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Kills the server and starts another one in its place, whose memory is empty.
    pub fn kill_and_start(&self) -> anyhow::Result<()> {
        self.servers[0].kill_and_start()
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Kills a server of the cluster; returns its process id.
    pub fn kill(&self, server: usize) -> anyhow::Result<u32> {
        let mut process = self.servers[server].lock();
        process.kill()?;
        Ok(process.pid())
    }

    /// Starts a server of the cluster again.
    pub fn start_again(&self, server: usize) -> anyhow::Result<()> {
        self.servers[server].start_again()
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        let urls: Vec<String> =
            self.servers.iter().map(|server| format!("nats://{}", server.address)).collect();
        urls.join(",")
    }

    /// Where the first server listens.
    pub fn address(&self) -> SocketAddr {
        self.servers[0].address
    }

    /// The first server's process id.
    pub fn pid(&self) -> u32 {
        self.servers[0].lock().pid()
    }

    /// What it holds for its clients.
    pub async fn holdings(&self) -> anyhow::Result<BrokerHoldings> {
        let report = async |path: &str| -> anyhow::Result<serde_json::Value> {
            Ok(reqwest::get(format!("http://{}{path}", self.servers[0].monitor)).await?.json().await?)
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
            reqwest::get(format!("http://{}/connz", self.servers[0].monitor)).await?.json().await?;
        report["connections"].as_array().cloned().context("`/connz` has no connections")
    }
}

impl Server {
    fn start(config: PathBuf, folder: &Path) -> anyhow::Result<Self> {
        let (address, monitor) = (free_address()?, free_address()?);
        let process = Mutex::new(start(&config, address, monitor, folder)?);
        Ok(Self { process, address, monitor, config, folder: folder.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill_and_start(&self) -> anyhow::Result<()> {
        self.lock().kill()?;
        self.start_again()
    }

    fn start_again(&self) -> anyhow::Result<()> {
        *self.lock() = start(&self.config, self.address, self.monitor, &self.folder)?;
        Ok(())
    }
}

/// The line of a configuration that begins so.
fn setting<'a>(text: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let line = text.lines().find(|line| line.trim_start().starts_with(name));
    line.with_context(|| format!("the configuration has no `{name}`"))
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
