//! What one generation request counts: TTFT, inter-token latency, tokens, streams.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram};

use crate::http::answer::usage::Usage;

/// Counts one request from its arrival to the end of its answers.
pub struct Meter {
    started: Instant,
    /// When each answer last grew; none before its first piece.
    grown: Vec<Option<Instant>>,
    has_tokens: bool,
    prompt_tokens: u32,
    completion_tokens: u32,
    ttft: Histogram,
    itl: Histogram,
    prompt_total: Counter,
    completion_total: Counter,
    active: Gauge,
}

impl Meter {
    /// For `answers` answers of `model` to a request that arrived at `started`.
    pub fn new(model: &str, answers: usize, started: Instant) -> Self {
        let model = model.to_owned();
        let active = metrics::gauge!("tokenway_active_requests", "model" => model.clone());
        active.increment(1);
        Self {
            started,
            grown: vec![None; answers],
            has_tokens: false,
            prompt_tokens: 0,
            completion_tokens: 0,
            ttft: metrics::histogram!("tokenway_ttft_seconds", "model" => model.clone()),
            itl: metrics::histogram!("tokenway_itl_seconds", "model" => model.clone()),
            prompt_total: metrics::counter!("tokenway_prompt_tokens_total", "model" => model.clone()),
            completion_total: metrics::counter!("tokenway_completion_tokens_total", "model" => model),
            active,
        }
    }

    /// The prompts of the request hold `tokens`, each counted once.
    pub fn admitted(&mut self, tokens: u32) {
        self.prompt_tokens = tokens;
        self.prompt_total.increment(tokens.into());
    }

    /// The answer `index` grew by `tokens`.
    pub fn grew(&mut self, index: usize, tokens: usize) {
        if tokens == 0 {
            return;
        }
        let now = Instant::now();
        if !std::mem::replace(&mut self.has_tokens, true) {
            self.ttft.record(now - self.started);
        }
        if let Some(before) = self.grown[index].replace(now) {
            self.itl.record((now - before).as_secs_f64() / tokens as f64);
        }
        self.completion_tokens += tokens as u32;
        self.completion_total.increment(tokens as u64);
    }

    /// The answers had grown by `tokens` before this request.
    pub fn had_grown(&mut self, tokens: usize) {
        self.completion_tokens += tokens as u32;
    }

    /// The tokens so far.
    pub fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.completion_tokens)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.active.decrement(1);
    }
}
