//! An engine without a model: repeats the prompt, at no cost. For measuring all that is not the forward pass.

use std::collections::HashMap;

use anyhow::ensure;
use schemas::{SequenceId, Tensor};

use super::blocks::Blocks;
use super::step::{Engine, RowError, RowOutput, RowSpec, StepBatch, StepOutput};

/// Gives the prompt's ids over and over as the answer, and counts blocks as if it had a KV cache.
#[derive(Debug)]
pub struct Echo {
    last: bool,
    blocks: Blocks,
    prompts: HashMap<SequenceId, Prompt>,
}

#[derive(Debug, Default)]
struct Prompt {
    ids: Vec<u32>,
    /// Whether a token has been asked for: what was given up to then is the prompt.
    complete: bool,
}

impl Echo {
    /// `last`: whether this is the last shard, which gives rows.
    pub fn new(last: bool, kv_tokens: u32, block_tokens: u32) -> anyhow::Result<Self> {
        Ok(Self { last, blocks: Blocks::new(kv_tokens, block_tokens)?, prompts: HashMap::new() })
    }
}

impl Prompt {
    /// The id that stands at `position`, when prompts follow each other without end.
    fn at(&self, position: u32) -> u32 {
        self.ids[position as usize % self.ids.len()]
    }
}

impl Engine for Echo {
    fn forward(&mut self, batch: &StepBatch<'_>, _states: Option<&Tensor>) -> anyhow::Result<StepOutput> {
        let samples = batch.slices.iter().filter(|slice| slice.sample).count();
        ensure!(
            !self.last || samples == batch.rows.len(),
            "{samples} slices give a token, but {} rows are asked for",
            batch.rows.len()
        );
        self.blocks.extend(batch.slices)?;
        let mut specs = batch.rows.iter();
        let mut rows = Vec::new();
        for slice in batch.slices {
            let prompt = self.prompts.entry(slice.sequence).or_default();
            if (slice.start as usize) < prompt.ids.len() {
                prompt.ids.truncate(slice.start as usize);
                prompt.complete = false;
            }
            if !prompt.complete {
                prompt.ids.extend(&slice.ids);
                prompt.complete = slice.sample;
            }
            if self.last && slice.sample {
                let id = prompt.at(slice.start + slice.ids.len() as u32);
                rows.extend(specs.next().map(|spec| Ok(row(id, spec))));
            }
        }
        Ok(if self.last { StepOutput::Rows(rows) } else { StepOutput::Hidden(None) })
    }

    fn full_row(&self, _: SequenceId, _: u32, _: &RowSpec) -> Option<Result<RowOutput, RowError>> {
        None
    }

    fn release(&mut self, sequence: SequenceId) {
        self.blocks.release(sequence);
        self.prompts.remove(&sequence);
    }

    fn blocks_total(&self) -> u32 {
        self.blocks.total()
    }

    fn blocks_used(&self) -> u32 {
        self.blocks.used()
    }

    fn block_tokens(&self) -> u32 {
        self.blocks.block_tokens()
    }

    /// 1, so that a row of one candidate is complete. Any id may be given.
    fn vocabulary(&self) -> u32 {
        1
    }
}

/// All of the distribution on `id`.
fn row(id: u32, spec: &RowSpec) -> RowOutput {
    let extra = spec.extras.contains(&id);
    let logit = |other: u32| if other == id { 0.0 } else { f32::MIN };
    let logsumexp = if extra { f32::NEG_INFINITY } else { 0.0 };
    RowOutput {
        candidates: if extra { Vec::new() } else { vec![(id, 0.0)] },
        extras: spec.extras.iter().map(|&other| (other, logit(other))).collect(),
        logsumexp,
        logsumexp_scaled: logsumexp,
    }
}

#[cfg(test)]
mod tests {
    use schemas::hidden::Slice;

    use super::*;

    fn step(echo: &mut Echo, start: u32, ids: &[u32], sample: bool) -> Vec<u32> {
        let slices = [Slice { sequence: SequenceId(1), start, ids: ids.to_vec(), sample }];
        let specs = vec![RowSpec { candidates: 1, ..RowSpec::default() }; usize::from(sample)];
        match echo.forward(&StepBatch::new(&slices, &specs), None).unwrap() {
            StepOutput::Rows(rows) => rows.into_iter().map(|row| row.unwrap().candidates[0].0).collect(),
            StepOutput::Hidden(_) => panic!("the last shard gives rows"),
        }
    }

    #[test]
    fn the_answer_repeats_a_prompt_that_came_in_chunks() {
        let mut echo = Echo::new(true, 64, 16).unwrap();
        assert!(step(&mut echo, 0, &[7, 8], false).is_empty());
        let mut drawn = step(&mut echo, 2, &[9], true);
        for position in 3..8 {
            let last = drawn[drawn.len() - 1];
            drawn.extend(step(&mut echo, position, &[last], true));
        }
        assert_eq!(drawn, [7, 8, 9, 7, 8, 9]);
        assert_eq!(echo.blocks_used(), 1);
        echo.release(SequenceId(1));
        assert_eq!(echo.blocks_used(), 0);
    }
}
