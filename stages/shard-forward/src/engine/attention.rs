//! Causal attention of a step's rows over their sequences' keys and values, by libtorch.
//!
//! Query heads of one KV head are handled together: folded into query rows where a sequence has one row, expanded
//! without a copy where it has many. (`enable_gqa` of libtorch is eight times slower in bf16 on CPUs.)
//!
//! Keys come in whole blocks and, on the CPU, query rows of prefill in steps of `ROWS_STEP`: libtorch's attention compiles code
//! there for every pair of lengths that it meets and keeps it for good, 800 MiB after a few thousand prompts of up to 1,500 tokens.

use std::ops::Range;

use schemas::SequenceId;
use schemas::hidden::Slice;
use tch::{Device, Kind, Tensor};

use super::kv::KvCache;
use super::ops::{Attention, Scoring};

/// Query rows of a prefill are padded to a multiple of this on the CPU.
const ROWS_STEP: usize = 32;

/// How one step's rows attend, the same in every layer that sees as far.
#[derive(Debug)]
pub(super) struct AttentionPlan {
    parts: Vec<Part>,
    scoring: Scoring,
    rows: i64,
}

#[derive(Debug)]
enum Part {
    /// One row each of sequences of similar length.
    Decode(Decode),
    /// The first rows of a sequence: they attend to each other only, each to all before it, with nothing done to scores that
    /// libtorch's kernel does not do.
    First { rows: Range<i64> },
    /// Other rows of a sequence.
    Chunk {
        rows: Range<i64>,
        /// Where the sequence's keys and values are.
        keys_values: Tensor,
        /// `[padded rows, tokens of whole blocks]`: 0 where a row sees a token, else −∞.
        mask: Tensor,
    },
}

#[derive(Debug)]
struct Decode {
    /// Which rows of the step; none when it is all of them in order.
    rows: Option<Tensor>,
    n_sequences: i64,
    /// Where the sequences' keys and values are.
    keys_values: Tensor,
    /// How many tokens of each are looked at.
    tokens: i64,
    /// `[n_sequences, 1, 1, tokens]`: 0 where the row sees a token, else −∞; none when all see all of them.
    mask: Option<Tensor>,
}

/// A slice of one row.
#[derive(Debug, Clone, Copy)]
struct DecodeRow {
    /// Its row in the step.
    row: i64,
    sequence: SequenceId,
    /// The sequence's first block that it sees anything of.
    first_block: u32,
    /// Tokens from that block on that it does not see.
    hidden: u32,
    /// Tokens from that block on, its own included.
    tokens: u32,
}

impl DecodeRow {
    /// The row of a sequence of `tokens` tokens, its own included, that sees the last `window` of them.
    fn new(row: i64, sequence: SequenceId, tokens: u32, window: Option<u32>, block_tokens: u32) -> Self {
        let first = first_seen(tokens - 1, window);
        let first_block = first / block_tokens;
        let before = first_block * block_tokens;
        Self { row, sequence, first_block, hidden: first - before, tokens: tokens - before }
    }
}

/// The first position that a row at `position` sees.
fn first_seen(position: u32, window: Option<u32>) -> u32 {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

impl AttentionPlan {
    /// Plans a step whose rows `kv` has made room for.
    pub(super) fn new(
        slices: &[Slice],
        kv: &KvCache,
        window: Option<u32>,
        scoring: Scoring,
        options: (Kind, Device),
    ) -> Self {
        let block_tokens = kv.blocks.block_tokens();
        let mut parts = Vec::new();
        let mut decode = Vec::new();
        let mut row = 0;
        for slice in slices {
            let rows = row..row + slice.ids.len() as i64;
            let tokens = slice.start + slice.ids.len() as u32;
            if slice.ids.len() == 1 {
                decode.push(DecodeRow::new(row, slice.sequence, tokens, window, block_tokens));
            } else if slice.start == 0
                && window.is_none_or(|window| tokens <= window)
                && scoring.softcap.is_none()
            {
                parts.push(Part::First { rows: rows.clone() });
            } else {
                let first_block = first_seen(slice.start, window) / block_tokens;
                let n_blocks = kv.blocks.table(slice.sequence).len() - first_block as usize;
                let seen = first_block * block_tokens..(first_block + n_blocks as u32) * block_tokens;
                parts.push(Part::Chunk {
                    rows: rows.clone(),
                    keys_values: kv.gather_index(&[(slice.sequence, first_block as usize)], n_blocks),
                    mask: causal_mask(slice, seen, window, options),
                });
            }
            row = rows.end;
        }
        let mixed = !parts.is_empty();
        let groups = group_by_length(decode);
        let whole = !mixed && groups.len() == 1;
        parts.extend(groups.iter().map(|group| Part::Decode(Decode::new(group, whole, kv, options))));
        Self { parts, scoring, rows: row }
    }
}

impl Attention for AttentionPlan {
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, keys_values: &Tensor) -> Tensor {
        if let [Part::Decode(decode @ Decode { rows: None, .. })] = &self.parts[..] {
            return decode.forward(layer, kv, q, self.scoring).view([self.rows, -1]);
        }
        let out = Tensor::empty(q.size(), (q.kind(), q.device()));
        for part in &self.parts {
            match part {
                Part::Decode(decode) => match &decode.rows {
                    Some(rows) => {
                        let attended = decode.forward(layer, kv, &q.index_select(0, rows), self.scoring);
                        let _ = out.shallow_clone().index_copy_(0, rows, &attended);
                    }
                    None => out.shallow_clone().copy_(&decode.forward(layer, kv, q, self.scoring)),
                },
                Part::First { rows } => {
                    let own = padded(&keys_values.narrow(0, rows.start, rows.end - rows.start));
                    let heads = own.chunk(2, 1);
                    let (k, v) = (heads[0].transpose(0, 1), heads[1].transpose(0, 1));
                    prefill(q, &out, rows, &k, &v, None, self.scoring);
                }
                Part::Chunk { rows, keys_values, mask } => {
                    let cached = kv.gather(layer, keys_values, 1);
                    let (k, v) = (cached.get(0).get(0), cached.get(1).get(0));
                    prefill(q, &out, rows, &k, &v, Some(mask), self.scoring);
                }
            }
        }
        out.view([self.rows, -1])
    }
}

impl Decode {
    fn new(group: &[DecodeRow], whole: bool, kv: &KvCache, options: (Kind, Device)) -> Self {
        let sequences: Vec<(SequenceId, usize)> =
            group.iter().map(|row| (row.sequence, row.first_block as usize)).collect();
        let tokens = group.iter().map(|row| row.tokens).max().unwrap_or(0);
        let n_blocks = tokens.div_ceil(kv.blocks.block_tokens()) as usize;
        // Whole blocks on the CPU. Elsewhere equally long sequences go without a mask, which makes a quicker kernel possible.
        let equal = group.iter().all(|row| row.tokens == tokens);
        let whole_blocks = n_blocks as u32 * kv.blocks.block_tokens();
        let tokens = if equal && options.1 != Device::Cpu { tokens } else { whole_blocks };
        let full = group.iter().all(|row| row.tokens == tokens && row.hidden == 0);
        let rows: Vec<i64> = group.iter().map(|row| row.row).collect();
        Self {
            rows: (!whole).then(|| Tensor::from_slice(&rows).to_device(options.1)),
            n_sequences: group.len() as i64,
            keys_values: kv.gather_index(&sequences, n_blocks),
            tokens: i64::from(tokens),
            mask: (!full).then(|| sight_mask(group, tokens as usize, options)),
        }
    }

    /// `q`: `[n_sequences, n_heads, head_dim]` → the same shape.
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, scoring: Scoring) -> Tensor {
        let cached = kv.gather(layer, &self.keys_values, self.n_sequences).narrow(3, 0, self.tokens);
        let (k, v) = (cached.get(0), cached.get(1));
        let (n_kv_heads, head_dim) = (k.size()[1], k.size()[3]);
        let folded = q.reshape([self.n_sequences, n_kv_heads, -1, head_dim]);
        let out = scoring.attend(&folded, &k, &v, self.mask.as_ref(), false);
        out.reshape([self.n_sequences, -1, head_dim])
    }
}

/// Rows of one sequence: `q` and `out` are the step's, `[rows, n_heads, head_dim]`; `k` and `v` are
/// `[n_kv_heads, tokens, head_dim]`. Without a mask the rows are the sequence's first, padded in `k` and `v` too, and see
/// what is not after them.
fn prefill(
    q: &Tensor,
    out: &Tensor,
    rows: &Range<i64>,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    scoring: Scoring,
) {
    let n_rows = rows.end - rows.start;
    let (n_kv_heads, head_dim) = (k.size()[0], k.size()[2]);
    let group = q.size()[1] / n_kv_heads;
    let q = padded(&q.narrow(0, rows.start, n_rows)).unflatten(1, [n_kv_heads, group]).permute([1, 2, 0, 3]);
    let expand = |heads: &Tensor| heads.unsqueeze(1).expand([n_kv_heads, group, -1, head_dim], false);
    let (k, v) = (expand(k), expand(v));
    let attended = scoring.attend(&q, &k, &v, mask, mask.is_none());
    let own = attended.permute([2, 0, 1, 3]).narrow(0, 0, n_rows);
    out.narrow(0, rows.start, n_rows).view([n_rows, n_kv_heads, group, head_dim]).copy_(&own);
}

impl Scoring {
    /// Each query's weighted mean of the values, `[.., queries, head_dim]`; `mask` is 0 where a query sees a key, else −∞. With
    /// `causal`, which goes without a softcap, each sees those up to its own place.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Tensor {
        let Some(cap) = self.softcap else {
            return Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, self.scale, false);
        };
        let mut scores = ((q.matmul(&k.transpose(-2, -1)) * self.scale) / cap).tanh() * cap;
        if let Some(mask) = mask {
            scores += mask;
        }
        scores.softmax(-1, Kind::Float).to_kind(v.kind()).matmul(v)
    }
}

/// To how many rows a prefill of `rows` rows is padded.
fn padded_rows(rows: usize, device: Device) -> usize {
    if device == Device::Cpu { rows.next_multiple_of(ROWS_STEP) } else { rows }
}

/// `rows`: `[rows, heads, head_dim]` → the same with rows of zeros up to `padded_rows`.
fn padded(rows: &Tensor) -> Tensor {
    if rows.device() != Device::Cpu {
        return rows.shallow_clone();
    }
    let n_rows = rows.size()[0] as usize;
    let missing = padded_rows(n_rows, Device::Cpu) - n_rows;
    rows.constant_pad_nd([0, 0, 0, 0, 0, missing as i64])
}

/// `[padded rows, positions]` for the rows of `slice` over these positions of their sequence: 0 where a row sees one, else −∞.
fn causal_mask(slice: &Slice, positions: Range<u32>, window: Option<u32>, options: (Kind, Device)) -> Tensor {
    let rows = padded_rows(slice.ids.len(), options.1);
    let nothing = Tensor::full([rows as i64, positions.len() as i64], f64::NEG_INFINITY, options);
    let own = i64::from(slice.start) - i64::from(positions.start);
    let causal = nothing.triu(own + 1);
    match window {
        Some(window) => causal + nothing.tril(own - i64::from(window)),
        None => causal,
    }
}

/// `[n_sequences, 1, 1, tokens]`: 0 where a row sees a token, else −∞.
fn sight_mask(group: &[DecodeRow], tokens: usize, options: (Kind, Device)) -> Tensor {
    let bounds = |bound: fn(&DecodeRow) -> u32| {
        let bounds: Vec<i64> = group.iter().map(|row| i64::from(bound(row))).collect();
        Tensor::from_slice(&bounds).to_device(options.1).view([-1, 1, 1, 1])
    };
    let places = Tensor::arange(tokens as i64, (Kind::Int64, options.1));
    let mut unseen = places.ge_tensor(&bounds(|row| row.tokens));
    if group.iter().any(|row| row.hidden > 0) {
        unseen = unseen.logical_or(&places.lt_tensor(&bounds(|row| row.hidden)));
    }
    Tensor::zeros(unseen.size(), options).masked_fill(&unseen, f64::NEG_INFINITY)
}

/// Groups in which none is more than twice as long as another: all of a group are padded to its longest.
fn group_by_length(mut rows: Vec<DecodeRow>) -> Vec<Vec<DecodeRow>> {
    let shortest = rows.iter().map(|row| row.tokens).min().unwrap_or(0);
    if rows.iter().all(|row| row.tokens <= 2 * shortest) {
        return if rows.is_empty() { Vec::new() } else { vec![rows] };
    }
    rows.sort_by_key(|row| row.tokens);
    let mut groups: Vec<Vec<DecodeRow>> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group) if row.tokens <= 2 * group[0].tokens => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups
}
