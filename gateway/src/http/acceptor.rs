//! Accepts connections: a bounded number, without Nagle's delay, and with a close that is noticed at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pause after a failed accept, e.g. for want of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Accepts at most a fixed number of connections; further ones wait in the listener's backlog.
pub struct DoorAcceptor {
    listener: TcpListener,
    local: LocalAddr,
    permits: Arc<Semaphore>,
}

impl DoorAcceptor {
    /// Accepts up to `connections_max` at a time from `listener`.
    pub fn new(listener: TcpListener, connections_max: usize) -> io::Result<Self> {
        let local = LocalAddr(listener.local_addr()?.into());
        Ok(Self { listener, local, permits: Arc::new(Semaphore::new(connections_max)) })
    }
}

impl Acceptor for DoorAcceptor {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let accepted = self.listener.accept().await.and_then(|(stream, remote)| {
            stream.set_nodelay(true)?;
            Ok((stream, remote))
        });
        match accepted {
            Ok((stream, remote)) => {
                let connection = Connection { stream, _permit: permit };
                Ok((connection, self.local.clone(), RemoteAddr(remote.into()), Scheme::HTTP))
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                // The server asks again at once.
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                Err(error)
            }
        }
    }
}

/// A connection whose end of input is an error.
///
/// hyper lets a handler run on after an ordinary close, since the client might still read; an error makes it drop the
/// handler, and with it the answer, at once. So a client that shuts down only its sending side is cut off, too: HTTP
/// clients do not.
pub struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let had_room = buf.remaining() > 0;
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && had_room && buf.filled().len() == before;
        if is_end { Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) } else { polled }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(connections_max: usize) -> (DoorAcceptor, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (DoorAcceptor::new(listener, connections_max).unwrap(), address)
    }

    #[tokio::test]
    async fn an_ordinary_close_reads_as_a_reset() {
        let (mut acceptor, address) = pair(1).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut connection, ..) = acceptor.accept().await.unwrap();
        assert!(connection.stream.nodelay().unwrap());
        client.write_all(b"x").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
        drop(client);
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_one_to_end() {
        let (mut acceptor, address) = pair(1).await;
        let _clients =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, ..) = acceptor.accept().await.unwrap();
        assert_eq!(acceptor.permits.available_permits(), 0);
        drop(first);
        acceptor.accept().await.unwrap();
    }
}
