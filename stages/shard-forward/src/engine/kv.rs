//! Keys and values of all sequences, in blocks.

use schemas::SequenceId;
use schemas::hidden::Slice;
use tch::{Device, Kind, Tensor};

use super::blocks::Blocks;

/// A pool of blocks for every layer of the shard, and who holds which.
///
/// A block holds `block_tokens` positions of one sequence. In a pool it lies as
/// `[key or value, n_kv_heads, block_tokens, head_dim]`, so that one gather of runs of `block_tokens * head_dim` elements
/// gives each head's keys in one piece.
#[derive(Debug)]
pub(super) struct KvCache {
    pub(super) blocks: Blocks,
    /// One a layer, `[n_blocks * 2 * n_kv_heads * block_tokens, head_dim]`. Memory is touched when a block is first taken.
    pools: Vec<Tensor>,
    n_kv_heads: u32,
    head_dim: i64,
    /// `[2 * n_kv_heads]`: keys, then values of each head; as runs of a block.
    heads: Tensor,
}

impl KvCache {
    /// Empty pools of `blocks` for `layers` layers.
    pub(super) fn new(
        blocks: Blocks,
        layers: usize,
        n_kv_heads: u32,
        head_dim: i64,
        options: (Kind, Device),
    ) -> Self {
        let rows = i64::from(blocks.total()) * 2 * i64::from(n_kv_heads) * i64::from(blocks.block_tokens());
        let pools = (0..layers).map(|_| Tensor::empty([rows, head_dim], options)).collect();
        let heads = Tensor::arange(2 * i64::from(n_kv_heads), (Kind::Int64, options.1));
        Self { blocks, pools, n_kv_heads, head_dim, heads }
    }

    /// Makes room for a step's rows and says where they go: `[rows * 2 * n_kv_heads]` rows of a pool.
    ///
    /// New blocks are zeroed: what lies behind a sequence's end is read (its weight is zero), and NaN left there by another
    /// sequence would spread.
    pub(super) fn extend(&mut self, slices: &[Slice]) -> anyhow::Result<Tensor> {
        let taken = self.blocks.extend(slices)?;
        if !taken.is_empty() {
            let index = self.index(&taken.iter().map(|&block| i64::from(block)).collect::<Vec<_>>());
            let n_blocks = i64::from(self.blocks.total());
            for pool in &self.pools {
                let _ = pool.view([n_blocks, -1]).index_fill_(0, &index, 0.0);
            }
        }
        let block_tokens = self.blocks.block_tokens();
        // Each row's place for the first head.
        let mut firsts = Vec::new();
        for slice in slices {
            let blocks = self.blocks.table(slice.sequence);
            firsts.extend((slice.start..slice.start + slice.ids.len() as u32).map(|position| {
                let block = blocks[(position / block_tokens) as usize];
                self.first_run(block) * i64::from(block_tokens) + i64::from(position % block_tokens)
            }));
        }
        let firsts = self.index(&firsts).unsqueeze(1);
        Ok((firsts + &self.heads * i64::from(block_tokens)).view(-1))
    }

    /// The pool of a layer: `[n_blocks, 2, n_kv_heads, block_tokens, head_dim]` in order.
    pub(super) fn pool(&self, layer: usize) -> &Tensor {
        &self.pools[layer]
    }

    pub(super) fn n_kv_heads(&self) -> u32 {
        self.n_kv_heads
    }

    /// Stores the step's keys and values, `[rows, 2 * n_kv_heads, head_dim]`, at the places that `extend` gave.
    pub(super) fn write(&self, layer: usize, slots: &Tensor, keys_values: &Tensor) {
        let mut pool = self.pools[layer].shallow_clone();
        let _ = pool.index_copy_(0, slots, &keys_values.view([-1, self.head_dim]).to_kind(pool.kind()));
    }

    /// Where the keys and values of `sequences` are, `n_blocks` blocks each from the given one on; where there are fewer, one is
    /// repeated.
    pub(super) fn gather_index(&self, sequences: &[(SequenceId, usize)], n_blocks: usize) -> Tensor {
        // Each block's run for the first head.
        let mut firsts = Vec::with_capacity(sequences.len() * n_blocks);
        for (sequence, first) in sequences {
            let blocks = &self.blocks.table(*sequence)[*first..];
            let block = |i| *blocks.get(i).unwrap_or(&blocks[0]);
            firsts.extend((0..n_blocks).map(|i| self.first_run(block(i))));
        }
        let firsts = self.index(&firsts).view([1, sequences.len() as i64, 1, n_blocks as i64]);
        (firsts + self.heads.view([2, 1, -1, 1])).view(-1)
    }

    /// Copies what `gather_index` points at: `[2, n_sequences, n_kv_heads, n_blocks * block_tokens, head_dim]`,
    /// keys first, then values.
    pub(super) fn gather(&self, layer: usize, index: &Tensor, n_sequences: i64) -> Tensor {
        let run = i64::from(self.blocks.block_tokens()) * self.head_dim;
        let runs = self.pools[layer].view([-1, run]).index_select(0, index);
        runs.view([2, n_sequences, i64::from(self.n_kv_heads), -1, self.head_dim])
    }

    /// The run of `block_tokens` rows of a pool where the keys of a block's first head are; those of the others follow.
    fn first_run(&self, block: u32) -> i64 {
        i64::from(block) * 2 * i64::from(self.n_kv_heads)
    }

    fn index(&self, rows: &[i64]) -> Tensor {
        Tensor::from_slice(rows).to_device(self.heads.device())
    }
}
