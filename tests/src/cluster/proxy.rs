//! A TCP proxy between one process and the broker, which can keep a message from it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

const READ_BYTES: usize = 64 * 1024;

/// A proxy; dropped, it ends with its connections.
pub struct Proxy {
    /// Where the process connects.
    pub address: SocketAddr,
    trap: watch::Sender<Arc<Vec<u8>>>,
    caught: Arc<Semaphore>,
    listening: AbortHandle,
}

impl Proxy {
    /// A proxy to the broker at `upstream`.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (trap, trapped) = watch::channel(Arc::default());
        let caught = Arc::new(Semaphore::new(0));
        let listening = tokio::spawn(listen(listener, upstream, trapped, caught.clone())).abort_handle();
        Ok(Self { address, trap, caught, listening })
    }

    /// From here on, a connection on which these bytes go, either way, stands still before them.
    pub fn trap(&self, bytes: &[u8]) {
        self.trap.send_replace(Arc::new(bytes.to_vec()));
    }

    /// Waits until the bytes were on their way once more.
    pub async fn caught(&self) -> anyhow::Result<()> {
        self.caught.acquire().await?.forget();
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(
    listener: TcpListener,
    upstream: SocketAddr,
    trap: watch::Receiver<Arc<Vec<u8>>>,
    caught: Arc<Semaphore>,
) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    while let Ok((process, _)) = listener.accept().await {
        let (trap, caught) = (trap.clone(), caught.clone());
        connections.spawn(async move {
            // A connection that fails is one that its process or the broker has closed.
            let _ = connect(process, upstream, trap, caught).await;
        });
    }
}

async fn connect(
    process: TcpStream,
    upstream: SocketAddr,
    trap: watch::Receiver<Arc<Vec<u8>>>,
    caught: Arc<Semaphore>,
) -> std::io::Result<()> {
    let broker = TcpStream::connect(upstream).await?;
    process.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_process, to_process) = process.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        ended = carry(from_broker, to_process, &trap, &caught) => ended,
        ended = carry(from_process, to_broker, &trap, &caught) => ended,
    }
}

/// Passes on what comes, until the bytes of the trap are in it.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    trap: &watch::Receiver<Arc<Vec<u8>>>,
    caught: &Semaphore,
) -> std::io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    // The end of what went before: what is looked for may come in two parts.
    let mut seen: Vec<u8> = Vec::new();
    loop {
        let n = from.read(&mut bytes).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        seen.extend_from_slice(&bytes[..n]);
        let trap = trap.borrow().clone();
        if !trap.is_empty() && seen.windows(trap.len()).any(|window| window == trap.as_slice()) {
            caught.add_permits(1);
            return std::future::pending().await;
        }
        seen.drain(..seen.len().saturating_sub(trap.len()));
        to.write_all(&bytes[..n]).await?;
    }
}
