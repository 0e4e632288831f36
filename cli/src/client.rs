//! A client of the gateway's REST API.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use crate::exit::misuse;
use crate::sse;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the rest of a stream is asked for after its connection broke: time for a gateway to start anew.
const READ_ON_WITHIN: Duration = Duration::from_secs(30);
const READ_ON_EVERY: Duration = Duration::from_millis(250);

/// A gateway and the key to it.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    started: Instant,
    first: Option<Instant>,
    ended: Instant,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// An answer while it is made. When the connection breaks it is read on from where it was.
pub struct Answer {
    client: Client,
    response: Response,
    decoder: sse::Decoder,
    /// The stream's name, where the gateway keeps a journal.
    stream: Option<String>,
    /// The id of the last event.
    last: String,
    pieces: std::collections::VecDeque<String>,
    stats: Stats,
    done: bool,
}

impl Client {
    /// A client of the gateway at `url`, with or without `/v1` at its end.
    pub fn new(url: &str, key: Option<String>) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).map_err(|error| misuse(format!("`{url}` is not a URL: {error}")))?;
        if parsed.scheme() != "http" {
            return Err(misuse(format!("`{url}`: only http:// is spoken; put a local proxy before TLS")));
        }
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_DEADLINE);
        if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { http: builder.build()?, base, key })
    }

    /// URL of the gateway, without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Ids of the models served.
    pub async fn models(&self) -> anyhow::Result<Vec<String>> {
        let list: Value = self.send(self.http.get(self.url("/v1/models"))).await?.json().await?;
        let entries = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(entries.iter().filter_map(|entry| entry["id"].as_str()).map(str::to_owned).collect())
    }

    /// Whether `model` can be served now; the gateway's reason when it cannot.
    pub async fn ready(&self, model: &str) -> Result<(), String> {
        let request = self.http.get(self.url("/ready")).query(&[("model", model)]).timeout(CONNECT_DEADLINE);
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(unready(status, &response.text().await.unwrap_or_default()))
    }

    /// A chat completion in one piece, as the gateway writes it.
    pub async fn chat_whole(&self, body: &Value) -> anyhow::Result<String> {
        Ok(self.send(self.http.post(self.url("/v1/chat/completions")).json(body)).await?.text().await?)
    }

    /// A chat completion piece by piece; `body` asks for a stream.
    pub async fn chat(&self, body: &Value) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let response = self.send(self.http.post(self.url("/v1/chat/completions")).json(body)).await?;
        let stream = response.headers().get("x-stream-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            client: self.clone(),
            response,
            decoder: sse::Decoder::default(),
            stream,
            last: "0".to_owned(),
            pieces: Default::default(),
            stats: Stats { started, first: None, ended: started, prompt_tokens: 0, completion_tokens: 0 },
            done: false,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = match request.send().await {
            Err(error) if error.is_connect() => {
                return Err(anyhow::Error::new(error)
                    .context(format!("no gateway at `{}`: start one with `tokenway up`", self.base)));
            }
            other => other?,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        anyhow::bail!("{}", refusal(status, &response.text().await.unwrap_or_default()))
    }
}

impl Answer {
    /// The next piece of text; none at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if self.done {
                return Ok(None);
            }
            let bytes = match self.response.chunk().await.context("the answer broke off") {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    self.read_on(anyhow::anyhow!("the answer broke off before its end")).await?;
                    continue;
                }
                Err(broken) => {
                    self.read_on(broken).await?;
                    continue;
                }
            };
            for event in self.decoder.push(&bytes) {
                if let Some(id) = event.id {
                    self.last = id;
                }
                self.take(&event.data)?;
            }
        }
    }

    /// Asks for what follows the last event until a gateway has it; fails as the connection did when none does in time.
    async fn read_on(&mut self, broken: anyhow::Error) -> anyhow::Result<()> {
        let Some(stream) = &self.stream else { return Err(broken) };
        let url = self.client.url(&format!("/v1/streams/{stream}"));
        let until = Instant::now() + READ_ON_WITHIN;
        while Instant::now() < until {
            let request = self.client.http.get(&url).header("last-event-id", &self.last);
            if let Ok(response) = self.client.send(request).await {
                (self.response, self.decoder) = (response, sse::Decoder::default());
                return Ok(());
            }
            tokio::time::sleep(READ_ON_EVERY).await;
        }
        Err(broken)
    }

    /// Counts and times so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn take(&mut self, event: &str) -> anyhow::Result<()> {
        self.stats.ended = Instant::now();
        if event == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let event: Value = serde_json::from_str(event).context("an event is not JSON")?;
        if let Some(message) = error_message(&event) {
            anyhow::bail!("{message}");
        }
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            self.stats.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
            self.stats.completion_tokens = usage["completion_tokens"].as_u64().unwrap_or(0);
        }
        let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        if !text.is_empty() {
            self.stats.first.get_or_insert(self.stats.ended);
            self.pieces.push_back(text.to_owned());
        }
        Ok(())
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.first.unwrap_or(self.ended);
        let ttft_ms = (first - self.started).as_secs_f64() * 1e3;
        write!(f, "{} prompt tokens, first text after {ttft_ms:.0} ms, ", self.prompt_tokens)?;
        write!(f, "{} tokens", self.completion_tokens)?;
        let decode_seconds = (self.ended - first).as_secs_f64();
        if self.completion_tokens > 1 && decode_seconds > 0.0 {
            write!(f, " at {:.0} tokens/s", (self.completion_tokens - 1) as f64 / decode_seconds)?;
        }
        Ok(())
    }
}

/// What a refused request is told: OpenAI's error message, else the body.
fn refusal(status: StatusCode, body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    match parsed.as_ref().and_then(error_message) {
        Some(message) => format!("{message} ({status})"),
        None => format!("{status}: {}", body.trim().chars().take(300).collect::<String>()),
    }
}

/// Why a model cannot be served: the stages that are missing, else what the gateway says.
fn unready(status: StatusCode, body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let missing = parsed["pipelines"][0]["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<_> = missing.iter().filter_map(Value::as_str).collect();
    if names.is_empty() { refusal(status, body) } else { format!("no {}", names.join(", ")) }
}

fn error_message(body: &Value) -> Option<&str> {
    body.get("error")?.get("message")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_error_message() {
        let body = r#"{"error":{"message":"unknown model `x`","type":"invalid_request_error"}}"#;
        assert_eq!(refusal(StatusCode::NOT_FOUND, body), "unknown model `x` (404 Not Found)");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, "oops\n"), "502 Bad Gateway: oops");
    }

    #[test]
    fn a_model_that_is_not_ready_names_its_missing_stages() {
        let body = r#"{"ready":false,"pipelines":[{"model":"m","missing":["sample","shard-forward.1"]}]}"#;
        assert_eq!(unready(StatusCode::SERVICE_UNAVAILABLE, body), "no sample, shard-forward.1");
        assert_eq!(unready(StatusCode::SERVICE_UNAVAILABLE, ""), "503 Service Unavailable: ");
    }

    #[test]
    fn the_base_of_an_api_url_is_the_gateway() {
        let client = Client::new("http://127.0.0.1:9/v1/", None).unwrap();
        assert_eq!(client.base(), "http://127.0.0.1:9");
        assert!(Client::new("127.0.0.1:9", None).is_err());
        assert!(Client::new("https://example.com", None).is_err());
    }
}
