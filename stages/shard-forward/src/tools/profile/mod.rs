//! `tokenway profile`: where the time of a model's steps goes, by operation and by layer, and what the machine would allow.

mod report;
mod summary;
mod trace;

use std::fs::File;
use std::time::Instant;

use pipelines::tools::Profile;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use tch::Kind;

use super::exit::{misuse, unusable};
use super::limits::Limits;
use super::model;
use super::progress::Progress;
use crate::engine::{Decoder, Engine as _, Recorder, Recording};
pub use report::{Group, LayerRow, OperationRow, PhaseReport, ProfileReport};
use trace::Trace;

/// Times that the prompt is computed, recorded and not.
const PROMPTS: u32 = 3;

/// Steps of one kind, once with the recorder off, once with it on.
struct Phase {
    name: &'static str,
    /// Rows of a step.
    rows: u32,
    steps: u32,
    /// Of all steps, not recorded.
    undisturbed_seconds: f64,
    /// Of all steps, recorded.
    seconds: f64,
    recording: Recording,
}

/// Measures the machine, then the model's steps on it, and writes the trace where one is wanted.
pub fn run(arguments: &Profile) -> anyhow::Result<ProfileReport> {
    let folder = model::open(&arguments.model)?;
    let tokens = arguments.prompt.saturating_add(arguments.generate);
    let options =
        model::options(&folder, &arguments.compute, arguments.dtype, (arguments.batch.into(), tokens))?;
    let trace = arguments
        .trace
        .as_deref()
        .map(|path| File::create(path).map_err(|error| misuse(format!("`{}`: {error}", path.display()))));
    let trace = trace.transpose()?;
    let kind = if options.dtype == DType::F32 { Kind::Float } else { Kind::BFloat16 };
    let limits = Limits::measure(options.device.open().map_err(unusable)?, kind);
    let (mut engine, recorder) = Decoder::load_recorded(&folder, &options).map_err(unusable)?;

    let progress = Progress::new(2);
    progress.now("prefill");
    let prefill = prefill(&mut engine, &recorder, arguments.prompt)?;
    progress.step();
    progress.now("decode");
    let decode = decode(&mut engine, &recorder, arguments)?;
    progress.step();
    if let Some(file) = trace {
        progress.now("trace");
        Trace::new(file).write(&[&prefill, &decode])?;
    }
    Ok(ProfileReport {
        model: model::name(&folder),
        device: options.device.to_string(),
        dtype: arguments.dtype,
        threads: model::threads(),
        prompt: arguments.prompt,
        batch: arguments.batch,
        trace: arguments.trace.clone(),
        phases: [&prefill, &decode].into_iter().map(|phase| PhaseReport::new(phase, &limits)).collect(),
        limits,
    })
}

/// A prompt in one step, several times.
fn prefill(engine: &mut Decoder, recorder: &Recorder, prompt: u32) -> anyhow::Result<Phase> {
    let slices = [model::slice(0, 0, ids(engine, prompt))];
    let steps = |engine: &mut Decoder, times: u32| -> anyhow::Result<f64> {
        let mut seconds = 0.0;
        for _ in 0..times {
            let started = Instant::now();
            model::step(engine, &slices, &model::greedy())?;
            seconds += started.elapsed().as_secs_f64();
            engine.release(SequenceId(0));
        }
        Ok(seconds)
    };
    // Once to load and compile what it needs.
    steps(engine, 1)?;
    let undisturbed_seconds = steps(engine, PROMPTS)?;
    recorder.start();
    let seconds = steps(engine, PROMPTS)?;
    let recording = recorder.stop();
    Ok(Phase { name: "prefill", rows: prompt, steps: PROMPTS, undisturbed_seconds, seconds, recording })
}

/// Steps of one token of each sequence behind its prompt.
fn decode(engine: &mut Decoder, recorder: &Recorder, arguments: &Profile) -> anyhow::Result<Phase> {
    let batch = u64::from(arguments.batch);
    for sequence in 0..batch {
        let prompt = ids(engine, arguments.prompt);
        model::step(engine, &[model::slice(sequence, 0, prompt)], &model::greedy())?;
    }
    let generated = ids(engine, arguments.generate);
    // The engine cuts sequences back, so every run starts where the prompts end.
    let steps = |engine: &mut Decoder| -> anyhow::Result<f64> {
        let started = Instant::now();
        for (position, id) in (arguments.prompt..).zip(&generated) {
            let slices = (0..batch).map(|sequence| model::slice(sequence, position, vec![*id]));
            model::step(engine, &slices.collect::<Vec<Slice>>(), &model::greedy())?;
        }
        Ok(started.elapsed().as_secs_f64())
    };
    steps(engine)?;
    let undisturbed_seconds = steps(engine)?;
    recorder.start();
    let seconds = steps(engine)?;
    let recording = recorder.stop();
    (0..batch).for_each(|sequence| engine.release(SequenceId(sequence)));
    let (rows, steps) = (arguments.batch.into(), arguments.generate);
    Ok(Phase { name: "decode", rows, steps, undisturbed_seconds, seconds, recording })
}

/// Random ones.
fn ids(engine: &Decoder, count: u32) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(0);
    (0..count).map(|_| random.random_range(0..engine.vocabulary())).collect()
}

#[cfg(test)]
mod tests;
