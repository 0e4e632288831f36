//! A TCP proxy between one process and the broker, which can keep a message from it, slow the link or cut it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

const READ_BYTES: usize = 64 * 1024;

/// How a link carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// At once.
    #[default]
    Clear,
    /// Each read of up to 64 KiB is passed on after this time.
    Slow(Duration),
    /// Not at all, on connections that stay open.
    Cut,
}

/// A proxy; dropped, it ends with its connections.
pub struct Proxy {
    /// Where the process connects.
    pub address: SocketAddr,
    trap: watch::Sender<Arc<Vec<u8>>>,
    link: watch::Sender<Link>,
    resets: watch::Sender<u64>,
    seen: Arc<Seen>,
    listening: AbortHandle,
}

/// What has happened to the bytes of a link.
#[derive(Debug)]
struct Seen {
    caught: Semaphore,
    /// Bytes that came while the link was not clear.
    hindered: AtomicU64,
    /// Connections that the proxy has closed.
    closed: AtomicU64,
}

/// One direction's view of its proxy.
#[derive(Clone)]
struct Rules {
    trap: watch::Receiver<Arc<Vec<u8>>>,
    link: watch::Receiver<Link>,
    resets: watch::Receiver<u64>,
    seen: Arc<Seen>,
}

impl Proxy {
    /// A proxy to the broker at `upstream`, on a free port of this machine's address `at`.
    pub async fn start(at: IpAddr, upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((at, 0)).await?;
        let address = listener.local_addr()?;
        let (trap, trapped) = watch::channel(Arc::default());
        let (link, linked) = watch::channel(Link::Clear);
        let (resets, reset) = watch::channel(0);
        let seen = Seen { caught: Semaphore::new(0), hindered: AtomicU64::new(0), closed: AtomicU64::new(0) };
        let seen = Arc::new(seen);
        let rules = Rules { trap: trapped, link: linked, resets: reset, seen: seen.clone() };
        let listening = tokio::spawn(listen(listener, upstream, rules)).abort_handle();
        Ok(Self { address, trap, link, resets, seen, listening })
    }

    /// From here on, a connection on which these bytes go, either way, stands still before them.
    pub fn trap(&self, bytes: &[u8]) {
        self.trap.send_replace(Arc::new(bytes.to_vec()));
    }

    /// Waits until the bytes were on their way once more.
    pub async fn caught(&self) -> anyhow::Result<()> {
        self.seen.caught.acquire().await?.forget();
        Ok(())
    }

    /// How the link carries bytes from here on, both ways, on all its connections.
    pub fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Closes all connections, with what is on its way in them. New ones are taken at once.
    pub fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }

    /// Connections that were closed by [`Proxy::reset`].
    pub fn closed(&self) -> u64 {
        self.seen.closed.load(Ordering::Relaxed)
    }

    /// Bytes that came while the link was slow or cut, since the proxy started.
    pub fn hindered_bytes(&self) -> u64 {
        self.seen.hindered.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, upstream: SocketAddr, rules: Rules) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    while let Ok((process, _)) = listener.accept().await {
        let rules = rules.clone();
        connections.spawn(async move {
            // A connection that fails is one that its process or the broker has closed.
            let _ = connect(process, upstream, rules).await;
        });
    }
}

async fn connect(process: TcpStream, upstream: SocketAddr, mut rules: Rules) -> std::io::Result<()> {
    rules.resets.mark_unchanged();
    let broker = TcpStream::connect(upstream).await?;
    process.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_process, to_process) = process.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        ended = carry(from_broker, to_process, rules.clone()) => ended,
        ended = carry(from_process, to_broker, rules.clone()) => ended,
        Ok(()) = rules.resets.changed() => {
            rules.seen.closed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// Passes on what comes, as the link allows, until the bytes of the trap are in it.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: Rules) -> std::io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    // The end of what went before: what is looked for may come in two parts.
    let mut seen: Vec<u8> = Vec::new();
    loop {
        let n = from.read(&mut bytes).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        seen.extend_from_slice(&bytes[..n]);
        let trap = rules.trap.borrow().clone();
        if !trap.is_empty() && seen.windows(trap.len()).any(|window| window == trap.as_slice()) {
            rules.seen.caught.add_permits(1);
            return std::future::pending().await;
        }
        seen.drain(..seen.len().saturating_sub(trap.len()));
        rules.hinder(n as u64).await;
        to.write_all(&bytes[..n]).await?;
    }
}

impl Rules {
    /// Waits as long as the link makes `bytes` wait.
    async fn hinder(&mut self, bytes: u64) {
        let link = *self.link.borrow();
        if link == Link::Clear {
            return;
        }
        self.seen.hindered.fetch_add(bytes, Ordering::Relaxed);
        match link {
            Link::Slow(delay) => tokio::time::sleep(delay).await,
            // The proxy's end ends its connections, too.
            _ => drop(self.link.wait_for(|link| *link != Link::Cut).await),
        }
    }
}
