//! Whether the model computes, and the same in parts as in whole. In deterministic mode, so equal means equal in every bit.

use anyhow::{Context as _, bail, ensure};
use models::{ModelFolder, Tokenizer};
use schemas::SequenceId;
use schemas::hidden::Slice;

use super::Finding;
use crate::engine::{Decoder, Engine as _, EngineOptions, RowSpec, StepBatch, StepOutput};
use crate::tools::model;

/// Tokens that are generated.
pub(super) const CONTINUED: u32 = 16;

/// Sequences in the cache at once.
pub(super) const SEQUENCES: u32 = 4;

const PROMPT_TOKENS_MAX: u32 = 48;
const TEXT: &str = "What is 12 + 30? A farmer has twelve sheep and buys thirty more, so now there are forty-two of them. \
                    Count them again, and write down the number that you find.";

/// The logits of every row of the prompt, one row after the other.
pub(super) struct Logits {
    numbers: Vec<f32>,
    vocabulary: usize,
}

/// How long the prompt is at most.
pub(super) fn prompt_tokens(folder: &ModelFolder) -> u32 {
    PROMPT_TOKENS_MAX.min(folder.context_length() / 2).max(1)
}

/// Tokens of a text, or where there is no tokenizer for them, some of the model's.
pub(super) fn prompt(folder: &ModelFolder, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
    let vocabulary = u32::try_from(folder.config().vocab_size).unwrap_or(u32::MAX);
    let of_text = tokenizer.and_then(|tokenizer| tokenizer.encode(TEXT, true).ok());
    let mut ids = of_text
        .filter(|ids| !ids.is_empty() && ids.iter().all(|id| *id < vocabulary))
        .unwrap_or_else(|| (0..PROMPT_TOKENS_MAX).map(|i| i * 37 % vocabulary).collect());
    ids.truncate(prompt_tokens(folder) as usize);
    ids
}

/// Of the whole model, all of them finite.
pub(super) fn logits(engine: &mut Decoder, prompt: &[u32]) -> anyhow::Result<(Logits, String)> {
    let mut numbers = Vec::new();
    let slice = model::slice(0, 0, prompt.to_vec());
    engine.score(&slice, 0, |_, row| numbers.extend_from_slice(row))?;
    engine.release(slice.sequence);
    let not_finite = numbers.iter().filter(|number| !number.is_finite()).count();
    ensure!(not_finite == 0, "{not_finite} of {} logits are not finite", numbers.len());
    let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let detail = format!("{} rows of logits are finite, the largest is {largest:.2}", prompt.len());
    Ok((Logits { numbers, vocabulary: engine.vocabulary() as usize }, detail))
}

/// The same answer twice, and a third time behind a prompt that came in pieces.
pub(super) fn greedy(engine: &mut Decoder, prompt: &[u32]) -> anyhow::Result<Finding> {
    let first = answer(engine, 1, prompt, prompt.len())?;
    for (sequence, piece, how) in [(2, prompt.len(), "again"), (3, 7, "with the prompt in pieces of 7")] {
        let other = answer(engine, sequence, prompt, piece)?;
        ensure!(first == other, "the answer is {first:?}, and {how} it is {other:?}");
    }
    Ok(Finding::Passed(format!(
        "{} tokens are the same three times, once with the prompt in pieces",
        first.len()
    )))
}

/// What the model gives in two shards is what it gives in whole.
pub(super) fn shards(
    folder: &ModelFolder,
    options: &EngineOptions,
    prompt: &[u32],
    whole: &Logits,
) -> anyhow::Result<Finding> {
    if folder.config().num_hidden_layers < 2 {
        return Ok(Finding::Skipped("one layer cannot be cut in two".to_owned()));
    }
    let plan = model::plan(folder, 2)?;
    // Prefixes of the prompt, whose last rows are looked at.
    let mut lengths = vec![1, prompt.len().div_ceil(2), prompt.len()];
    lengths.dedup();
    let slices =
        (0..).zip(&lengths).map(|(sequence, &length)| model::slice(sequence, 0, prompt[..length].to_vec()));
    let slices: Vec<Slice> = slices.collect();
    // One after the other, so that no more of the model is in memory than its half.
    let hidden = {
        let mut first = Decoder::load(folder, &plan, 0, options)?;
        match first.forward(&StepBatch::new(&slices, &[]), None)? {
            StepOutput::Hidden(states) => states.context("the first half gave no hidden states")?,
            StepOutput::Rows(_) => bail!("the first half gave logits"),
        }
    };
    let mut second = Decoder::load(folder, &plan, 1, options)?;
    let complete = RowSpec { candidates: u32::MAX, ..RowSpec::default() };
    let specs = vec![complete; slices.len()];
    let batch = StepBatch::new(&slices, &specs);
    let StepOutput::Rows(rows) = second.forward(&batch, Some(&hidden))? else {
        bail!("the second half gave no logits")
    };
    for (row, length) in rows.into_iter().zip(&lengths) {
        let expected = &whole.numbers[(length - 1) * whole.vocabulary..][..whole.vocabulary];
        for (id, logit) in row?.candidates {
            let expected = expected.get(id as usize).copied().unwrap_or(f32::NAN);
            let (first, last) = (plan.layers()[0], plan.layers()[1]);
            ensure!(
                expected.to_bits() == logit.to_bits(),
                "behind {length} tokens the logit of token {id} is {expected} in whole, {logit} in shards of {first} and {last} layers"
            );
        }
    }
    Ok(Finding::Passed(format!("logits behind {lengths:?} tokens are those of the whole model, bit for bit")))
}

/// The most probable tokens behind a prompt that comes in pieces.
fn answer(engine: &mut Decoder, sequence: u64, prompt: &[u32], piece: usize) -> anyhow::Result<Vec<u32>> {
    let mut next = None;
    let pieces = (0..).step_by(piece).zip(prompt.chunks(piece));
    let mut position = 0;
    for (start, ids) in pieces {
        next = Some(one_step(engine, model::slice(sequence, start, ids.to_vec()))?);
        position = start + ids.len() as u32;
    }
    let mut answer: Vec<u32> = next.into_iter().collect();
    while let Some(latest) = answer.last().copied().filter(|_| answer.len() < CONTINUED as usize) {
        answer.push(one_step(engine, model::slice(sequence, position, vec![latest]))?);
        position += 1;
    }
    engine.release(SequenceId(sequence));
    Ok(answer)
}

fn one_step(engine: &mut Decoder, slice: Slice) -> anyhow::Result<u32> {
    let rows = model::step(engine, &[slice], &model::greedy())?;
    let row = rows.first().context("a step gave no row")?;
    Ok(row.candidates.first().context("a row without candidates")?.0)
}
