//! `tokenway bench`: tokens per second of an engine alone, on random ids.
//!
//! The tests are those of llama-bench: `pp512` is a prompt, `tg128` a generation from an empty cache, whose ids are random too.

mod report;

use std::time::Instant;

use pipelines::tools::Bench;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schemas::{DType, SequenceId};
use tch::Kind;

use super::exit::{misuse, unusable};
use super::limits::Limits;
use super::model;
use super::progress::Progress;
use super::sample::Sample;
use crate::engine::{Decoder, Engine as _};
use report::Row;
pub use report::{BenchReport, Work};

/// Rows of a step while prompts are computed.
const STEP_ROWS: usize = 512;

/// Measures the machine, then the model on it.
pub fn run(arguments: &Bench) -> anyhow::Result<BenchReport> {
    if arguments.prompt == 0 && arguments.generate == 0 {
        return Err(misuse("`--prompt` and `--generate` are both 0: nothing is left to measure"));
    }
    let folder = model::open(&arguments.model)?;
    let sequences = arguments.batch.iter().max().copied().unwrap_or(1).into();
    let tokens = arguments.prompt.max(arguments.generate);
    let options = model::options(&folder, &arguments.compute, arguments.dtype, (sequences, tokens))?;
    let kind = if options.dtype == DType::F32 { Kind::Float } else { Kind::BFloat16 };
    let limits = Limits::measure(options.device.open().map_err(unusable)?, kind);
    let mut engine = model::load(&folder, &options)?;
    engine.warm_up(STEP_ROWS, sequences as usize)?;

    let works = [Work::Prompt(arguments.prompt), Work::Generation(arguments.generate)];
    let works = works.iter().filter(|work| work.tokens() > 0);
    let tests: Vec<(Work, u16)> =
        works.flat_map(|work| arguments.batch.iter().map(|batch| (*work, *batch))).collect();
    let progress = Progress::new(tests.len() as u64 * (u64::from(arguments.repetitions) + 1));
    let mut rows = Vec::with_capacity(tests.len());
    for (work, batch) in tests {
        progress.now(format!("{work}, batch {batch}"));
        let mut rates = Vec::with_capacity(arguments.repetitions.into());
        for repetition in 0..=arguments.repetitions {
            let rate = measure(&mut engine, work, batch.into())?;
            // The first one loads and compiles what it needs.
            if repetition > 0 {
                rates.push(rate);
            }
            progress.step();
        }
        rows.push(Row::new(work, batch, Sample::of(&rates), engine.row_bytes(), &limits));
    }
    Ok(BenchReport {
        model: model::name(&folder),
        device: options.device.to_string(),
        dtype: arguments.dtype,
        threads: model::threads(),
        row_bytes: engine.row_bytes(),
        repetitions: arguments.repetitions,
        limits,
        rows,
    })
}

/// Tokens per second of all sequences together.
fn measure(engine: &mut Decoder, work: Work, batch: u32) -> anyhow::Result<f64> {
    let mut random = StdRng::seed_from_u64(0);
    let vocabulary = engine.vocabulary();
    let mut ids =
        |count: u32| -> Vec<u32> { (0..count).map(|_| random.random_range(0..vocabulary)).collect() };
    let sequences: Vec<Vec<u32>> = (0..batch).map(|_| ids(work.tokens())).collect();
    let started = Instant::now();
    match work {
        Work::Prompt(_) => prompts(engine, &sequences)?,
        Work::Generation(tokens) => generate(engine, &sequences, tokens)?,
    }
    let seconds = started.elapsed().as_secs_f64();
    (0..batch).for_each(|sequence| engine.release(SequenceId(sequence.into())));
    Ok(f64::from(batch) * f64::from(work.tokens()) / seconds)
}

/// One prompt after the other, in steps of at most [`STEP_ROWS`] rows; short ones share a step.
fn prompts(engine: &mut Decoder, prompts: &[Vec<u32>]) -> anyhow::Result<()> {
    let mut slices = Vec::new();
    let mut rows = 0;
    for (sequence, prompt) in (0..).zip(prompts) {
        for (start, chunk) in (0..).step_by(STEP_ROWS).zip(prompt.chunks(STEP_ROWS)) {
            if rows + chunk.len() > STEP_ROWS {
                model::step(engine, &slices, &model::greedy())?;
                slices.clear();
                rows = 0;
            }
            let mut slice = model::slice(sequence, start, chunk.to_vec());
            slice.sample = start as usize + chunk.len() == prompt.len();
            slices.push(slice);
            rows += chunk.len();
        }
    }
    model::step(engine, &slices, &model::greedy())?;
    Ok(())
}

/// One token of each sequence a step.
fn generate(engine: &mut Decoder, sequences: &[Vec<u32>], tokens: u32) -> anyhow::Result<()> {
    for position in 0..tokens {
        let id = |ids: &Vec<u32>| ids.get(position as usize).copied().into_iter().collect();
        let slices = (0..).zip(sequences).map(|(sequence, ids)| model::slice(sequence, position, id(ids)));
        model::step(engine, &slices.collect::<Vec<_>>(), &model::greedy())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
