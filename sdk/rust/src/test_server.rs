//! A server for tests: every request gets the bytes that a function has for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::client::Client;

/// A response that ends with its connection; `headers` are lines.
pub fn response(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and the headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A server that runs until its runtime ends.
pub struct Server {
    url: String,
    log: Arc<Log>,
}

/// How a response is written.
#[derive(Clone, Copy)]
pub enum Manner {
    /// At once, and then the connection is closed.
    Closing,
    /// At once, and it is left to the client to close.
    Open,
    /// In pieces of this many bytes, with so much time before each.
    Slow(usize, Duration),
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Request>>,
    closed: Notify,
}

impl Request {
    /// The path, with its query.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl Server {
    /// Answers with what `answer` writes for the request and the number of those before it, then closes the connection.
    pub async fn start(answer: impl Fn(&Request, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_in(Manner::Closing, answer).await
    }

    /// The same in another manner.
    pub async fn start_in(
        manner: Manner,
        answer: impl Fn(&Request, usize) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Log::default());
        let (answer, serving) = (Arc::new(answer), log.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, answer.clone(), serving.clone(), manner));
            }
        });
        Self { url, log }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    /// Every request until now.
    pub fn asked(&self) -> Vec<Request> {
        self.log.asked.lock().unwrap().clone()
    }

    /// Waits until a client has closed its connection.
    pub async fn closed(&self) {
        self.log.closed.notified().await;
    }
}

async fn serve(
    mut connection: TcpStream,
    answer: Arc<impl Fn(&Request, usize) -> Vec<u8>>,
    log: Arc<Log>,
    manner: Manner,
) {
    // A client may leave before it has asked.
    let Some(request) = read(&mut connection).await else { return };
    let before = {
        let mut asked = log.asked.lock().unwrap();
        asked.push(request.clone());
        asked.len() - 1
    };
    let bytes = answer(&request, before);
    // Nor must it wait for the end.
    let _ = match manner {
        Manner::Slow(size, pause) => write_slowly(&mut connection, &bytes, size, pause).await,
        Manner::Closing | Manner::Open => connection.write_all(&bytes).await,
    };
    if !matches!(manner, Manner::Open) {
        let _ = connection.shutdown().await;
    }
    let _ = connection.read(&mut [0; 1]).await;
    log.closed.notify_one();
}

async fn write_slowly(
    connection: &mut TcpStream,
    bytes: &[u8],
    size: usize,
    pause: Duration,
) -> std::io::Result<()> {
    for piece in bytes.chunks(size) {
        tokio::time::sleep(pause).await;
        connection.write_all(piece).await?;
    }
    Ok(())
}

/// Reads the whole request, for a connection that is closed before that is reset.
async fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let request = Request { head: head.to_lowercase(), body: body.to_owned() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        if request.body.len() >= length {
            return Some(request);
        }
    }
}
