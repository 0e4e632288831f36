//! The gateway as commands ask it: with what to do next in its errors, and with the times of answers.

use std::time::Instant;

use reqwest::Url;
use tokenway_sdk::{ChatRequest, ChatStream, Error, Readiness, StreamOptions};

use crate::exit::misuse;

/// A gateway and the key to it.
#[derive(Clone)]
pub struct Client(tokenway_sdk::Client);

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    started: Instant,
    first: Option<Instant>,
    ended: Instant,
    prompt_tokens: u32,
    completion_tokens: u32,
}

/// An answer while it is made.
pub struct Answer {
    stream: ChatStream,
    stats: Stats,
}

impl Client {
    /// A client of the gateway at `url`, with or without `/v1` at its end.
    pub fn new(url: &str, key: Option<String>) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).map_err(|error| misuse(format!("`{url}` is not a URL: {error}")))?;
        if parsed.scheme() != "http" {
            return Err(misuse(format!("`{url}`: only http:// is spoken; put a local proxy before TLS")));
        }
        let client = tokenway_sdk::Client::new(url)?;
        Ok(Self(match key {
            Some(key) => client.with_api_key(key),
            None => client,
        }))
    }

    /// URL of the gateway, without a slash at its end.
    pub fn base(&self) -> &str {
        self.0.base()
    }

    /// Ids of the models served.
    pub async fn models(&self) -> anyhow::Result<Vec<String>> {
        let models = self.0.models().await.map_err(advised)?;
        Ok(models.into_iter().map(|model| model.id).collect())
    }

    /// Whether `model` can be served now; the gateway's reason when it cannot.
    pub async fn ready(&self, model: &str) -> Result<(), String> {
        let readiness = self.0.ready(Some(model)).await.map_err(|error| error.to_string())?;
        if readiness.ready { Ok(()) } else { Err(unready(&readiness)) }
    }

    /// A chat completion in one piece, as the gateway writes it.
    pub async fn chat_whole(&self, request: &ChatRequest) -> anyhow::Result<String> {
        self.0.chat_json(request).await.map_err(advised)
    }

    /// A chat completion piece by piece, with its usage.
    pub async fn chat(&self, request: ChatRequest) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let request = ChatRequest { stream_options: Some(StreamOptions::with_usage()), ..request };
        let stream = self.0.chat_stream(&request).await.map_err(advised)?;
        let stats = Stats { started, first: None, ended: started, prompt_tokens: 0, completion_tokens: 0 };
        Ok(Answer { stream, stats })
    }
}

impl Answer {
    /// The next piece of text; none at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let next = self.stream.next().await;
            self.stats.ended = Instant::now();
            let Some(chunk) = next.transpose().map_err(advised)? else { return Ok(None) };
            if let Some(usage) = &chunk.usage {
                self.stats.prompt_tokens = usage.prompt_tokens;
                self.stats.completion_tokens = usage.completion_tokens;
            }
            if !chunk.text().is_empty() {
                self.stats.first.get_or_insert(self.stats.ended);
                return Ok(Some(chunk.text().to_owned()));
            }
        }
    }

    /// Counts and times so far.
    pub fn stats(&self) -> Stats {
        self.stats
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
            write!(f, " at {:.0} tokens/s", f64::from(self.completion_tokens - 1) / decode_seconds)?;
        }
        Ok(())
    }
}

/// The error, with what to do next where that is known.
fn advised(error: Error) -> anyhow::Error {
    match error {
        Error::Unreachable { base, source } => anyhow::Error::new(source)
            .context(format!("no gateway at `{base}`: start one with `tokenway up`")),
        other => other.into(),
    }
}

/// Why a model cannot be served.
fn unready(readiness: &Readiness) -> String {
    let missing = readiness.pipelines.first().map(|pipeline| pipeline.missing.join(", "));
    match missing.filter(|missing| !missing.is_empty()) {
        Some(missing) => format!("no {missing}"),
        None if readiness.draining => "the gateway is shutting down".to_owned(),
        None => "the gateway has no connection to the bus".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_that_is_not_ready_names_its_missing_stages() {
        let of = |bus: bool, missing: &[&str]| {
            let pipeline = json!({ "model": "m", "fingerprint": "f", "ready": false, "missing": missing });
            let body = json!({ "ready": false, "bus": bus, "draining": false, "pipelines": [pipeline] });
            unready(&serde_json::from_value(body).unwrap())
        };
        assert_eq!(of(true, &["sample", "shard-forward.1"]), "no sample, shard-forward.1");
        assert_eq!(of(false, &[]), "the gateway has no connection to the bus");
    }

    #[tokio::test]
    async fn where_no_gateway_is_it_is_said_how_to_start_one() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&format!("http://{closed}/v1/"), None).unwrap();
        assert_eq!(client.base(), format!("http://{closed}"));
        let error = client.models().await.unwrap_err().to_string();
        assert_eq!(error, format!("no gateway at `http://{closed}`: start one with `tokenway up`"));
    }

    #[test]
    fn only_urls_of_http_are_taken() {
        assert!(Client::new("127.0.0.1:9", None).is_err());
        assert!(Client::new("https://example.com", None).is_err());
    }
}
