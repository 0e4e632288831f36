//! A whole pipeline as separate processes on a broker of its own, on free ports, in a folder of its own.

mod holdings;
mod namespace;
mod nats;
mod proxy;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use models::ModelFolder;
use pipelines::Pipeline;
use pipelines::graph::Overrides;
use tempfile::TempDir;

use crate::client::Api;
use crate::process::{Process, binary, repository};

pub use holdings::Holdings;
pub use namespace::Namespace;
pub use nats::{BrokerHoldings, Nats};
pub use proxy::{Link, Proxy};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Where a gateway listens that has a network namespace of its own.
const NAMESPACE_HTTP_PORT: u16 = 8080;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pipeline file.
    pub pipeline: PathBuf,
    /// Changes of its settings.
    pub overrides: Overrides,
    /// Further arguments of the gateway.
    pub gateway: Vec<String>,
    /// Processes that are not started at first, by name (`tokenize`, `shard-forward.1`).
    pub absent: Vec<String>,
    /// How many processes of each role, gateway included; the further ones are called `sample#1`, `sample#2`, …
    pub replicas: u32,
    /// Whether every process has a proxy before the broker.
    pub proxied: bool,
    /// Whether every process has a network namespace of its own, and a proxy at the other end of its wire.
    pub namespaces: bool,
    /// How many nats-servers the broker is.
    pub brokers: usize,
    /// Memory that the broker has for streams, when not what its configuration file says.
    pub stream_memory: Option<String>,
    /// `TOKENWAY_LOG` of every process.
    pub log: String,
}

impl Options {
    /// The demo model on two shards.
    pub fn demo() -> Self {
        Self::of("demo.toml")
    }

    /// The echo engine on two shards.
    pub fn echo() -> Self {
        Self::of("echo.toml")
    }

    fn of(file: &str) -> Self {
        Self {
            pipeline: repository().join("pipelines").join(file),
            overrides: Overrides::default(),
            gateway: Vec::new(),
            absent: Vec::new(),
            replicas: 1,
            proxied: false,
            namespaces: false,
            brokers: 1,
            stream_memory: None,
            log: "info,async_nats=warn,poem=warn".into(),
        }
    }

    /// Sets `stages.<stage>.<setting>`.
    pub fn set(mut self, stage: &str, setting: &str, value: impl Into<serde_json::Value>) -> Self {
        self.overrides.set(stage, setting, value);
        self
    }

    /// Leaves a process out at first.
    pub fn without(mut self, name: &str) -> Self {
        self.absent.push(name.to_owned());
        self
    }

    /// Adds arguments of the gateway.
    pub fn gateway(mut self, arguments: &[&str]) -> Self {
        self.gateway.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }
}

/// Running processes; dropped, they end.
pub struct Cluster {
    /// Every process by name: `gateway`, `tokenize`, `shard-forward.0`, …
    pub processes: BTreeMap<String, Process>,
    /// The pipeline's id for clients.
    pub model: String,
    /// The gateway's address.
    pub http: SocketAddr,
    /// The broker; clusters beside each other share it.
    pub nats: Arc<Nats>,
    options: Options,
    pipeline: PathBuf,
    /// Those that processes have before the broker, by the process's name.
    proxies: BTreeMap<String, Proxy>,
    /// Where gateways listen, by the process's name.
    gateways: BTreeMap<String, SocketAddr>,
    /// Those of processes that have one of their own, by the process's name.
    namespaces: BTreeMap<String, Namespace>,
    /// Last, so that it outlives the processes that write to it.
    folder: TempDir,
}

impl Cluster {
    /// Starts everything and waits until the gateway says that the model is ready, unless something is absent.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let nats = match options.brokers {
            1 => Nats::start(folder.path(), options.stream_memory.as_deref())?,
            servers => Nats::start_cluster(folder.path(), servers).await?,
        };
        Self::start_on(options, folder, Arc::new(nats), None).await
    }

    /// Starts the stages of another pipeline on the broker and behind the gateway of `other`.
    pub async fn beside(other: &Self, options: Options) -> anyhow::Result<Self> {
        Self::start_on(options, tempfile::tempdir()?, other.nats.clone(), Some(other.http)).await
    }

    async fn start_on(
        options: Options,
        folder: TempDir,
        nats: Arc<Nats>,
        gateway: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut resolved = Pipeline::read(&options.pipeline, options.overrides.clone())?;
        if ModelFolder::open(&resolved.path)?.vision().is_none() {
            resolved.stages.vision_encode = None;
        }
        let pipeline = folder.path().join("pipeline.toml");
        std::fs::write(&pipeline, toml::to_string(&resolved)?)?;
        let http = gateway.map_or_else(free_address, Ok)?;
        let mut cluster = Self {
            processes: BTreeMap::new(),
            model: resolved.model.clone(),
            http,
            nats,
            options,
            pipeline,
            proxies: BTreeMap::new(),
            gateways: BTreeMap::from([("gateway".to_owned(), http)]),
            namespaces: BTreeMap::new(),
            folder,
        };
        let own_gateway = gateway.is_none().then(|| "gateway".to_owned());
        let roles: Vec<String> =
            resolved.roles().into_iter().map(|(role, _)| role.to_string()).chain(own_gateway).collect();
        for replica in 0..cluster.options.replicas {
            for role in &roles {
                cluster.start_replica(role, replica).await?;
            }
        }
        if cluster.options.absent.is_empty() {
            cluster.ready().await?;
        }
        Ok(cluster)
    }

    async fn start_replica(&mut self, role: &str, replica: u32) -> anyhow::Result<()> {
        let name = if replica == 0 { role.to_owned() } else { format!("{role}#{replica}") };
        if self.options.absent.contains(&name) {
            return Ok(());
        }
        if role == "gateway" && replica > 0 {
            self.gateways.insert(name.clone(), free_address()?);
        }
        match &self.options {
            Options { namespaces: true, .. } => self.spawn_in_namespace(&name).await,
            Options { proxied: true, .. } => self.spawn_behind_proxy(&name).await,
            _ => self.spawn(&name),
        }
    }

    /// Starts the process `name`, for the first time or again.
    pub fn spawn(&mut self, name: &str) -> anyhow::Result<()> {
        let role = name.split('#').next().unwrap_or(name);
        let process = self.process(role, name)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Starts the process `name` with a proxy before the broker, which stays when the process is started again.
    pub async fn spawn_behind_proxy(&mut self, name: &str) -> anyhow::Result<()> {
        let proxy = Proxy::start(IpAddr::V4(Ipv4Addr::LOCALHOST), self.nats.address()).await?;
        self.proxies.insert(name.to_owned(), proxy);
        self.spawn(name)
    }

    /// Starts the process `name` in a network namespace of its own, which stays when the process is started again.
    async fn spawn_in_namespace(&mut self, name: &str) -> anyhow::Result<()> {
        let namespace = Namespace::new()?;
        let proxy = Proxy::start(namespace.outside(), self.nats.address()).await?;
        self.proxies.insert(name.to_owned(), proxy);
        if let Some(http) = self.gateways.get_mut(name) {
            *http = SocketAddr::new(namespace.inside(), NAMESPACE_HTTP_PORT);
            self.http = self.gateways["gateway"];
        }
        self.namespaces.insert(name.to_owned(), namespace);
        self.spawn(name)
    }

    /// The network namespace of the process `name`.
    pub fn namespace(&self, name: &str) -> anyhow::Result<&Namespace> {
        self.namespaces.get(name).with_context(|| format!("no namespace of `{name}`"))
    }

    /// The proxy of the process `name`.
    pub fn proxy(&self, name: &str) -> anyhow::Result<&Proxy> {
        self.proxies.get(name).with_context(|| format!("no proxy for `{name}`"))
    }

    /// Starts one more instance of `role` as process `name`.
    pub fn spawn_replica(&mut self, role: &str, name: &str) -> anyhow::Result<()> {
        let process = self.process(role, name)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Starts a process of `role` that the caller owns.
    pub fn start_beside(&self, role: &str) -> anyhow::Result<Process> {
        self.process(role, role)
    }

    /// Starts one more gateway, on another address, that the caller owns; waits until it is ready.
    pub async fn second_gateway(&self) -> anyhow::Result<(Process, Api)> {
        let http = free_address()?;
        let process =
            Process::start("gateway beside", self.gateway("gateway beside", http)?, self.folder.path())?;
        let api = Api::new(&format!("http://{http}"), &self.model);
        let is_ready = async {
            while !api.is_ready().await {
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        tokio::time::timeout(READY_DEADLINE, is_ready).await?;
        Ok((process, api))
    }

    fn gateway(&self, name: &str, http: SocketAddr) -> anyhow::Result<Command> {
        let mut command = self.command("gateway", name)?;
        command.args(["--http", &http.to_string()]).args(&self.options.gateway);
        Ok(command)
    }

    fn command(&self, program: &str, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(binary(program)?);
        let broker =
            self.proxies.get(name).map_or(self.nats.url(), |proxy| format!("nats://{}", proxy.address));
        command.args(["--nats", &broker, "--supervised"]).env("TOKENWAY_LOG", &self.options.log);
        Ok(command)
    }

    fn process(&self, role: &str, name: &str) -> anyhow::Result<Process> {
        let (program, shard) = match role.split_once('.') {
            Some((program, shard)) => (program, Some(shard)),
            None => (role, None),
        };
        if program == "gateway" {
            let http = *self.gateways.get(name).with_context(|| format!("no address for `{name}`"))?;
            return self.start_process(name, self.gateway(name, http)?);
        }
        let mut command = self.command(program, name)?;
        command.arg("--pipeline").arg(&self.pipeline).args(["--admin", "127.0.0.1:0"]);
        if let Some(shard) = shard {
            command.args(["--shard", shard]);
        }
        self.start_process(name, command)
    }

    fn start_process(&self, name: &str, command: Command) -> anyhow::Result<Process> {
        let command = match self.namespaces.get(name) {
            Some(namespace) => namespace.enter(&command),
            None => command,
        };
        Process::start(name, command, self.folder.path())
    }

    /// The process `name`.
    pub fn get(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(name).with_context(|| format!("no process `{name}`"))
    }

    /// The address for clients, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// A client of the gateway.
    pub fn api(&self) -> Api {
        Api::new(&self.url(), &self.model)
    }

    /// A client of each gateway.
    pub fn apis(&self) -> Vec<Api> {
        self.gateways.values().map(|http| Api::new(&format!("http://{http}"), &self.model)).collect()
    }

    /// All proxies, by the names of their processes.
    pub fn proxies(&self) -> &BTreeMap<String, Proxy> {
        &self.proxies
    }

    /// Waits until the gateway says that the model is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_DEADLINE;
        let api = self.api();
        loop {
            if api.is_ready().await {
                return Ok(());
            }
            for process in self.processes.values_mut() {
                ensure!(process.is_running()?, "`{}` has ended:\n{}", process.name, process.log_tail());
            }
            ensure!(Instant::now() < until, "not ready within {READY_DEADLINE:?}: {}", self.logs());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The last lines of every process.
    pub fn logs(&self) -> String {
        let tails =
            self.processes.values().map(|process| format!("--- {}\n{}", process.name, process.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// The sum of a metric over its labels, as the process `name` reports it.
    pub async fn metric(&self, admin: &str, metric: &str) -> anyhow::Result<f64> {
        let text = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
        let values = text
            .lines()
            .filter(|line| line.split([' ', '{']).next() == Some(metric))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
