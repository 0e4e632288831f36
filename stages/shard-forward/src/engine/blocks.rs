//! Who holds which blocks of the KV cache.

use std::collections::{HashMap, HashSet};

use anyhow::{bail, ensure};
use schemas::SequenceId;
use schemas::hidden::Slice;

/// Block tables of all sequences, and the blocks that are free.
#[derive(Debug)]
pub(super) struct Blocks {
    block_tokens: u32,
    total: u32,
    free: Vec<u32>,
    tables: HashMap<SequenceId, Table>,
}

/// One sequence's blocks: token `p` lies in `blocks[p / block_tokens]`.
#[derive(Debug, Default)]
struct Table {
    /// Blocks in the order of positions.
    blocks: Vec<u32>,
    /// Tokens held.
    tokens: u32,
}

/// A step does not fit into the KV cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a step needs {needed} more blocks of the KV cache, {free} of {total} are free")]
pub struct OutOfBlocks {
    /// Blocks that the step would take.
    pub needed: u32,
    /// Blocks that are free.
    pub free: u32,
    /// Blocks of the cache.
    pub total: u32,
}

impl Blocks {
    /// As many blocks as hold `tokens` tokens, all free.
    pub(super) fn new(tokens: u32, block_tokens: u32) -> anyhow::Result<Self> {
        ensure!(block_tokens > 0, "`block_tokens` is 0");
        ensure!(tokens >= block_tokens, "`kv_tokens` is {tokens}, less than one block of {block_tokens}");
        let total = tokens / block_tokens;
        Ok(Self { block_tokens, total, free: (0..total).rev().collect(), tables: HashMap::new() })
    }

    /// Makes room for the rows of a step and returns the blocks it took; on an error nothing has changed.
    pub(super) fn extend(&mut self, slices: &[Slice]) -> anyhow::Result<Vec<u32>> {
        let (mut needed, mut freed) = (0, 0);
        let mut seen = HashSet::new();
        for slice in slices {
            let sequence = slice.sequence.0;
            let held = self.tokens(slice.sequence);
            let end = u32::try_from(slice.ids.len()).ok().and_then(|rows| slice.start.checked_add(rows));
            let Some(end) = end else { bail!("sequence {sequence} is too long") };
            ensure!(seen.insert(sequence), "two slices of sequence {sequence} in one step");
            ensure!(end > slice.start, "a slice of sequence {sequence} without rows");
            ensure!(
                slice.start <= held,
                "rows of sequence {sequence} start at {}, but it holds {held} tokens",
                slice.start
            );
            let (before, after) = (held.div_ceil(self.block_tokens), end.div_ceil(self.block_tokens));
            needed += after.saturating_sub(before);
            freed += before.saturating_sub(after);
        }
        let free = self.free.len() as u32;
        ensure!(needed <= free + freed, OutOfBlocks { needed, free, total: self.total });
        let mut taken = Vec::new();
        for slice in slices {
            self.cut(slice.sequence, slice.start);
        }
        for slice in slices {
            let table = self.tables.entry(slice.sequence).or_default();
            table.tokens = slice.start + slice.ids.len() as u32;
            while (table.blocks.len() as u32) < table.tokens.div_ceil(self.block_tokens) {
                let block = self.free.pop().expect("the step's blocks were counted");
                table.blocks.push(block);
                taken.push(block);
            }
        }
        Ok(taken)
    }

    /// Shortens a sequence to `tokens` tokens where it is longer.
    fn cut(&mut self, sequence: SequenceId, tokens: u32) {
        let Some(table) = self.tables.get_mut(&sequence) else { return };
        if table.tokens > tokens {
            table.tokens = tokens;
            let kept = tokens.div_ceil(self.block_tokens) as usize;
            self.free.extend(table.blocks.drain(kept..).rev());
        }
    }

    /// Frees a sequence's blocks.
    pub(super) fn release(&mut self, sequence: SequenceId) {
        if let Some(table) = self.tables.remove(&sequence) {
            self.free.extend(table.blocks.into_iter().rev());
        }
    }

    /// The blocks of a sequence in the order of positions; none of an unknown one.
    pub(super) fn table(&self, sequence: SequenceId) -> &[u32] {
        self.tables.get(&sequence).map_or(&[], |table| &table.blocks)
    }

    /// Tokens held of a sequence; 0 for an unknown one.
    pub(super) fn tokens(&self, sequence: SequenceId) -> u32 {
        self.tables.get(&sequence).map_or(0, |table| table.tokens)
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    pub(super) fn used(&self) -> u32 {
        self.total - self.free.len() as u32
    }

    pub(super) fn block_tokens(&self) -> u32 {
        self.block_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(sequence: u64, start: u32, rows: usize) -> Slice {
        Slice { sequence: SequenceId(sequence), start, ids: vec![0; rows], sample: false }
    }

    #[test]
    fn sequences_take_blocks_as_they_grow_and_give_them_back() {
        let mut blocks = Blocks::new(64, 16).unwrap();
        assert_eq!(blocks.extend(&[slice(1, 0, 16), slice(2, 0, 17)]).unwrap().len(), 3);
        assert_eq!(blocks.extend(&[slice(1, 16, 1)]).unwrap().len(), 1);
        assert_eq!(blocks.used(), 4);
        assert_ne!(blocks.table(SequenceId(1)), blocks.table(SequenceId(2)));
        blocks.release(SequenceId(1));
        blocks.release(SequenceId(3));
        assert_eq!((blocks.used(), blocks.tokens(SequenceId(1))), (2, 0));
    }

    #[test]
    fn a_step_that_does_not_fit_changes_nothing() {
        let mut blocks = Blocks::new(48, 16).unwrap();
        blocks.extend(&[slice(1, 0, 20)]).unwrap();
        let error = blocks.extend(&[slice(1, 20, 1), slice(2, 0, 17)]).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&OutOfBlocks { needed: 2, free: 1, total: 3 }));
        assert_eq!((blocks.used(), blocks.tokens(SequenceId(1)), blocks.tokens(SequenceId(2))), (2, 20, 0));
        assert!(blocks.extend(&[slice(1, 21, 1)]).is_err(), "a gap");
    }

    #[test]
    fn an_earlier_start_cuts_the_sequence_back() {
        let mut blocks = Blocks::new(64, 16).unwrap();
        blocks.extend(&[slice(1, 0, 60)]).unwrap();
        let first = blocks.table(SequenceId(1))[0];
        assert!(blocks.extend(&[slice(1, 10, 1)]).unwrap().is_empty());
        assert_eq!((blocks.tokens(SequenceId(1)), blocks.used()), (11, 1));
        assert_eq!(blocks.table(SequenceId(1)), [first]);
    }
}
