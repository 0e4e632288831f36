//! Faults: each is brought about, proven, and taken away again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use rustix::process::Signal;

use super::matrix::{BROKER, BROKER_OF_THREE, Fault};
use crate::cluster::{Cluster, Link, Proxy};

const STOPPED: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(4);
/// How late each read of a slow link is.
const LATE: Duration = Duration::from_millis(25);
const CUT: Duration = Duration::from_secs(5);
const RESETS: u64 = 3;
const BETWEEN_RESETS: Duration = Duration::from_millis(700);
const FULL: Duration = Duration::from_secs(3);
const KILLED_WITHIN: Duration = Duration::from_secs(2);
/// Above the longest drain.
const DRAINED_WITHIN: Duration = Duration::from_secs(35);
/// What fills the broker's memory.
const FILLER: &str = "chaos_filler";
/// Sizes of the messages that fill it, so that at last not even the smallest entry fits.
const FILLER_BYTES: [usize; 4] = [4 << 20, 64 << 10, 1 << 10, 64];

/// A fault that has happened.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Strike {
    /// The process.
    pub victim: String,
    /// When it began.
    #[serde(skip)]
    pub at: Instant,
    /// When it was taken away.
    #[serde(skip)]
    pub healed: Instant,
    /// What shows that it happened.
    pub proof: String,
}

/// Strikes `victim` with `fault`, proves it, waits as long as the fault lasts and takes it away.
pub async fn strike(cluster: &mut Cluster, victim: &str, fault: Fault) -> anyhow::Result<Strike> {
    let at = Instant::now();
    let target = victim.split('#').next().unwrap_or(victim);
    let proof = match (target, fault) {
        (BROKER, Fault::Kill) => restart_broker(cluster)?,
        (BROKER_OF_THREE, _) => kill_one_of_three(cluster, victim).await?,
        (BROKER, Fault::Full) => fill_broker(cluster).await?,
        (BROKER, Fault::Reset) => reset(cluster, None).await?,
        (BROKER, _) => hinder(cluster, None, Link::Cut, CUT).await?,
        (_, Fault::Kill) => kill(cluster, victim).await?,
        (_, Fault::Term) => terminate(cluster, victim).await?,
        (_, Fault::Stop) => stop(cluster, victim).await?,
        (_, Fault::Slow) => hinder(cluster, Some(victim), Link::Slow(LATE), SLOW).await?,
        (_, Fault::Cut) => hinder(cluster, Some(victim), Link::Cut, CUT).await?,
        (_, Fault::Drop) => drop_packets(cluster, victim).await?,
        (_, Fault::Reset) => reset(cluster, Some(victim)).await?,
        (_, Fault::Full) => bail!("`{victim}` has no memory for streams"),
    };
    Ok(Strike { victim: victim.to_owned(), at, healed: Instant::now(), proof })
}

async fn kill(cluster: &mut Cluster, victim: &str) -> anyhow::Result<String> {
    let process = cluster.get(victim)?;
    let pid = process.pid();
    process.signal(Signal::KILL)?;
    let status = process.ended(KILLED_WITHIN).await?;
    ensure!(status.signal() == Some(Signal::KILL.as_raw()), "`{victim}` ended with {status}");
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    cluster.spawn(victim)?;
    Ok(format!("{pid} ended: {status}"))
}

async fn terminate(cluster: &mut Cluster, victim: &str) -> anyhow::Result<String> {
    let process = cluster.get(victim)?;
    let (pid, asked) = (process.pid(), Instant::now());
    process.signal(Signal::TERM)?;
    let status = process.ended(DRAINED_WITHIN).await?;
    ensure!(status.success(), "`{victim}` drained and ended with {status}:\n{}", process.log_tail());
    let drained = asked.elapsed().as_secs_f64();
    cluster.spawn(victim)?;
    Ok(format!("{pid} ended: {status}, {drained:.1} s after SIGTERM"))
}

async fn stop(cluster: &mut Cluster, victim: &str) -> anyhow::Result<String> {
    let process = cluster.get(victim)?;
    process.stop()?;
    let until = tokio::time::Instant::now() + STOPPED;
    while tokio::time::Instant::now() < until {
        ensure!(process.state()? == 'T', "`{victim}` has not stayed stopped");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    process.signal(Signal::CONT)?;
    Ok(format!("{} was in state T for {} s", process.pid(), STOPPED.as_secs()))
}

/// The link of one process, or all.
fn links<'a>(cluster: &'a Cluster, victim: Option<&'a str>) -> impl Iterator<Item = &'a Proxy> {
    let of_victim = move |name: &str| victim.is_none_or(|victim| name == victim);
    cluster.proxies().iter().filter(move |(name, _)| of_victim(name)).map(|it| it.1)
}

/// Closes the connections of one process, or of all, some times.
async fn reset(cluster: &Cluster, victim: Option<&str>) -> anyhow::Result<String> {
    let closed = || links(cluster, victim).map(Proxy::closed).sum::<u64>();
    let before = closed();
    for _ in 0..RESETS {
        links(cluster, victim).for_each(Proxy::reset);
        tokio::time::sleep(BETWEEN_RESETS).await;
    }
    let closed = closed() - before;
    ensure!(closed >= RESETS, "only {closed} connections were closed");
    Ok(format!("{closed} connections were closed, {RESETS} times"))
}

/// Hinders the link of one process, or of all.
async fn hinder(
    cluster: &Cluster,
    victim: Option<&str>,
    link: Link,
    time: Duration,
) -> anyhow::Result<String> {
    let proxies = || links(cluster, victim);
    let before: u64 = proxies().map(|proxy| proxy.hindered_bytes()).sum();
    proxies().for_each(|proxy| proxy.set_link(link));
    tokio::time::sleep(time).await;
    proxies().for_each(|proxy| proxy.set_link(Link::Clear));
    let bytes = proxies().map(|proxy| proxy.hindered_bytes()).sum::<u64>() - before;
    ensure!(bytes > 0, "no byte was hindered");
    Ok(format!("{bytes} bytes met {link:?} for {} s", time.as_secs()))
}

/// Cuts a process off from everything, its clients too.
async fn drop_packets(cluster: &Cluster, victim: &str) -> anyhow::Result<String> {
    let namespace = cluster.namespace(victim)?;
    namespace.lose()?;
    tokio::time::sleep(CUT).await;
    let dropped = namespace.dropped()?;
    namespace.carry()?;
    ensure!(dropped > 0, "no packet was dropped");
    Ok(format!("{dropped} packets were dropped within {} s", CUT.as_secs()))
}

/// Kills the server of the cluster that has the victim's number; starts it again some seconds later.
async fn kill_one_of_three(cluster: &Cluster, victim: &str) -> anyhow::Result<String> {
    let number = victim.rsplit('#').next().context("a server has a number")?.parse()?;
    let pid = cluster.nats.kill(number)?;
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    tokio::time::sleep(CUT).await;
    cluster.nats.start_again(number)?;
    cluster.nats.healthy().await?;
    Ok(format!("{pid} was killed, and another was there after {} s", CUT.as_secs()))
}

fn restart_broker(cluster: &Cluster) -> anyhow::Result<String> {
    let before = cluster.nats.pid();
    cluster.nats.kill_and_start()?;
    ensure!(!Path::new(&format!("/proc/{before}")).exists(), "process {before} is still there");
    Ok(format!("{before} was killed, {} took its place", cluster.nats.pid()))
}

/// Fills the broker's memory for streams until it refuses the smallest message, for some seconds.
async fn fill_broker(cluster: &Cluster) -> anyhow::Result<String> {
    let jetstream = async_nats::jetstream::new(async_nats::connect(cluster.nats.url()).await?);
    let config = Config {
        name: FILLER.into(),
        subjects: vec![FILLER.into()],
        storage: StorageType::Memory,
        ..Config::default()
    };
    let stream = jetstream.create_stream(config).await?;
    let fill = async || -> anyhow::Result<()> {
        for bytes in FILLER_BYTES {
            while jetstream.publish(FILLER, Bytes::from(vec![0; bytes])).await?.await.is_ok() {}
        }
        Ok(())
    };
    fill().await?;
    let until = tokio::time::Instant::now() + FULL;
    let mut refused = 1;
    // Others free some memory meanwhile, which is taken again.
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        fill().await?;
        refused += 1;
    }
    let held = stream.get_info().await.context("filler")?.state.bytes;
    jetstream.delete_stream(FILLER).await?;
    Ok(format!(
        "{} MiB of filler, {refused} times in {} s nothing more was taken",
        held >> 20,
        FULL.as_secs()
    ))
}
