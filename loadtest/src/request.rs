//! One streamed request, with the time of each piece.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// A server and the model to ask.
#[derive(Debug, Clone)]
pub struct Target {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
    /// Model id.
    pub model: String,
    /// Longest time of one request.
    pub deadline: Duration,
}

/// How one request went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// When its first text came.
    pub first: Option<Instant>,
    /// Times between consecutive pieces of text.
    pub gaps: Vec<Duration>,
    /// Tokens of the prompt, as the server counts.
    pub prompt_tokens: u64,
    /// Tokens of the answer, as the server counts.
    pub completion_tokens: u64,
    /// When it ended.
    pub ended: Instant,
    /// Why it failed: an HTTP status, or `connect`, `broken`, `timeout`, `error` within a stream.
    pub error: Option<String>,
    /// Seconds after which a refused one may try again, as `Retry-After` says.
    pub retry_after: Option<u64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Target {
    /// The server at `url`, without `/v1`.
    pub fn new(url: &str, model: &str, key: Option<String>, deadline: Duration) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { http, url, key, model: model.to_owned(), deadline })
    }

    /// Sends `body` to `path` and reads the answer to its end.
    pub async fn ask(&self, path: &str, body: &Value) -> Outcome {
        let mut reading = Reading::new();
        let error = match tokio::time::timeout(self.deadline, self.read(path, body, &mut reading)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some("timeout".to_owned()),
        };
        let Reading { outcome, .. } = reading;
        Outcome { ended: Instant::now(), error, ..outcome }
    }

    async fn read(&self, path: &str, body: &Value, reading: &mut Reading) -> Result<(), String> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let name = |error: reqwest::Error| {
            if error.is_connect() { "connect".to_owned() } else { "broken".to_owned() }
        };
        let mut response = request.send().await.map_err(name)?;
        if !response.status().is_success() {
            let status = response.status().as_u16().to_string();
            let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
            reading.outcome.retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            // Read to its end, so that the connection can be used again; what it says does not matter.
            let _ = response.bytes().await;
            return Err(status);
        }
        while let Some(bytes) = response.chunk().await.map_err(name)? {
            reading.take(&bytes, Instant::now())?;
        }
        if reading.done { Ok(()) } else { Err("broken".to_owned()) }
    }
}

/// An answer as far as it has been read.
struct Reading {
    line: Vec<u8>,
    last: Option<Instant>,
    done: bool,
    outcome: Outcome,
}

impl Reading {
    fn new() -> Self {
        let outcome = Outcome {
            first: None,
            gaps: Vec::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            ended: Instant::now(),
            error: None,
            retry_after: None,
        };
        Self { line: Vec::new(), last: None, done: false, outcome }
    }

    /// Takes in bytes that arrived at `now`.
    fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            if let Some(data) = line.strip_prefix(b"data:") {
                self.event(data.trim_ascii(), now)?;
            }
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn event(&mut self, data: &[u8], now: Instant) -> Result<(), String> {
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let event: Event = serde_json::from_slice(data).map_err(|_| "broken".to_owned())?;
        if event.error.is_some() {
            return Err("error".to_owned());
        }
        if let Some(usage) = event.usage {
            self.outcome.prompt_tokens = usage.prompt_tokens;
            self.outcome.completion_tokens = usage.completion_tokens;
        }
        if event.choices.iter().any(Choice::has_text) {
            if let Some(last) = self.last.replace(now) {
                self.outcome.gaps.push(now - last);
            }
            self.outcome.first.get_or_insert(now);
        }
        Ok(())
    }
}

impl Choice<'_> {
    fn has_text(&self) -> bool {
        let content = self.delta.as_ref().and_then(|delta| delta.content.as_deref());
        self.text.as_deref().or(content).is_some_and(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\\n\"}}]}\n\n\
        data: {\"choices\":[{\"text\":\"b\"}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

    #[test]
    fn pieces_with_text_are_timed_wherever_the_stream_is_cut() {
        let start = Instant::now();
        for cut in 0..STREAM.len() {
            let mut reading = Reading::new();
            reading.take(&STREAM.as_bytes()[..cut], start).unwrap();
            reading.take(&STREAM.as_bytes()[cut..], start + Duration::from_millis(5)).unwrap();
            assert!(reading.done, "cut at {cut}");
            assert_eq!(reading.outcome.gaps.len(), 1, "cut at {cut}");
            assert_eq!((reading.outcome.prompt_tokens, reading.outcome.completion_tokens), (3, 2));
        }
    }

    #[test]
    fn an_error_within_the_stream_is_an_error() {
        let mut reading = Reading::new();
        let error = reading.take(b"data: {\"error\":{\"message\":\"x\"}}\n\n", Instant::now()).unwrap_err();
        assert_eq!(error, "error");
    }
}
