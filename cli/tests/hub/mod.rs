//! A Hugging Face Hub of one repository, in threads of the test. Requests and answers are those of the Hub's API; what it answers can
//! be changed on its way out.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

/// What a client asked, and how many bytes of body it was sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub sent: usize,
}

/// An answer; `cut` is after how many bytes of the body the connection ends.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None }
    }
}

/// Files by path; those of weights are in the large file storage.
#[derive(Debug, Clone, Default)]
pub struct Repository(pub BTreeMap<String, Vec<u8>>);

impl Repository {
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.to_owned(), content.into());
        self
    }

    /// As the Hub lists them with `blobs=true`.
    pub fn listing(&self) -> Value {
        let siblings: Vec<Value> = self.0.iter().map(|(path, content)| listed(path, content)).collect();
        json!({ "id": "org/x", "sha": COMMIT, "siblings": siblings })
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let file = request.path.strip_prefix(&format!("/org/x/resolve/{COMMIT}/"));
        if request.path == "/api/models/org/x/revision/main?blobs=true" {
            return Answer::new(200, self.listing().to_string());
        }
        match file.and_then(|file| self.0.get(&unescaped(file))) {
            Some(content) => ranged(request, content),
            None => Answer::new(404, "Entry not found"),
        }
    }
}

fn listed(path: &str, content: &[u8]) -> Value {
    let mut git = Sha1::new();
    git.update(format!("blob {}\0", content.len()));
    git.update(content);
    let blob = format!("{:x}", git.finalize());
    let mut file = json!({ "rfilename": path, "size": content.len(), "blobId": blob });
    if path.ends_with(".safetensors") || path.ends_with(".gguf") {
        let sha256 = format!("{:x}", Sha256::digest(content));
        file["lfs"] = json!({ "sha256": sha256, "size": content.len(), "pointerSize": 134 });
    }
    file
}

fn ranged(request: &Request, content: &[u8]) -> Answer {
    let Some(from) = request.range.as_deref() else { return Answer::new(200, content) };
    let from: usize = from.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    let mut answer = Answer::new(206, &content[from..]);
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    answer.headers.push(("Content-Range", range));
    answer
}

fn unescaped(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// A server on a free port of 127.0.0.1, for as long as the test runs.
pub struct Hub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), seen.clone());
                // A client that leaves ends its connection's thread.
                std::thread::spawn(move || talk(stream, &*answer, &seen));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Those for files.
    pub fn of_files(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| !request.path.starts_with("/api/")).collect()
    }
}

fn talk(stream: TcpStream, answer: &dyn Fn(&Request) -> Answer, seen: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let request = read(&mut reader)?;
        let answer = answer(&request);
        let index = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        answer.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        writer.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
        for piece in body.chunks(64 << 10) {
            writer.write_all(piece).ok()?;
            seen.lock().unwrap()[index].sent += piece.len();
        }
        if answer.cut.is_some() {
            return None;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
    });
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": ").map(|(a, b)| (a.to_lowercase(), b.to_owned())))
        .collect();
    let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    Some(Request { path, range: header("range"), authorization: header("authorization"), sent: 0 })
}
