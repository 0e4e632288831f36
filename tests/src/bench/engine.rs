//! `bench --only engine`: the engine alone, called directly, beside what its device can do at most.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use models::{DecoderConfig, Weights};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use shard_forward::engine::{
    ComputeDevice, Decoder, Engine, EngineOptions, LayerPlan, RowSpec, StepBatch, StepOutput,
};

use super::engine_report::{Costs, DecodeFigures, EngineReport, PrefillFigures};
use super::limits::Limits;
use super::spread::Spread;
use super::workload::Workload;

const BLOCK_TOKENS: u32 = 16;
/// Rows of a step while prompts are prefilled for the decode measurement.
const PREFILL_ROWS: u32 = 2048;

/// What is measured.
#[derive(Debug, Clone)]
pub struct EngineBench {
    /// Folder with `config.json` and weights.
    pub model: PathBuf,
    /// Where it is computed.
    pub device: ComputeDevice,
    /// Sequences that decode together.
    pub batches: Vec<u32>,
    /// Tokens of each before the first measured step.
    pub context: u32,
    /// Decode steps a round.
    pub steps: u32,
    /// Prompts that are prefilled in one step each, in tokens.
    pub prefills: Vec<u32>,
    /// How often each thing is measured.
    pub rounds: u32,
}

impl EngineBench {
    /// Measures the device, then the engine on it, in bf16.
    pub fn run(&self) -> anyhow::Result<EngineReport> {
        let device = self.device.open()?;
        let limits = Limits::measure(device);
        let config = self.model.join("config.json");
        let text = std::fs::read(&config).with_context(|| format!("`{}`", config.display()))?;
        let config = DecoderConfig::from_json(&text)?;
        let mut engine = self.load(&config)?;
        let costs = Costs::of(&config);
        let decode = self.batches.iter().map(|&batch| {
            let rate = Spread::of(self.decode(&mut engine, batch)?);
            Ok(DecodeFigures::new(batch, rate, &costs, self.context + self.steps / 2, &limits))
        });
        let decode = decode.collect::<anyhow::Result<_>>()?;
        let prefill = self.prefills.iter().map(|&tokens| {
            let rate = Spread::of(self.prefill(&mut engine, tokens)?);
            Ok(PrefillFigures::new(tokens, rate, &costs, &limits))
        });
        let prefill = prefill.collect::<anyhow::Result<_>>()?;
        Ok(EngineReport {
            model: self.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            device: self.device.to_string(),
            context: self.context,
            steps: self.steps,
            rounds: self.rounds,
            limits,
            decode,
            prefill,
        })
    }

    fn load(&self, config: &DecoderConfig) -> anyhow::Result<Decoder> {
        let batch = self.batches.iter().max().copied().unwrap_or(1);
        let decoding = batch * (self.context + self.steps + 1).next_multiple_of(BLOCK_TOKENS);
        let prompt = self.prefills.iter().max().copied().unwrap_or(0);
        let options = EngineOptions {
            dtype: DType::Bf16,
            device: self.device,
            kv_tokens: decoding + prompt.next_multiple_of(BLOCK_TOKENS),
            block_tokens: BLOCK_TOKENS,
            threads: None,
            deterministic: false,
        };
        let whole = LayerPlan::even(config.num_hidden_layers as u32, 1)?;
        let weights = Weights::open(&self.model)?;
        let mut engine = Decoder::from_weights(config, &weights, &whole, 0, &options)?;
        engine.warm_up(PREFILL_ROWS.max(prompt) as usize, batch as usize)?;
        Ok(engine)
    }

    /// Tokens a second of each round. Every round starts where the prompts end: the engine cuts sequences back.
    fn decode(&self, engine: &mut Decoder, batch: u32) -> anyhow::Result<Vec<f64>> {
        let prompts = prompts(engine, batch, self.context);
        let prompts_a_step = (PREFILL_ROWS / self.context).max(1) as usize;
        let slices: Vec<Slice> = (0..).zip(prompts).map(|(sequence, ids)| slice(sequence, 0, ids)).collect();
        let mut firsts = Vec::new();
        for slices in slices.chunks(prompts_a_step) {
            firsts.extend(greedy_step(engine, slices)?);
        }
        let mut round = || {
            let mut ids = firsts.clone();
            let started = Instant::now();
            for position in self.context..self.context + self.steps {
                let latest = (0..).zip(ids).map(|(sequence, id)| slice(sequence, position, vec![id]));
                ids = greedy_step(engine, &latest.collect::<Vec<_>>())?;
            }
            Ok(f64::from(batch * self.steps) / started.elapsed().as_secs_f64())
        };
        // The first one is not measured.
        let rates = (0..=self.rounds).map(|_| round()).skip(1).collect();
        (0..batch).for_each(|sequence| engine.release(SequenceId(sequence.into())));
        rates
    }

    /// Tokens a second of each round.
    fn prefill(&self, engine: &mut Decoder, tokens: u32) -> anyhow::Result<Vec<f64>> {
        let [prompt] = &prompts(engine, 1, tokens)[..] else { bail!("one prompt was asked for") };
        let slices = [slice(0, 0, prompt.clone())];
        let mut round = || {
            let started = Instant::now();
            greedy_step(engine, &slices)?;
            Ok(f64::from(tokens) / started.elapsed().as_secs_f64())
        };
        let rates = (0..=self.rounds).map(|_| round()).skip(1).collect();
        engine.release(SequenceId(0));
        rates
    }
}

fn prompts(engine: &Decoder, batch: u32, tokens: u32) -> Vec<Vec<u32>> {
    let vocabulary = engine.vocabulary();
    Workload { batch, prompt_tokens: tokens, steps: 0, round: 0, vocabulary }.prompts()
}

fn slice(sequence: u64, start: u32, ids: Vec<u32>) -> Slice {
    Slice { sequence: SequenceId(sequence), start, ids, sample: true }
}

/// The most probable id behind each slice. It is on the host when this returns, so the step is over.
fn greedy_step(engine: &mut Decoder, slices: &[Slice]) -> anyhow::Result<Vec<u32>> {
    let greedy = RowSpec { candidates: 1, ..RowSpec::default() };
    let specs = vec![greedy; slices.len()];
    let StepOutput::Rows(rows) = engine.forward(&StepBatch::new(slices, &specs), None)? else {
        bail!("the whole model gave no logits");
    };
    rows.into_iter().map(|row| Ok(row?.candidates.first().context("a row without candidates")?.0)).collect()
}
