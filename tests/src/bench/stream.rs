//! A client that streams completions and only counts their tokens: it shares the processors with what it measures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

const REQUEST_DEADLINE: Duration = Duration::from_secs(300);

/// A client of one model whose tokens all have texts of one length, without characters that JSON escapes.
#[derive(Debug, Clone)]
pub struct TokenClient {
    http: reqwest::Client,
    url: String,
    model: String,
    token_bytes: usize,
}

impl TokenClient {
    /// A client of `model` at `url`; each token's text has `token_bytes`.
    pub fn new(url: &str, model: &str, token_bytes: usize) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(REQUEST_DEADLINE).tcp_nodelay(true).build()?;
        Ok(Self { http, url: format!("{url}/v1/completions"), model: model.to_owned(), token_bytes })
    }

    /// A request for exactly `tokens` tokens, greedy.
    pub fn body(&self, prompt: &[u32], tokens: u32) -> String {
        let body = json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": true,
            "temperature": 0,
            "stream": true,
        });
        body.to_string()
    }

    /// Sends `body` and reports the tokens of each read as they come. Fails unless there are `tokens` in all.
    pub async fn stream(
        &self,
        body: String,
        tokens: u32,
        mut arrived: impl FnMut(Instant, usize),
    ) -> anyhow::Result<()> {
        let request = self.http.post(&self.url).header("content-type", "application/json").body(body);
        let mut response = request.send().await?;
        if response.status() != 200 {
            bail!("status {}: {}", response.status(), response.text().await?);
        }
        let mut events = Events { buffer: Vec::new(), token_bytes: self.token_bytes };
        let mut total = 0;
        while let Some(bytes) = response.chunk().await? {
            let now = Instant::now();
            let count = events.take(&bytes)?;
            if count > 0 {
                arrived(now, count);
            }
            total += count;
        }
        ensure!(total == tokens as usize, "{total} tokens arrived instead of {tokens}");
        Ok(())
    }
}

/// Server-sent events as they are cut by the network.
struct Events {
    buffer: Vec<u8>,
    token_bytes: usize,
}

impl Events {
    /// The tokens in the lines that `bytes` completes.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') else { return Ok(0) };
        let lines = self.buffer[..end].split(|byte| *byte == b'\n');
        let count = lines.map(|line| self.tokens(line)).sum();
        self.buffer.drain(..=end);
        count
    }

    fn tokens(&self, line: &[u8]) -> anyhow::Result<usize> {
        const TEXT: &[u8] = b"\"text\":\"";
        let Some(data) = line.strip_prefix(b"data: ") else { return Ok(0) };
        let Some(start) = data.windows(TEXT.len()).position(|window| window == TEXT) else {
            ensure!(data == b"[DONE]", "event without a text: {}", String::from_utf8_lossy(data));
            return Ok(0);
        };
        let text = &data[start + TEXT.len()..];
        let length = text.iter().position(|byte| *byte == b'"').context("text without an end")?;
        ensure!(length % self.token_bytes == 0, "text of {length} bytes, tokens have {}", self.token_bytes);
        Ok(length / self.token_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pieces: &[&str]) -> anyhow::Result<Vec<usize>> {
        let mut events = Events { buffer: Vec::new(), token_bytes: 5 };
        pieces.iter().map(|piece| events.take(piece.as_bytes())).collect()
    }

    #[test]
    fn tokens_count_when_their_event_is_complete() {
        let pieces = [
            "data: {\"choices\":[{\"text\":\" aa",
            "aa bbbb\"}]}\n",
            "\ndata: {\"text\":\"\"}\n\ndata: [DONE]\n\n",
        ];
        assert_eq!(count(&pieces).unwrap(), [0, 2, 0]);
    }

    #[test]
    fn an_error_in_the_stream_is_no_token() {
        assert!(count(&["data: {\"error\":{\"message\":\"no\"}}\n\n"]).is_err());
    }
}
