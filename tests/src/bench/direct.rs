//! The same work in one process: engine, sampling and detokenisation by direct calls, without a bus.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use detokenize::answer::Answer;
use models::{ModelFolder, Tokenizer};
use pipelines::Pipeline;
use sample::sequence::{Drawn, Sequence};
use schemas::control::Open;
use schemas::hidden::Slice;
use schemas::logits::Row;
use schemas::request::{Context, Generation, Sampling, Stop};
use schemas::{InstanceId, RouteId, SequenceId, SessionId};
use serde::{Deserialize, Serialize};
use shard_forward::engine::{
    Decoder, Engine, EngineOptions, LayerPlan, RowOutput, RowSpec, StepBatch, StepOutput,
};

use crate::bench::arrivals::Arrivals;
use crate::bench::usage::Usage;
use crate::bench::workload::Workload;

const WARM_UP_STEPS: u32 = 16;

/// The model whole, with the functions of the stages behind it.
pub struct Direct {
    engine: Decoder,
    tokenizer: Arc<Tokenizer>,
    /// Rows of one step, as the pipeline bounds them.
    rows_max: usize,
}

/// What one process measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectReport {
    /// The tokens' times.
    pub arrivals: Arrivals,
    /// The process's peak memory.
    pub peak_rss_kib: u64,
}

/// Runs `work` on the model of `pipeline`, after a short run of the same batch that is not measured.
pub fn measure(pipeline: &Pipeline, work: &Workload) -> anyhow::Result<DirectReport> {
    let mut direct = Direct::load(pipeline)?;
    direct.generate(&Workload { steps: WARM_UP_STEPS, round: u32::MAX, ..*work })?;
    let arrivals = direct.generate(work)?;
    Ok(DirectReport { arrivals, peak_rss_kib: Usage::own().peak_rss_kib()? })
}

/// Loads all layers of `pipeline`'s model into one engine, with its settings, and has the kernels compiled.
pub fn load_engine(pipeline: &Pipeline) -> anyhow::Result<Decoder> {
    let settings = &pipeline.stages.shard_forward;
    let folder = ModelFolder::open(&pipeline.path)?;
    let options = EngineOptions {
        dtype: settings.dtype.into(),
        device: settings.device.parse()?,
        kv_tokens: settings.kv_tokens,
        block_tokens: settings.block_tokens,
        threads: (settings.threads > 0).then_some(settings.threads),
        deterministic: settings.deterministic,
    };
    let whole = LayerPlan::even(folder.config().num_hidden_layers as u32, 1)?;
    let mut engine = Decoder::load(&folder, &whole, 0, &options)?;
    engine.warm_up(settings.step_tokens as usize, settings.max_sequences as usize)?;
    Ok(engine)
}

impl Direct {
    /// Loads all layers into one engine with the pipeline's own settings.
    pub fn load(pipeline: &Pipeline) -> anyhow::Result<Self> {
        let folder = ModelFolder::open(&pipeline.path)?;
        let engine = load_engine(pipeline)?;
        Ok(Self {
            engine,
            tokenizer: Arc::new(folder.load_tokenizer()?),
            rows_max: pipeline.stages.shard_forward.step_tokens as usize,
        })
    }

    /// Prefills all prompts in as few steps as the rows of a step allow, then decodes all sequences together.
    pub fn generate(&mut self, work: &Workload) -> anyhow::Result<Arrivals> {
        let started = Instant::now();
        let prompts = work.prompts();
        let mut running: Vec<Running> = (0..)
            .zip(prompts)
            .map(|(number, prompt)| Running::new(SequenceId(number), prompt, work, &self.tokenizer))
            .collect();
        let prompts_a_step = (self.rows_max / work.prompt_tokens as usize).max(1);
        for group in running.chunks_mut(prompts_a_step) {
            self.step(group, started)?;
        }
        for _ in 0..work.steps {
            self.step(&mut running, started)?;
        }
        for sequence in &running {
            self.engine.release(sequence.id);
        }
        Ok(Arrivals(running.into_iter().map(|sequence| sequence.arrivals).collect()))
    }

    fn step(&mut self, running: &mut [Running], started: Instant) -> anyhow::Result<()> {
        let slices: Vec<Slice> = running.iter_mut().map(Running::slice).collect();
        let greedy = RowSpec { candidates: 1, ..RowSpec::default() };
        let specs = vec![greedy; slices.len()];
        let StepOutput::Rows(rows) = self.engine.forward(&StepBatch::new(&slices, &specs), None)? else {
            bail!("the whole model gave no logits");
        };
        ensure!(rows.len() == slices.len(), "{} rows for {} sequences", rows.len(), slices.len());
        let vocabulary = self.engine.vocabulary();
        for ((sequence, slice), row) in running.iter_mut().zip(&slices).zip(rows) {
            sequence.take(slice, row?, vocabulary)?;
            sequence.arrivals.push(started.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// One sequence with what sample and detokenize hold of it.
struct Running {
    id: SequenceId,
    start: u32,
    /// Ids of the next step: the prompt, then the latest token.
    ids: Vec<u32>,
    sampling: Sequence,
    answer: Answer,
    text: String,
    arrivals: Vec<f64>,
}

impl Running {
    fn new(id: SequenceId, prompt: Vec<u32>, work: &Workload, tokenizer: &Arc<Tokenizer>) -> Self {
        let open = open(id, work);
        Self {
            id,
            start: 0,
            ids: prompt,
            sampling: Sequence::new(open.clone()),
            answer: Answer::new(open, tokenizer.clone()),
            text: String::new(),
            arrivals: Vec::new(),
        }
    }

    fn slice(&mut self) -> Slice {
        Slice { sequence: self.id, start: self.start, ids: std::mem::take(&mut self.ids), sample: true }
    }

    /// Draws the next token and makes its text.
    fn take(&mut self, slice: &Slice, row: RowOutput, vocabulary: u32) -> anyhow::Result<()> {
        let position = slice.start + slice.ids.len() as u32;
        let row = Row {
            sequence: self.id,
            position,
            vocabulary,
            candidates: row.candidates,
            extras: row.extras,
            logsumexp: row.logsumexp,
            logsumexp_scaled: row.logsumexp_scaled,
        };
        self.sampling.push(slice)?;
        let Drawn::Token(token) = self.sampling.draw(&row)? else { bail!("no token from a greedy row") };
        (self.start, self.ids) = (position, vec![token.id]);
        if let Some(history) = self.sampling.history(slice) {
            self.answer.replay(&history)?;
        }
        let piece = self.answer.push(token)?.context("no text of a token")?;
        self.text.push_str(&piece.text);
        Ok(())
    }
}

/// What a greedy request of `work` opens.
fn open(sequence: SequenceId, work: &Workload) -> Open {
    let nobody = InstanceId(0);
    Open {
        sequence,
        context: Context {
            session: SessionId(0),
            choice: 0,
            attempt: 0,
            door: nobody,
            remaining_ms: u64::MAX,
            alone: false,
            traceparent: None,
        },
        route: RouteId(sequence.0),
        shards: vec![nobody],
        sample: nobody,
        detokenize: nobody,
        prompt_tokens: work.prompt_tokens,
        forced_tokens: 0,
        max_tokens: work.answer_tokens(),
        generation: Generation {
            max_tokens: Some(work.answer_tokens()),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stop: Stop { ignore_eos: true, ..Stop::default() },
            ..Generation::default()
        },
        eos: Vec::new(),
        grids: vec![],
    }
}
