//! Requests as different clients send them: streamed or not, short and long, some given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::bench::random::Random;
use crate::client::Api;

const PROMPTS: [&str; 5] =
    ["What can you do?", "12 + 29", "reverse: stone", "sort: pear fig apple", "Tell me a story."];
const ANSWER_TOKENS_MAX: u64 = 48;
/// One request in this many is given up by its client.
const GIVEN_UP_ONE_IN: u64 = 10;
/// Longest time before a client gives up an answer that is not streamed.
const PATIENCE_MS_MAX: u64 = 60;

/// Requests that several clients share.
#[derive(Clone)]
pub struct Load {
    api: Api,
    requests: u64,
    until: Instant,
    counts: Arc<Counts>,
}

/// How requests ended.
#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    answered: AtomicU64,
    given_up: AtomicU64,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
struct Ask {
    prompt: String,
    fields: Value,
    streamed: bool,
    /// Events or milliseconds after which the client leaves.
    patience: Option<u64>,
}

impl Load {
    /// `requests` in all, none begun after `until`.
    pub fn new(api: Api, requests: u64, until: Instant) -> Self {
        Self { api, requests, until, counts: Arc::default() }
    }

    /// Requests that have ended, either way.
    pub fn done(&self) -> u64 {
        self.answered() + self.given_up()
    }

    /// Requests with a whole answer.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Requests whose client left.
    pub fn given_up(&self) -> u64 {
        self.counts.given_up.load(Ordering::Relaxed)
    }

    /// Is one client until all requests are begun. Fails with the first request that fails.
    pub async fn client(self) -> anyhow::Result<()> {
        loop {
            let number = self.counts.begun.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests || Instant::now() >= self.until {
                return Ok(());
            }
            let answered = self.send(Ask::numbered(number)).await?;
            let count = if answered { &self.counts.answered } else { &self.counts.given_up };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there was a whole answer.
    async fn send(&self, ask: Ask) -> anyhow::Result<bool> {
        if ask.streamed {
            return self.send_streamed(ask).await;
        }
        let answer = self.api.chat(&ask.prompt, ask.fields);
        let patience = ask.patience.map_or(Duration::MAX, Duration::from_millis);
        // When time is up the request is dropped, and its connection closed.
        let Ok(reply) = tokio::time::timeout(patience, answer).await else { return Ok(false) };
        let reply = reply?;
        ensure!(reply.status == 200, "status {}: {}", reply.status, reply.error());
        Ok(true)
    }

    async fn send_streamed(&self, ask: Ask) -> anyhow::Result<bool> {
        let mut stream = self.api.stream_chat(&ask.prompt, ask.fields).await?;
        let mut events = 0;
        let mut finished = false;
        while let Some(event) = stream.next().await? {
            ensure!(event.data["error"].is_null(), "error in a stream: {}", event.data);
            finished |= event.is_done();
            events += 1;
            if ask.patience.is_some_and(|patience| events > patience) && !finished {
                return Ok(false);
            }
        }
        ensure!(finished, "a stream ended without `[DONE]`");
        Ok(true)
    }
}

impl Ask {
    /// The request of this number, the same in every run.
    fn numbered(number: u64) -> Self {
        let mut random = Random::new(number);
        let question = PROMPTS[random.below(PROMPTS.len() as u64) as usize];
        // Half of all answers go on to their full length, so that all lengths occur.
        let (long, hot) = (random.below(2) == 0, random.below(2) == 0);
        let fields = json!({
            "max_tokens": 1 + random.below(ANSWER_TOKENS_MAX),
            "ignore_eos": long,
            "temperature": if hot { 1.0 } else { 0.0 },
            "seed": number,
        });
        let streamed = random.below(2) == 0;
        let gives_up = random.below(GIVEN_UP_ONE_IN) == 0;
        let patience = gives_up.then(|| random.below(if streamed { 8 } else { PATIENCE_MS_MAX }));
        Self { prompt: question.to_owned(), fields, streamed, patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_has_every_kind_of_request() {
        let asks: Vec<Ask> = (0..1000).map(Ask::numbered).collect();
        let share = |is: fn(&Ask) -> bool| asks.iter().filter(|ask| is(ask)).count();
        assert!((400..600).contains(&share(|ask| ask.streamed)));
        assert!((60..140).contains(&share(|ask| ask.patience.is_some())));
        assert_eq!(asks, (0..1000).map(Ask::numbered).collect::<Vec<_>>());
    }
}
