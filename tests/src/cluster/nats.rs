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

/// A running nats-server.
pub struct Nats {
    process: Mutex<Process>,
    address: SocketAddr,
    monitor: SocketAddr,
    folder: PathBuf,
}

impl Nats {
    /// Starts a server with the configuration that `tokenway up` uses, on free ports, with its store in `folder`.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (address, monitor) = (free_address()?, free_address()?);
        let process = Mutex::new(start(address, monitor, folder)?);
        Ok(Self { process, address, monitor, folder: folder.to_owned() })
    }

    /// Kills the server and starts another one in its place, whose memory is empty.
    pub fn kill_and_start(&self) -> anyhow::Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill()?;
        *process = start(self.address, self.monitor, &self.folder)?;
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

    /// The connections that it reports at `/connz`.
    pub async fn connections(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let report: serde_json::Value =
            reqwest::get(format!("http://{}/connz", self.monitor)).await?.json().await?;
        report["connections"].as_array().cloned().context("`/connz` has no connections")
    }
}

fn start(address: SocketAddr, monitor: SocketAddr, folder: &Path) -> anyhow::Result<Process> {
    let program = repository().join(".deps/bin/nats-server");
    ensure!(program.is_file(), "`{}` is missing: make setup", program.display());
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(repository().join("deploy/nats.conf"))
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
