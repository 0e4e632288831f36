//! Models whose longer sequences have other keys and values.

use schemas::control::{Control, Open};
use schemas::hidden::Hidden;
use schemas::{SequenceId, Tensor};

use super::{Bench, released, sequences};
use crate::engine::{Echo, Engine, RowError, RowOutput, RowSpec, StepBatch, StepOutput};

const SHORT_LENGTH: u32 = 6;

/// An echo that has a short length, and remembers nothing of it.
struct Outgrown(Echo);

impl Engine for Outgrown {
    fn forward(&mut self, batch: &StepBatch<'_>, states: Option<&Tensor>) -> anyhow::Result<StepOutput> {
        assert_eq!(batch.opened.len(), batch.slices.len());
        for (slice, opened) in batch.slices.iter().zip(batch.opened) {
            let end = slice.start + slice.ids.len() as u32;
            assert!(end <= SHORT_LENGTH || *opened > SHORT_LENGTH, "{slice:?} was opened with {opened}");
        }
        self.0.forward(batch, states)
    }

    fn full_row(&self, id: SequenceId, at: u32, spec: &RowSpec) -> Option<Result<RowOutput, RowError>> {
        self.0.full_row(id, at, spec)
    }

    fn release(&mut self, sequence: SequenceId) {
        self.0.release(sequence);
    }

    fn blocks_total(&self) -> u32 {
        self.0.blocks_total()
    }

    fn blocks_used(&self) -> u32 {
        self.0.blocks_used()
    }

    fn block_tokens(&self) -> u32 {
        self.0.block_tokens()
    }

    fn vocabulary(&self) -> u32 {
        self.0.vocabulary()
    }

    fn short_length(&self) -> Option<u32> {
        Some(SHORT_LENGTH)
    }
}

fn opened(step: &Hidden) -> Vec<Open> {
    let open = |control: &Control| match control {
        Control::Open(open) => Some(Open::clone(open)),
        _ => None,
    };
    step.head.control.iter().filter_map(open).collect()
}

#[test]
fn a_sequence_that_outgrows_the_short_length_is_opened_anew_with_its_tokens_forced() {
    let mut bench = Bench::with_engine(|_| {}, |echo| Box::new(Outgrown(echo)));
    let (_, came) = bench.submit(&[4, 5]);
    let mut step = came.steps[0].clone();
    let at_first = sequences(&step);
    let mut anew = Vec::new();
    for _ in 0..5 {
        step = bench.draw(&step, None).steps.remove(0);
        let (opened, released) = (opened(&step), released(&step));
        assert_eq!(opened.len(), released.len());
        for open in opened {
            let slice = step.slices.iter().find(|slice| slice.sequence == open.sequence).unwrap();
            assert_eq!((slice.start, slice.ids.len()), (0, 7));
            anew.push((open.prompt_tokens, open.forced_tokens));
        }
        assert!(released.iter().all(|sequence| at_first.contains(sequence)));
    }
    assert_eq!(anew, [(5, 2), (4, 3)]);
    assert_eq!(step.slices.len(), 2);
    assert!(step.slices.iter().all(|slice| !at_first.contains(&slice.sequence) && slice.ids.len() == 1));
}

#[test]
fn a_prompt_beyond_the_short_length_is_opened_once() {
    let mut bench = Bench::with_engine(|_| {}, |echo| Box::new(Outgrown(echo)));
    let (_, came) = bench.submit(&[9]);
    let mut step = came.steps[0].clone();
    for _ in 0..3 {
        step = bench.draw(&step, None).steps.remove(0);
        assert!(opened(&step).is_empty() && released(&step).is_empty());
    }
}
