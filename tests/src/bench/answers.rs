//! Answers of a model by direct calls, alone or in a batch, from the start or from where another left them.

use anyhow::{Context as _, bail, ensure};
use pipelines::Pipeline;
use pipelines::graph::Stages;
use sample::draw::draw;
use sample::philox::uniform;
use schemas::SequenceId;
use schemas::hidden::Slice;
use schemas::logits::Row;
use schemas::request::Sampling;
use shard_forward::engine::{Decoder, Engine, RowOutput, RowSpec, StepBatch, StepOutput};

use crate::bench::direct;

/// Logits that the last shard sends, as in a pipeline.
const CANDIDATES: u32 = 64;

/// A whole model that answers.
pub struct Answerer {
    engine: Decoder,
    last_sequence: u64,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Tokens of the answer that are there already: prefilled with the prompt.
    pub delivered: Vec<u32>,
    /// Tokens of the whole answer.
    pub tokens: usize,
    /// 0 takes the largest logit.
    pub temperature: f32,
    /// Of the draws.
    pub seed: u64,
}

/// A question that is being answered.
struct Running<'a> {
    question: &'a Question,
    sequence: SequenceId,
    /// Rows computed.
    start: usize,
    answer: Vec<u32>,
}

impl Answerer {
    /// Loads the model of `pipeline`, with its settings, on one shard.
    pub fn load(pipeline: &Pipeline) -> anyhow::Result<Self> {
        Ok(Self { engine: direct::load_engine(pipeline)?, last_sequence: 0 })
    }

    /// The answers to all `questions` at once: each prompt in a step of its own, then every next token in one step.
    pub fn answer(&mut self, questions: &[Question]) -> anyhow::Result<Vec<Vec<u32>>> {
        let mut running: Vec<Running<'_>> = questions
            .iter()
            .map(|question| {
                self.last_sequence += 1;
                let sequence = SequenceId(self.last_sequence);
                Running { question, sequence, start: 0, answer: question.delivered.clone() }
            })
            .collect();
        for one in running.chunks_mut(1) {
            self.step(one)?;
        }
        while running.iter().any(|running| !running.is_done()) {
            running.iter().filter(|running| running.is_done()).for_each(|r| self.engine.release(r.sequence));
            let (mut going, done): (Vec<_>, Vec<_>) = running.into_iter().partition(|r| !r.is_done());
            self.step(&mut going)?;
            going.extend(done);
            running = going;
        }
        running.iter().for_each(|running| self.engine.release(running.sequence));
        running.sort_by_key(|running| running.sequence);
        Ok(running.into_iter().map(|running| running.answer).collect())
    }

    fn step(&mut self, running: &mut [Running<'_>]) -> anyhow::Result<()> {
        let slices: Vec<Slice> = running.iter().map(Running::slice).collect();
        let specs: Vec<RowSpec> = running.iter().map(Running::spec).collect();
        let batch = StepBatch::new(&slices, &specs);
        let StepOutput::Rows(rows) = self.engine.forward(&batch, None)? else {
            bail!("the whole model gave no logits");
        };
        ensure!(rows.len() == slices.len(), "{} rows for {} sequences", rows.len(), slices.len());
        for (running, row) in running.iter_mut().zip(rows) {
            let token = self.draw(running, row?)?;
            running.start = running.question.prompt.len() + running.answer.len();
            running.answer.push(token);
        }
        Ok(())
    }

    fn draw(&self, running: &Running<'_>, output: RowOutput) -> anyhow::Result<u32> {
        let question = running.question;
        let sampling = Sampling { temperature: question.temperature, ..Sampling::default() };
        let uniform = uniform(question.seed, 0, running.answer.len() as u32);
        let position = (question.prompt.len() + running.answer.len()) as u32;
        let row = |output: RowOutput| Row {
            sequence: running.sequence,
            position,
            vocabulary: self.engine.vocabulary(),
            candidates: output.candidates,
            extras: output.extras,
            logsumexp: output.logsumexp,
            logsumexp_scaled: output.logsumexp_scaled,
        };
        if let Some(token) = draw(&row(output), &[], &sampling, uniform)? {
            return Ok(token);
        }
        let whole = self.engine.full_row(running.sequence, position, &running.spec());
        let whole = whole.context("the row is not kept")??;
        draw(&row(whole), &[], &sampling, uniform)?.context("no token from a whole row")
    }
}

impl Running<'_> {
    fn is_done(&self) -> bool {
        self.answer.len() >= self.question.tokens
    }

    fn slice(&self) -> Slice {
        let ids = self.question.prompt.iter().chain(&self.answer).skip(self.start).copied().collect();
        Slice { sequence: self.sequence, start: self.start as u32, ids, sample: true }
    }

    fn spec(&self) -> RowSpec {
        let greedy = self.question.temperature == 0.0;
        RowSpec {
            temperature: self.question.temperature,
            candidates: if greedy { 1 } else { CANDIDATES },
            keep: !greedy,
            ..RowSpec::default()
        }
    }
}

/// A pipeline of one shard about a model folder, for direct calls.
pub fn pipeline(path: std::path::PathBuf, shard_forward: pipelines::graph::ShardForward) -> Pipeline {
    Pipeline {
        model: "direct".into(),
        path,
        deadline_seconds: 300,
        stages: Stages { shard_forward, ..Stages::default() },
    }
}
