//! The NATS server that `up` starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Deserialize;
use tokio::process::Command;

use super::parent_death::signal_with_parent;
use super::supervisor::{Phase, Process, Supervisor};
use crate::exit::misuse;
use crate::locate;

/// The server's configuration, part of the executable so that it works wherever that is installed.
const CONFIGURATION: &str = include_str!("../../../deploy/nats.conf");

const START_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const REASON_LINES: usize = 10;

/// Sent to the server when `up` dies without stopping it: new clients are refused, and those there have a second or
/// more, while the stages drain, before they are sent away one by one.
const ORPHANED: Signal = Signal::USR2;

/// A NATS server for the stages.
pub struct Broker {
    /// Its URL.
    pub url: String,
    /// URL of its monitoring, when known.
    pub monitoring: Option<String>,
}

/// Where a server listens, as it writes into its ports file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Ports {
    nats: Vec<String>,
    monitoring: Vec<String>,
}

/// Starts a server on free ports and waits until it listens.
pub async fn start(run_dir: &Path, supervisor: &mut Supervisor) -> anyhow::Result<Broker> {
    let program = locate::nats_server().ok_or_else(|| {
        misuse("no `nats-server` under .deps/bin or on PATH: install it with `make setup`, or name a running one with `--nats`")
    })?;
    let folder = run_dir.join("nats");
    let ports_folder = folder.join("ports");
    if ports_folder.exists() {
        fs::remove_dir_all(&ports_folder)?;
    }
    fs::create_dir_all(&ports_folder)?;
    let configuration = folder.join("nats.conf");
    fs::write(&configuration, CONFIGURATION)?;

    let known: Arc<OnceLock<(u16, u16)>> = Arc::default();
    let command = command(program, configuration, folder.join("store"), ports_folder.clone(), known.clone());
    let slot = supervisor.start(Process {
        label: "nats".to_owned(),
        role: None,
        stop_at: Phase::Broker,
        command: Box::new(command),
        shows: |line| !line.contains(" [INF] "),
    });
    let listening = async {
        loop {
            match Ports::read(&ports_folder) {
                Some(ports) => return ports,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    let ports = tokio::time::timeout(START_DEADLINE, listening).await.map_err(|_| {
        anyhow::anyhow!(
            "the NATS server did not start within {START_DEADLINE:?}:{}",
            slot.tail.last(REASON_LINES)
        )
    })?;
    let (url, monitoring) = (first(&ports.nats)?, first(&ports.monitoring)?);
    known.get_or_init(|| (port(url), port(monitoring)));
    Ok(Broker { url: url.to_owned(), monitoring: Some(monitoring.to_owned()) })
}

/// The server's command line: free ports in its first life, the same ones in later lives, so that clients find it again.
fn command(
    program: PathBuf,
    configuration: PathBuf,
    store: PathBuf,
    ports_folder: PathBuf,
    known: Arc<OnceLock<(u16, u16)>>,
) -> impl Fn(schemas::InstanceId) -> Command + Send + Sync {
    move |_| {
        let (port, monitoring_port) =
            known.get().map_or(("-1".to_owned(), "-1".to_owned()), |(port, monitoring)| {
                (port.to_string(), monitoring.to_string())
            });
        let mut command = std::process::Command::new(&program);
        command.arg("-c").arg(&configuration).args(["-p", &port, "-m", &monitoring_port]);
        command.arg("-sd").arg(&store).arg("--ports_file_dir").arg(&ports_folder);
        signal_with_parent(&mut command, ORPHANED);
        command.into()
    }
}

impl Ports {
    /// The ports file in `folder`, once a server has written it whole.
    fn read(folder: &Path) -> Option<Self> {
        let file = fs::read_dir(folder)
            .ok()?
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|e| e == "ports"))?;
        serde_json::from_slice(&fs::read(file.path()).ok()?).ok()
    }
}

fn first(urls: &[String]) -> anyhow::Result<&str> {
    urls.first().map(String::as_str).context("the NATS server listens nowhere")
}

/// The port at the end of a URL.
fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_ports_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Ports::read(folder.path()), None);
        let file = folder.path().join("nats-server_1.ports");
        let whole = r#"{"nats":["nats://127.0.0.1:40987"],"monitoring":["http://127.0.0.1:37487"]}"#;
        fs::write(&file, &whole[..30]).unwrap();
        assert_eq!(Ports::read(folder.path()), None);
        fs::write(&file, whole).unwrap();
        let ports = Ports::read(folder.path()).unwrap();
        assert_eq!((port(&ports.nats[0]), port(&ports.monitoring[0])), (40987, 37487));
    }
}
