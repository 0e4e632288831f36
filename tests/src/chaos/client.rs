//! A client that reads on elsewhere when its gateway goes, as the chat page does.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::question::Question;
use crate::client::{Api, Reply, Stream, StreamEvent, merged};

/// How long a client tries other gateways after its own has gone.
const ELSEWHERE_WITHIN: Duration = Duration::from_secs(15);
/// How long an answer that is not streamed is asked for: each gateway that goes takes it along, and it begins anew.
const WHOLE_WITHIN: Duration = Duration::from_secs(45);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What a client heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The answer's text; a token of the demo model is a byte of it.
    pub text: String,
    /// Tokens that usage counts.
    pub tokens: u64,
    /// Why it ended.
    pub finish: String,
}

/// How a request ended.
#[derive(Debug)]
pub enum Ending {
    /// With an answer.
    Answered(Heard),
    /// With 429 or 503: not now.
    Refused(String),
    /// In any other way.
    Failed(String),
}

/// One request from its beginning to its end.
#[derive(Debug)]
pub struct Outcome {
    /// Which question.
    pub question: usize,
    /// When it was sent.
    pub began: Instant,
    /// When events of a stream came.
    pub arrivals: Vec<Instant>,
    /// How it ended.
    pub ending: Ending,
    /// How often it went on at another gateway or was sent anew.
    pub moves: u32,
}

/// One request under way.
pub struct Client<'a> {
    gateways: &'a [Api],
    /// The gateway that it speaks to now.
    at: usize,
    outcome: Outcome,
}

impl<'a> Client<'a> {
    /// A client that speaks to gateway `at` first.
    pub fn new(gateways: &'a [Api], at: usize) -> Self {
        let ending = Ending::Failed("never asked".into());
        let outcome = Outcome { question: 0, began: Instant::now(), arrivals: Vec::new(), ending, moves: 0 };
        Self { gateways, at: at % gateways.len(), outcome }
    }

    /// Asks question `number` and hears the whole answer.
    pub async fn ask(mut self, number: usize, question: &Question) -> Outcome {
        self.outcome.question = number;
        let heard = match question.streamed {
            true => self.stream(question).await,
            false => self.whole(question).await,
        };
        self.outcome.ending = match heard {
            Ok(heard) => Ending::Answered(heard),
            Err(error) => ending_of(&format!("{error:#}")),
        };
        self.outcome
    }

    fn api(&self) -> &'a Api {
        &self.gateways[self.at]
    }

    /// Goes to the next gateway, until `deadline`.
    async fn elsewhere(&mut self, deadline: Instant, error: anyhow::Error) -> anyhow::Result<()> {
        if Instant::now() >= deadline {
            return Err(error.context("no gateway has answered"));
        }
        self.at = (self.at + 1) % self.gateways.len();
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(())
    }

    async fn whole(&mut self, question: &Question) -> anyhow::Result<Heard> {
        let deadline = Instant::now() + WHOLE_WITHIN;
        loop {
            match self.api().ask(question.path, &question.fields).await {
                Ok(reply) => return heard_whole(&reply),
                // As stock clients do when the connection breaks.
                Err(error) => self.elsewhere(deadline, error).await?,
            }
            self.outcome.moves += 1;
        }
    }

    async fn stream(&mut self, question: &Question) -> anyhow::Result<Heard> {
        let fields = merged(
            question.fields.clone(),
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        );
        let deadline = Instant::now() + ELSEWHERE_WITHIN;
        let mut stream = loop {
            match self.api().open(question.path, &fields).await {
                Ok(stream) => break stream,
                Err(error) if is_answer(&error) => return Err(error),
                Err(error) => self.elsewhere(deadline, error).await?,
            }
            self.outcome.moves += 1;
        };
        let id = stream.id.clone();
        let mut events: Vec<StreamEvent> = Vec::new();
        loop {
            let broken = match self.read(&mut stream, &mut events).await {
                Ok(()) => return heard_stream(&events),
                Err(error) => error,
            };
            let id = id.as_deref().with_context(|| format!("broken, without an id: {broken:#}"))?;
            stream = self.read_on(id, events.last().and_then(|event| event.id).unwrap_or_default()).await?;
        }
    }

    /// Reads up to `[DONE]`; fails when the connection breaks before.
    async fn read(&mut self, stream: &mut Stream, events: &mut Vec<StreamEvent>) -> anyhow::Result<()> {
        while let Some(event) = stream.next().await? {
            self.outcome.arrivals.push(event.at);
            let is_done = event.is_done();
            events.push(event);
            if is_done {
                return Ok(());
            }
        }
        bail!("the body ended before `[DONE]`")
    }

    async fn read_on(&mut self, id: &str, last: u64) -> anyhow::Result<Stream> {
        let deadline = Instant::now() + ELSEWHERE_WITHIN;
        loop {
            self.outcome.moves += 1;
            match self.api().read_on(id, last).await {
                Ok(stream) => return Ok(stream),
                Err(error) => self.elsewhere(deadline, error).await?,
            }
        }
    }
}

/// Whether a gateway has answered, if only with a refusal.
fn is_answer(error: &anyhow::Error) -> bool {
    error.to_string().starts_with("status ")
}

fn ending_of(error: &str) -> Ending {
    match ["status 429", "status 503"].iter().any(|status| error.starts_with(status)) {
        true => Ending::Refused(error.to_owned()),
        false => Ending::Failed(error.to_owned()),
    }
}

fn heard_whole(reply: &Reply) -> anyhow::Result<Heard> {
    ensure!(reply.status == 200, "status {}: {}", reply.status, reply.error());
    let tokens = reply.body["usage"]["completion_tokens"].as_u64().context("no usage")?;
    Ok(Heard { text: reply.text().to_owned(), tokens, finish: reply.finish().to_owned() })
}

fn heard_stream(events: &[StreamEvent]) -> anyhow::Result<Heard> {
    let error = events.iter().find(|event| !event.data["error"].is_null());
    ensure!(
        error.is_none(),
        "error in the stream: {}",
        error.map_or(&Value::Null, |event| &event.data["error"])
    );
    let ids: Vec<u64> = events.iter().filter_map(|event| event.id).collect();
    ensure!(
        ids.is_empty() || ids.iter().copied().eq(1..=events.len() as u64),
        "events come out of order: {ids:?}"
    );
    let usage = events.iter().find_map(|event| event.data["usage"]["completion_tokens"].as_u64());
    let finish = events.iter().find_map(|event| event.data["choices"][0]["finish_reason"].as_str());
    Ok(Heard {
        text: events.iter().map(StreamEvent::text).collect(),
        tokens: usage.context("no usage")?,
        finish: finish.context("no finish reason")?.to_owned(),
    })
}
