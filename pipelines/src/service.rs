//! The shell of every process: settings, logs, bus, presence, signals, exit code.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser};
use schemas::{Fingerprint, InstanceId, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::announcement::Announcement;
use crate::bus::{self, Bus};
use crate::graph::{Overrides, Pipeline};
use crate::peers::Peers;
use crate::presence::{self, Identity, Pulse, Watch};
use crate::runner::{self, Links, Place};
use crate::settings;
use crate::stage::Stage;
use crate::{admin, telemetry};

/// Release and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TOKENWAY_COMMIT"), ")");

/// Exit code of a process whose settings or model cannot be used: starting it again will not help.
pub const EXIT_UNUSABLE: u8 = 2;

const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGREED_WITHIN: Duration = Duration::from_secs(60);
/// Longest time from a signal to the end of the process: above every drain deadline.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(75);
const PRESENCE_DEADLINE: Duration = Duration::from_secs(30);

/// What a stage is built from.
pub struct Setup {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// What this process does in it.
    pub role: Role,
}

/// A stage that is ready to run.
pub struct Loaded {
    /// The pipeline's fingerprint.
    pub fp: Fingerprint,
    /// Longest sequence in tokens.
    pub context_length: u32,
    /// Whether the model sees. A pipeline may name vision-encode although its model does not.
    pub sees: bool,
    /// The stage.
    pub stage: Box<dyn Stage>,
}

#[derive(Parser)]
struct StageArgs {
    #[command(flatten)]
    stage: settings::Stage,
}

/// The `main` of a stage: reads the command line, builds the stage with `load`, runs it until SIGTERM.
///
/// `kind` is the stage's role; which shard it is, for shard-forward, comes from the command line.
pub fn main(kind: Role, load: impl FnOnce(&Setup) -> anyhow::Result<Loaded>) -> ExitCode {
    let command = StageArgs::command().name(kind.binary()).version(VERSION);
    let args = match StageArgs::from_arg_matches(&command.get_matches()) {
        Ok(args) => args.stage,
        Err(error) => error.exit(),
    };
    telemetry::init_logs(args.process.log_format);
    let (setup, loaded) = match prepare(kind, &args, load) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("{}: {error:#}", kind.binary());
            return ExitCode::from(EXIT_UNUSABLE);
        }
    };
    finish(setup.role, serve_stage(args.process, setup, loaded))
}

fn prepare(
    kind: Role,
    args: &settings::Stage,
    load: impl FnOnce(&Setup) -> anyhow::Result<Loaded>,
) -> anyhow::Result<(Setup, Loaded)> {
    let pipeline = Pipeline::read(&args.pipeline, Overrides::default())?;
    let role = match (kind, args.shard) {
        (Role::ShardForward(_), Some(shard)) if shard < pipeline.shards() => Role::ShardForward(shard),
        (Role::ShardForward(_), Some(shard)) => {
            anyhow::bail!(
                "`--shard` is {shard}, the pipeline has {} shards, counted from 0",
                pipeline.shards()
            )
        }
        (Role::ShardForward(_), None) if pipeline.shards() == 1 => Role::ShardForward(0),
        (Role::ShardForward(_), None) => {
            anyhow::bail!("`--shard N` is needed: the pipeline has {} shards", pipeline.shards())
        }
        (_, Some(_)) => anyhow::bail!("`--shard` is for shard-forward only"),
        (kind, None) => kind,
    };
    let setup = Setup { pipeline, role };
    let loaded = load(&setup)?;
    Ok((setup, loaded))
}

/// Turns the end of a process into its exit code, with the reason in its log.
pub fn finish(role: Role, ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%role, error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

fn serve_stage(process: settings::Process, setup: Setup, loaded: Loaded) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown_signal(process.supervised)?;
        let Some(bus) = connect(&process.nats, setup.role.binary(), &shutdown).await else { return Ok(()) };
        let announcement = Announcement::new(&setup.pipeline, loaded.fp, loaded.context_length, loaded.sees);
        if once_agreed(|| announcement.put(&bus), &shutdown).await?.is_none() {
            return Ok(());
        }
        let place = Place {
            instance: process.instance.unwrap_or_else(|| InstanceId(rand::random())),
            role: setup.role,
            fp: loaded.fp,
            announcement,
        };
        let identity = Identity {
            instance: place.instance,
            role: place.role,
            fp: Some(place.fp),
            compute: compute(&setup.pipeline, setup.role),
            admin: None,
        };
        let presence = Presence::start(&process, identity).await?;
        tracing::info!(role = %place.role, instance = %place.instance, fp = %place.fp, "started");
        let links = Links {
            pulse: presence.pulse.clone(),
            peers: presence.peers.clone(),
            suspects: presence.suspects.clone(),
        };
        // Open until it has said how it leaves: whoever finds the connection closed takes it for dead.
        let connection = bus.clone();
        let ended = runner::run(bus, loaded.stage, place, links, shutdown).await;
        presence.stop();
        drop(connection);
        tracing::info!(role = %setup.role, "stopped");
        ended
    })
}

/// Connects, waiting for a broker that is not there yet; none when told to stop meanwhile.
pub async fn connect(url: &str, name: &str, shutdown: &CancellationToken) -> Option<Bus> {
    let mut told = false;
    loop {
        let attempt = tokio::select! {
            attempt = Bus::connect(url, name) => attempt,
            () = shutdown.cancelled() => return None,
        };
        match attempt {
            Ok(bus) => return Some(bus),
            Err(error) if !told => {
                tracing::warn!(error = format!("{error:#}"), "waiting for the bus");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
    }
}

/// What `ask` gets of the broker's streams, asked again while the broker does not answer: the servers of a cluster may have no leader
/// yet. None when told to stop meanwhile; fails with what the broker answers, and when it does not for long.
pub async fn once_agreed<T>(
    ask: impl AsyncFn() -> anyhow::Result<T>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<T>> {
    let until = Instant::now() + AGREED_WITHIN;
    loop {
        let answer = tokio::select! {
            answer = ask() => answer,
            () = shutdown.cancelled() => return Ok(None),
        };
        match answer {
            Ok(agreed) => return Ok(Some(agreed)),
            Err(error) if bus::is_answer(&error) || Instant::now() >= until => return Err(error),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the broker does not answer yet"),
        }
        tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
    }
}

/// The host and the processors or device that a role computes on.
fn compute(pipeline: &Pipeline, role: Role) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let device = match role {
        Role::ShardForward(_) => pipeline.stages.shard_forward.device.as_str(),
        Role::VisionEncode => pipeline.stages.vision_encode.as_ref().map_or("cpu", |stage| &stage.device),
        _ => "cpu",
    };
    match device {
        "cpu" => format!("{host}/cpu/{}", allowed_processors()),
        device => format!("{host}/{device}"),
    }
}

fn allowed_processors() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map_or_else(|| "all".to_owned(), |list| list.trim().to_owned())
}

/// A token that SIGTERM, SIGINT or (when supervised) the end of standard input cancels; a second signal exits at once, and
/// so does a process that has not ended [`SHUTDOWN_DEADLINE`] later.
pub fn shutdown_signal(supervised: bool) -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signalled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if signalled.is_cancelled() {
                std::process::exit(1);
            }
            signalled.cancel();
        }
    });
    let cancelled = token.clone();
    tokio::spawn(async move {
        cancelled.cancelled().await;
        // On a thread of its own: whatever keeps the process from ending may keep its runtime too.
        let watchdog = std::thread::Builder::new().name("watchdog".into()).spawn(|| {
            std::thread::sleep(SHUTDOWN_DEADLINE);
            tracing::error!("still running {SHUTDOWN_DEADLINE:?} after it was told to end");
            std::process::exit(1);
        });
        if let Err(error) = watchdog {
            tracing::error!(%error, "no watchdog");
        }
    });
    if supervised {
        let orphaned = token.clone();
        std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            // Whether it ends or breaks, nobody holds the other side any more.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            orphaned.cancel();
        })?;
    }
    Ok(token)
}

/// The presence thread of a process.
pub struct Presence {
    /// What the working thread shows.
    pub pulse: Pulse,
    /// Who is alive.
    pub peers: watch::Receiver<Peers>,
    /// Where to report those who cannot be reached.
    pub suspects: mpsc::Sender<InstanceId>,
    /// This process's metrics.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Presence {
    /// Starts the thread and waits until it hears others; it announces `identity` once the pulse has been used.
    pub async fn start(process: &settings::Process, identity: Identity) -> anyhow::Result<Self> {
        let metrics = telemetry::init_metrics()?;
        let pulse = Pulse::default();
        let stop = CancellationToken::new();
        let (ready, started) = oneshot::channel();
        let rendered = metrics.clone();
        let thread = std::thread::Builder::new().name("presence".into()).spawn({
            let (process, pulse, stop) = (process.clone(), pulse.clone(), stop.clone());
            move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return tracing::error!(%error, "presence runtime"),
                };
                let ended = runtime.block_on(attend(process, identity, pulse, rendered, ready, stop));
                if let Err(error) = ended {
                    tracing::error!(error = format!("{error:#}"), "presence ended");
                }
            }
        })?;
        let (peers, suspects) = tokio::time::timeout(PRESENCE_DEADLINE, started)
            .await
            .context("presence thread did not start in time")?
            .context("presence thread did not start")?;
        Ok(Self { pulse, peers, suspects, metrics, stop, thread })
    }

    /// Says goodbye and ends the thread.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("presence thread panicked");
        }
    }
}

type Heard = (watch::Receiver<Peers>, mpsc::Sender<InstanceId>);

async fn attend(
    process: settings::Process,
    mut identity: Identity,
    pulse: Pulse,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    ready: oneshot::Sender<Heard>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(address) = process.admin {
        let bound = admin::serve(address, metrics.clone(), stop.clone()).await?;
        identity.admin = Some(bound.to_string());
    }
    let bus = Bus::connect(&process.nats, &format!("{} presence", identity.role.binary())).await?;
    let watch = Watch::start(&bus).await?;
    // The receiver is gone only when the process is ending already.
    let _ = ready.send((watch.subscribe(), watch.suspects()));
    let upkeep = async {
        loop {
            tokio::time::sleep(telemetry::UPKEEP_EVERY).await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        ended = presence::announce(&bus, identity, pulse, stop) => ended,
        () = upkeep => Ok(()),
    }
}
