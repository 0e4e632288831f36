//! A network namespace for one process: a wire of its own to this machine, which can lose every packet.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// Networks of four addresses that wires are given, in 10.213.0.0/16.
const NETWORKS: u32 = 1 << 14;

/// A namespace with one wire to the machine's own; dropped, both go.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// This machine's end of the wire.
    outer: End,
    /// The namespace's.
    inner: End,
}

#[derive(Debug)]
struct End {
    device: String,
    address: Ipv4Addr,
}

/// What `tc` says of a queue.
#[derive(Debug, Deserialize)]
struct Queue {
    kind: String,
    drops: u64,
}

impl Namespace {
    /// Whether this process may make one: it needs root, `ip` and `tc`. The error says what is missing.
    pub fn allowed() -> anyhow::Result<()> {
        let namespace = Self::new()?;
        namespace.lose()?;
        namespace.carry()
    }

    /// A namespace, its wire up.
    pub fn new() -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Other harnesses have other networks, as far as there are enough.
        let network = (process.wrapping_mul(64).wrapping_add(number) % NETWORKS) << 2;
        let end = |side: &str, host: u32| End {
            device: format!("tw{process}{side}{number}"),
            address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 213, 0, 0)) + network + host),
        };
        let namespace =
            Self { name: format!("tokenway-{process}-{number}"), outer: end("a", 1), inner: end("b", 2) };
        let Self { name, outer, inner } = &namespace;
        ip(["netns", "add", name])?;
        ip(["link", "add", &outer.device, "type", "veth", "peer", "name", &inner.device, "netns", name])?;
        ip(["addr", "add", &format!("{}/30", outer.address), "dev", &outer.device])?;
        ip(["-n", name, "addr", "add", &format!("{}/30", inner.address), "dev", &inner.device])?;
        ip(["link", "set", &outer.device, "up"])?;
        ip(["-n", name, "link", "set", &inner.device, "up"])?;
        ip(["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Where this machine is for a process in it.
    pub fn outside(&self) -> IpAddr {
        self.outer.address.into()
    }

    /// Where a process in it is for this machine.
    pub fn inside(&self) -> IpAddr {
        self.inner.address.into()
    }

    /// `command`, in it. The process is the command's own.
    pub fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("ip");
        entered.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        entered.envs(set);
        entered
    }

    /// From here on, every packet on the wire is dropped, both ways.
    pub fn lose(&self) -> anyhow::Result<()> {
        tc(["qdisc", "replace", "dev", &self.outer.device, "root", "blackhole"])?;
        tc(["-n", &self.name, "qdisc", "replace", "dev", &self.inner.device, "root", "blackhole"])?;
        Ok(())
    }

    /// Packets that were dropped since [`Self::lose`].
    pub fn dropped(&self) -> anyhow::Result<u64> {
        let outer = tc(["-j", "-s", "qdisc", "show", "dev", &self.outer.device])?;
        let inner = tc(["-j", "-s", "-n", &self.name, "qdisc", "show", "dev", &self.inner.device])?;
        let mut dropped = 0;
        for queues in [outer, inner] {
            let queues: Vec<Queue> = serde_json::from_str(&queues).context("what `tc` says")?;
            let lossy = queues.iter().filter(|queue| queue.kind == "blackhole");
            dropped += lossy.map(|queue| queue.drops).sum::<u64>();
        }
        Ok(dropped)
    }

    /// From here on, the wire carries packets again.
    pub fn carry(&self) -> anyhow::Result<()> {
        tc(["qdisc", "del", "dev", &self.outer.device, "root"])?;
        tc(["-n", &self.name, "qdisc", "del", "dev", &self.inner.device, "root"])?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that was not made whole may lack either.
        let _ = ip(["link", "del", &self.outer.device]);
        let _ = ip(["netns", "del", &self.name]);
    }
}

fn ip<const N: usize>(arguments: [&str; N]) -> anyhow::Result<String> {
    run("ip", arguments)
}

fn tc<const N: usize>(arguments: [&str; N]) -> anyhow::Result<String> {
    run("tc", arguments)
}

fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().with_context(|| format!("`{program}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
