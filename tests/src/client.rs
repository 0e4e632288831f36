//! A plain HTTP client of the OpenAI dialect, which shows what is on the wire.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt;
use serde_json::{Value, json};

const REQUEST_DEADLINE: Duration = Duration::from_secs(120);

/// A client of one model.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    model: String,
}

/// An answer in one piece.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers by lower-case name.
    pub headers: std::collections::BTreeMap<String, String>,
    /// JSON body; null when it is not JSON.
    pub body: Value,
}

/// One server-sent event.
#[derive(Debug, Clone)]
pub struct StreamEvent {
    /// When it was read.
    pub at: Instant,
    /// Its number in the journal.
    pub id: Option<u64>,
    /// Its JSON; null for `[DONE]`.
    pub data: Value,
}

/// A stream of events.
pub struct Stream {
    /// Its name in the journal.
    pub id: Option<String>,
    response: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
    buffer: Vec<u8>,
}

impl Api {
    /// A client of `model` at `url`.
    pub fn new(url: &str, model: &str) -> Self {
        let http = reqwest::Client::builder().timeout(REQUEST_DEADLINE).tcp_nodelay(true).build();
        Self { http: http.unwrap_or_default(), url: url.to_owned(), model: model.to_owned() }
    }

    /// Whether the gateway says that the model can be served.
    pub async fn is_ready(&self) -> bool {
        let reply = self.http.get(format!("{}/ready?model={}", self.url, self.model)).send().await;
        reply.is_ok_and(|reply| reply.status().is_success())
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        Reply::read(self.http.get(format!("{}{path}", self.url)).send().await?).await
    }

    /// `POST path` with `body` as it is.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        Reply::read(self.http.post(format!("{}{path}", self.url)).json(body).send().await?).await
    }

    /// `POST path` with `fields` for this model.
    pub async fn ask(&self, path: &str, fields: &Value) -> anyhow::Result<Reply> {
        self.post(path, &merged(fields.clone(), json!({"model": self.model}))).await
    }

    /// The same as a stream; the fields say that it is one.
    pub async fn open(&self, path: &str, fields: &Value) -> anyhow::Result<Stream> {
        self.stream(path, &merged(fields.clone(), json!({"model": self.model}))).await
    }

    /// The fields of a chat request that asks `prompt`.
    pub fn chat_body(&self, prompt: &str) -> Value {
        json!({"model": self.model, "messages": [{"role": "user", "content": prompt}]})
    }

    /// A chat request with `fields` over the defaults.
    pub async fn chat(&self, prompt: &str, fields: Value) -> anyhow::Result<Reply> {
        self.post("/v1/chat/completions", &merged(self.chat_body(prompt), fields)).await
    }

    /// A completion request with `fields` over the defaults.
    pub async fn complete(&self, prompt: impl Into<Value>, fields: Value) -> anyhow::Result<Reply> {
        let body = json!({"model": self.model, "prompt": prompt.into()});
        self.post("/v1/completions", &merged(body, fields)).await
    }

    /// A streamed completion.
    pub async fn stream_completion(&self, prompt: impl Into<Value>, fields: Value) -> anyhow::Result<Stream> {
        let body = json!({"model": self.model, "prompt": prompt.into(), "stream": true});
        self.stream("/v1/completions", &merged(body, fields)).await
    }

    /// A streamed chat answer.
    pub async fn stream_chat(&self, prompt: &str, fields: Value) -> anyhow::Result<Stream> {
        let body = merged(self.chat_body(prompt), json!({"stream": true}));
        self.stream("/v1/chat/completions", &merged(body, fields)).await
    }

    /// `POST path` and its events; fails on another status than 200.
    pub async fn stream(&self, path: &str, body: &Value) -> anyhow::Result<Stream> {
        Stream::read(self.http.post(format!("{}{path}", self.url)).json(body).send().await?).await
    }

    /// What follows the event `last` of the stream `id`.
    pub async fn read_on(&self, id: &str, last: u64) -> anyhow::Result<Stream> {
        let request = self.http.get(format!("{}/v1/streams/{id}", self.url));
        Stream::read(request.header("last-event-id", last).send().await?).await
    }
}

impl Reply {
    async fn read(response: reqwest::Response) -> anyhow::Result<Self> {
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        Ok(Self { status, headers, body })
    }

    /// The first choice's text, of a chat or of a completion.
    pub fn text(&self) -> &str {
        let choice = &self.body["choices"][0];
        choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default()
    }

    /// The first choice's finish reason.
    pub fn finish(&self) -> &str {
        self.body["choices"][0]["finish_reason"].as_str().unwrap_or_default()
    }

    /// The message of an OpenAI error body.
    pub fn error(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl Stream {
    async fn read(response: reqwest::Response) -> anyhow::Result<Self> {
        if response.status() != 200 {
            bail!("status {}: {}", response.status(), response.text().await?);
        }
        let id =
            response.headers().get("x-stream-id").map(|id| id.to_str().map(str::to_owned)).transpose()?;
        let chunks = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec()));
        Ok(Self { id, response: Box::pin(chunks), buffer: Vec::new() })
    }

    /// The next event; none at the end of the body.
    pub async fn next(&mut self) -> anyhow::Result<Option<StreamEvent>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                match StreamEvent::parse(&event)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            match self.response.next().await {
                Some(chunk) => self.buffer.extend(chunk?),
                None => return Ok(None),
            }
        }
    }

    /// Everything up to the end.
    pub async fn collect(mut self) -> anyhow::Result<Vec<StreamEvent>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}

impl StreamEvent {
    fn parse(event: &[u8]) -> anyhow::Result<Option<Self>> {
        let text = std::str::from_utf8(event).context("event is not UTF-8")?;
        let data: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        if data.is_empty() {
            return Ok(None);
        }
        let data = data.join("\n");
        let data = if data == "[DONE]" { Value::Null } else { serde_json::from_str(&data)? };
        let id =
            text.lines().find_map(|line| line.strip_prefix("id:")).map(|id| id.trim().parse()).transpose()?;
        Ok(Some(Self { at: Instant::now(), id, data }))
    }

    /// Whether it is `[DONE]`.
    pub fn is_done(&self) -> bool {
        self.data.is_null()
    }

    /// The text of its first choice, of a chat or of a completion.
    pub fn text(&self) -> &str {
        let choice = &self.data["choices"][0];
        choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default()
    }
}

/// `over` written over `base`, field by field.
pub fn merged(mut base: Value, over: Value) -> Value {
    if let (Some(base), Value::Object(over)) = (base.as_object_mut(), over) {
        base.extend(over);
    }
    base
}
